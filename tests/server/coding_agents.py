"""Requests as coding agents and frameworks send them, by their documented fields.

The texts are short; what matters is which fields are there, and what is in them.
"""

from __future__ import annotations

from typing import Any

_CACHED: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
_HOUR: dict[str, Any] = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "command": {"type": "string", "description": "The command to execute"},
        "timeout": {"type": "number", "exclusiveMinimum": 0},
        "run_in_background": {"type": "boolean"},
    },
    "required": ["command"],
    "additionalProperties": False,
}
_BASH = {"name": "Bash", "description": "Executes a command.", "input_schema": _SCHEMA}
_EDIT = {
    "name": "Edit",
    "description": "Replaces text in a file.",
    "input_schema": {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "edits": {
                "type": "array",
                "items": {"type": "object", "properties": {"old": {"type": "string"}}},
            },
        },
    },
}


def text(content: str, **fields: Any) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": content, **fields}


_CLAUDE_CODE_SYSTEM = [
    text("x-anthropic-billing-header: cc_version=2.1.114.76c; cc_entrypoint=cli; cch=ea6aa;"),
    text("You are Claude Code, Anthropic's official CLI for Claude.", **_HOUR),
    text("You are an interactive agent.\n# Environment\nPlatform: linux", **_HOUR),
]

AGENTS: dict[str, dict[str, Any]] = {
    "claude code, a turn in the midst of a loop": {
        "max_tokens": 32000,
        "messages": [
            {
                "role": "user",
                "content": [
                    text("<system-reminder>\nToday is Monday.\n</system-reminder>"),
                    text("What is in this folder?"),
                ],
            },
            {"role": "system", "content": "The following skills are available: none."},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "I list it.", "signature": "EpkCCkYIC"},
                    {"type": "redacted_thinking", "data": "EmwKAhgB"},
                    text("I will look."),
                    {
                        "type": "tool_use",
                        "id": "toolu_01A09q90qw90lq917835lq9",
                        "name": "Bash",
                        "input": {"command": "ls"},
                        "caller": {"type": "direct"},
                    },
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_01A09q90qw90lq917835lq9",
                        "content": "README.md\nsrc",
                        "is_error": False,
                        **_CACHED,
                    },
                    text("<system-reminder>\nThe todo list is empty.\n</system-reminder>"),
                ],
            },
            {"role": "system", "content": "<total_tokens>183934 tokens left</total_tokens>"},
        ],
        "system": _CLAUDE_CODE_SYSTEM,
        "tools": [
            _BASH | {"eager_input_streaming": True},
            _EDIT | {"defer_loading": True, "strict": False},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        ],
        "metadata": {"user_id": "user_abc_account__session_123"},
        "thinking": {"type": "adaptive", "display": "summarized"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "stream": True,
    },
    "claude code, its question whether it may ask": {
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "quota"}],
        "metadata": {"user_id": "user_abc"},
    },
    "claude code, a search on the web": {
        "max_tokens": 32000,
        "messages": [{"role": "user", "content": [text("Search for tides", **_CACHED)]}],
        "system": _CLAUDE_CODE_SYSTEM,
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
        "tool_choice": {"type": "tool", "name": "web_search"},
        "thinking": {"type": "disabled"},
        "stream": True,
    },
    "claude code, older, with a budget for thinking": {
        "max_tokens": 32000,
        "messages": [{"role": "user", "content": "hello"}],
        "system": _CLAUDE_CODE_SYSTEM,
        "tools": [_BASH],
        "thinking": {"type": "enabled", "budget_tokens": 31999},
        "temperature": 1,
        "stream": True,
    },
    "cline": {
        "max_tokens": 8192,
        "temperature": 0,
        "system": [text("You are Cline, a highly skilled software engineer.", **_CACHED)],
        "messages": [
            {"role": "user", "content": [text("<task>\nFix it.\n</task>", **_CACHED)]},
            {"role": "assistant", "content": [text("I read the file first.")]},
            {"role": "user", "content": [text("[read_file] Result:"), text("a = 1", **_CACHED)]},
        ],
        "tools": [_BASH],
        "tool_choice": {"type": "any"},
        "stream": True,
    },
    "opencode, through the ai sdk": {
        "max_tokens": 32000,
        "system": [text("You are opencode.", **_CACHED), text("Here is the environment.")],
        "messages": [
            {"role": "user", "content": [text("hello", **_CACHED)]},
            {"role": "assistant", "content": [text("Hello!")]},
            {"role": "user", "content": [text("go on", **_CACHED)]},
        ],
        "tools": [_BASH, _EDIT],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 16000},
        "stream": True,
    },
    "zed": {
        "max_tokens": 8192,
        "messages": [
            {"role": "user", "content": [text("hello")]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "is_error": True,
                        "content": [text("command is missing")],
                    }
                ],
            },
        ],
        "tools": [_BASH | _CACHED],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
        "system": "You are a highly skilled software engineer.",
        "metadata": None,
        "stop_sequences": [],
        "temperature": 1.0,
        "top_k": None,
        "top_p": None,
        "stream": True,
    },
    "goose": {
        "max_tokens": 8192,
        "messages": [{"role": "user", "content": [text("hello", **_CACHED)]}],
        "system": [text("You are a general-purpose AI agent called goose.", **_CACHED)],
        "tools": [_BASH | _CACHED],
        "temperature": 0.7,
        "stream": True,
    },
    "continue": {
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("hello", **_CACHED)]}],
        "system": [text("<important_rules>\nBe brief.\n</important_rules>", **_CACHED)],
        "stop_sequences": ["<|im_end|>", "\n\nHuman:", "a", "b", "c"],
        "tools": [_EDIT],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stream": True,
    },
    "langchain, a forced tool": {
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": "hello"}],
        "tools": [_EDIT],
        "tool_choice": {
            "type": "tool",
            "name": "Edit",
            "disable_parallel_tool_use": True,
        },
        "betas": ["context-management-2025-06-27"],
    },
    "pydantic ai": {
        "max_tokens": 4096,
        "system": "",
        "messages": [{"role": "user", "content": [text("hello")]}],
        "tools": [{"name": "final", "description": "", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "service_tier": "auto",
        "inference_geo": None,
        "container": None,
        "mcp_servers": [],
        "speed": "standard",
        "diagnostics": {"previous_message_id": None},
        "stream": False,
    },
}
