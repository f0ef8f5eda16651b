"""Requests to the Responses API in the shapes in which coding agents send them.

Written after the agents' documented fields; texts are short stand-ins.
"""

from __future__ import annotations

from typing import Any

_SHELL: dict[str, Any] = {
    "type": "function",
    "name": "shell",
    "description": "Runs a shell command and returns its output.",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {
            "command": {"type": "array", "items": {"type": "string"}},
            "workdir": {"type": "string"},
            "timeout_ms": {"type": "number"},
        },
        "required": ["command"],
        "additionalProperties": False,
    },
}
_PLAN: dict[str, Any] = {
    "type": "function",
    "name": "update_plan",
    "description": "Updates the task plan.",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {
            "plan": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"step": {"type": "string"}, "status": {"type": "string"}},
                    "required": ["step", "status"],
                },
            }
        },
        "required": ["plan"],
    },
}
_APPLY_PATCH: dict[str, Any] = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch" LF'},
}
_CALL: dict[str, Any] = {
    "type": "function_call",
    "call_id": "c1",
    "name": "shell",
    "arguments": "{}",
}


def _part(text: str, kind: str = "input_text") -> dict[str, str]:
    return {"type": kind, "text": text}


CODEX: dict[str, Any] = {
    "model": "scripted",
    "instructions": "You are a coding agent.",
    "input": [
        {
            "type": "message",
            "role": "developer",
            "content": [_part("<permissions>read only</permissions>"), _part("<apps/>")],
        },
        {
            "type": "message",
            "role": "user",
            "content": [_part("<environment_context>bash</environment_context>")],
        },
        {"type": "message", "role": "user", "content": [_part("List the files.")]},
    ],
    "tools": [
        _SHELL,
        _PLAN,
        _APPLY_PATCH,
        {"type": "web_search", "external_web_access": False},
        {"type": "local_shell"},
        {"type": "image_generation", "output_format": "png"},
        {"type": "tool_search", "execution": "client", "description": "Finds tools."},
        {
            "type": "namespace",
            "name": "mcp__files",
            "description": "Files.",
            "tools": [{"type": "function", "name": "read", "parameters": {"type": "object"}}],
        },
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto", "context": "all_turns"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "service_tier": "priority",
    "prompt_cache_key": "018f7f5e-0000-7000-8000-000000000000",
    "text": {"verbosity": "low"},
    "client_metadata": {"x-codex-installation-id": "0"},
}
CODEX_SECOND_STEP: dict[str, Any] = CODEX | {
    "input": [
        *CODEX["input"],
        {
            "type": "reasoning",
            "id": "rs_0",
            "summary": [],
            "content": [_part("A listing is asked for.", "reasoning_text")],
            "encrypted_content": None,
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [_part("I list them.", "output_text")],
            "phase": "commentary",
        },
        {
            "type": "function_call",
            "name": "shell",
            "arguments": '{"command":["ls"]}',
            "call_id": "call_1",
        },
        {
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "call_2",
            "name": "apply_patch",
            "input": "*** Begin Patch\n*** End Patch",
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "a.txt\n"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "Success."},
    ]
}
CODEX_LOCAL_SHELL: dict[str, Any] = CODEX | {
    "input": [
        *CODEX["input"],
        {
            "type": "local_shell_call",
            "call_id": "call_1",
            "status": "completed",
            "action": {"type": "exec", "command": ["ls"], "timeout_ms": None, "env": None},
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "a.txt"},
        {"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
    ]
}
AI_SDK: dict[str, Any] = {
    "model": "scripted",
    "input": [
        {"role": "system", "content": "You are opencode."},
        {"role": "user", "content": [_part("List the files.")]},
        {"role": "assistant", "content": [_part("I list them.", "output_text")], "id": "msg_1"},
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "shell",
            "arguments": "{}",
            "id": "fc_1",
        },
        {"type": "function_call_output", "call_id": "c1", "output": '{"files":[]}'},
        {"role": "user", "content": [_part("Thanks.")]},
    ],
    "max_output_tokens": 32,
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "ses_1",
    "reasoning": {"effort": "medium", "summary": "auto"},
    "text": {"verbosity": "low"},
    "tools": [{**_SHELL, "strict": None}],
    "tool_choice": "auto",
    "stream": True,
}
CLINE: dict[str, Any] = {
    "model": "scripted",
    "instructions": "You are Cline.",
    "input": [
        {"role": "user", "content": [_part("List the files.")]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [_part("**Listing**", "summary_text")],
            "encrypted_content": "gAAAAABo",
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c1",
            "name": "shell",
            "arguments": "{}",
        },
        {"type": "function_call_output", "call_id": "c1", "output": [_part("a.txt")]},
    ],
    "stream": True,
    "store": False,
    "tools": [_SHELL],
    "temperature": 0,
    "reasoning": {"effort": "medium", "summary": "auto"},
}
COPILOT: dict[str, Any] = {
    "model": "scripted",
    "input": [
        {"role": "system", "content": [_part("You are an assistant in an editor.")]},
        {"role": "user", "content": [_part("List the files.")]},
    ],
    "stream": True,
    "tools": [_SHELL],
    "top_p": 1,
    "max_output_tokens": 32,
    "tool_choice": "auto",
    "store": False,
    "truncation": "disabled",
    "reasoning": {"effort": "low", "summary": "detailed"},
    "include": ["reasoning.encrypted_content"],
}
OPENAI_AGENTS: dict[str, Any] = {
    "model": "scripted",
    "instructions": None,
    "input": [
        {"content": "List the files.", "role": "user"},
        _CALL | {"id": "fc_1", "status": "completed"},
        {"call_id": "c1", "output": "a.txt", "type": "function_call_output"},
    ],
    "include": [],
    "tools": [
        {**_SHELL, "strict": True},
        {"type": "file_search", "vector_store_ids": ["vs_1"]},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": "mcp", "server_label": "x", "server_url": "https://example.com"},
        {
            "type": "computer_use_preview",
            "environment": "linux",
            "display_width": 800,
            "display_height": 600,
        },
        {"type": "apply_patch"},
        {"type": "shell"},
    ],
    "parallel_tool_calls": True,
    "stream": True,
}
LANGCHAIN: dict[str, Any] = {
    "model": "scripted",
    "input": [
        {"content": "List the files.", "role": "user", "type": "message"},
        {
            "type": "message",
            "content": [
                {"type": "output_text", "text": "I list them.", "annotations": []},
                {"type": "refusal", "refusal": "Not all."},
            ],
            "role": "assistant",
            "id": "msg_1",
        },
        _CALL,
        {"type": "function_call_output", "output": "a.txt", "call_id": "c1"},
    ],
    "stream": True,
    "tools": [_SHELL],
    "text": {"format": {"type": "text"}},
}
AGENT_REQUESTS: dict[str, dict[str, Any]] = {
    "codex": CODEX,
    "codex, second step": CODEX_SECOND_STEP,
    "codex, local shell": CODEX_LOCAL_SHELL,
    "opencode and others by the AI SDK": AI_SDK,
    "cline": CLINE,
    "copilot": COPILOT,
    "openai-agents": OPENAI_AGENTS,
    "langchain": LANGCHAIN,
}
