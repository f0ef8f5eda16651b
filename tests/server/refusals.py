"""Bodies that are refused, with the name of the field at fault; and how to send one."""

from __future__ import annotations

import http.client
import json
from typing import Any

from running_server import RunningServer

from rillm.server.protocol import ChatCompletionRequest, CompletionRequest, GenerationRequest

Row = tuple[dict[str, Any], str]
"""Fields over those of an acceptable body, and the `param` of the refusal."""

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
ACCEPTABLE: dict[str, dict[str, Any]] = {CHAT: {"messages": HELLO}, COMPLETIONS: {"prompt": "a"}}
STRUCTS: dict[str, type[GenerationRequest]] = {
    CHAT: ChatCompletionRequest,
    COMPLETIONS: CompletionRequest,
}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def post(
    server: RunningServer, path: str, body: bytes, content_type: str = "application/json"
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST", path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        return response.status, json.load(response)
    finally:
        connection.close()


def _schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}


def _out_of_range() -> list[Row]:
    """Numbers just outside of what is documented."""
    outside: dict[str, list[Any]] = {
        "temperature": [-0.1, 2.1, 1e300],
        "top_p": [0, -0.1, 1.1],
        "top_k": [-2],
        "min_p": [-0.1, 1.1],
        "repetition_penalty": [0, -1, 1e300],
        "presence_penalty": [-2.1, 2.1],
        "frequency_penalty": [-2.1, 2.1],
        "n": [0, -1, 1000, 16385],
        "min_tokens": [-1],
        "max_tokens": [-1, 2049, 2**62],
        "stream_interval": [0, -1],
        "truncate_prompt_tokens": [0, -2, 2049],
        "stop": ["", ["a", ""], ["a", "b", "c", "d", "e"]],
        "stop_token_ids": [[-1], [2048], [2**62]],
        "allowed_token_ids": [[], [-1], [2048]],
        "bad_words": [[""], ["a", ""], [f"w{i}" for i in range(200)]],
        "logit_bias": [
            {"x": 1},
            {"": 1},
            {"-1": 1},
            {"1.5": 1},
            {" 1": 1},
            {"9999": 1},
            {"1" * 5000: 1},
        ],
        "cache_salt": ["", "a@b", "a/b", "a\u0000b", "a" * 129],
        "request_id": ["", "a b", "a\nb", "ä", "a" * 129],
        "priority": [-(2**63)],
    }
    return [({name: value}, name) for name, values in outside.items() for value in values]


def _unsupported(fields: tuple[str, ...]) -> list[Row]:
    return [({name: {"a": 1}}, name) for name in fields if name != "suffix"]


SHARED: list[Row] = [
    *_out_of_range(),
    *_unsupported(GenerationRequest.UNSUPPORTED),
    ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
    ({"n": 2, "temperature": 0}, "n"),
    (
        {"repetition_detection": {"max_pattern_size": 0}},
        "repetition_detection.max_pattern_size",
    ),
    (
        {"repetition_detection": {"max_pattern_size": 2, "min_pattern_size": 3}},
        "repetition_detection.max_pattern_size",
    ),
    (
        {"repetition_detection": {"max_pattern_size": 2, "min_count": 1}},
        "repetition_detection.min_count",
    ),
    ({"logprob_token_ids": [1]}, "logprob_token_ids"),
    ({"prompt_logprobs": -2}, "prompt_logprobs"),
    ({"prompt_logprobs": 21}, "prompt_logprobs"),
    ({"prompt_logprobs": -1}, "prompt_logprobs"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": 5}}, "response_format.type"),
    ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        "response_format.json_schema.name",
    ),
    (
        {"response_format": _schema_format(["a"])},
        "response_format.json_schema.schema",
    ),
    (
        {
            "response_format": {"type": "json_object"},
            "structured_outputs": {"regex": "a"},
        },
        "response_format",
    ),
    ({"structured_outputs": {}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
    ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag"),
    ({"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
    ({"stream_options": {}, "stream": False}, "stream_options"),
    ({"stream_options": {"include_usage": True}, "stream": None}, "stream_options"),
    ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
]

_LONG = {"role": "user", "content": "word " * 3000}
CHAT_ONLY: list[Row] = [
    *_unsupported(
        tuple(set(ChatCompletionRequest.UNSUPPORTED) - set(GenerationRequest.UNSUPPORTED))
    ),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_completion_tokens": 2049, "max_tokens": 5}, "max_completion_tokens"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"top_logprobs": -1}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": -2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": True, "logprob_token_ids": [2048]}, "logprob_token_ids"),
    ({"logprobs": True, "logprob_token_ids": list(range(129))}, "logprob_token_ids"),
    ({"logprobs": True, "top_logprobs": 3, "logprob_token_ids": [1, 2]}, "logprobs"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "r" * 5000, "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": 5, "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{}]}, "messages[0].role"),
    ({"messages": [*HELLO, {"role": "user", "content": 3}]}, "messages[1].content"),
    ({"messages": [{"role": "user", "content": {"text": "x"}}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0].type",
    ),
    ({"messages": [_LONG]}, "input_tokens"),
    ({"messages": [_LONG], "truncate_prompt_tokens": 2048}, "input_tokens"),
    ({"tools": []}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {}}}, "tool_choice"),
    (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
    ),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [*TOOLS, {"type": 1}]}, "tools[1].type"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": None}}]}, "tools[0].function.name"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
        "tools[0].function.parameters",
    ),
    ({"add_generation_prompt": True, "continue_final_message": True}, "continue_final_message"),
    (
        {"messages": [{"role": "assistant"}], "continue_final_message": True},
        "continue_final_message",
    ),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"self": 1}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs"),
]
COMPLETIONS_ONLY: list[Row] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [""]}, "prompt"),
    ({"prompt": ["a", ""]}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": [1, [1]]}, "prompt"),
    ({"prompt": [[]]}, "prompt"),
    ({"prompt": [[1], []]}, "prompt"),
    ({"prompt": ["a"] * 1025}, "prompt"),
    ({"prompt": "word " * 3000}, "input_tokens"),
    ({"prompt": [1] * 2048}, "input_tokens"),
    ({"prompt": [2048]}, "prompt_token_ids"),
    ({"prompt": [-1]}, "prompt_token_ids"),
    ({"prompt": [[1], [2**40]]}, "prompt_token_ids"),
    ({"prompt": [2048], "echo": True}, "prompt_token_ids"),
    ({"prompt": [-1], "echo": True, "max_tokens": 0, "logprobs": 0}, "prompt_token_ids"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 0, "echo": False}, "max_tokens"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": -2}, "logprobs"),
    ({"logprobs": 2, "logprob_token_ids": [1]}, "logprobs"),
    ({"echo": True, "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ({"suffix": "b"}, "suffix"),
    ({"suffix": ""}, "suffix"),
    ({"prompt_embeds": "AAAA"}, "prompt_embeds"),
    ({"best_of": 2}, "best_of"),
    ({"best_of": 0}, "best_of"),
]
ROWS: list[tuple[str, dict[str, Any], str]] = [
    *((path, fields, param) for path in ACCEPTABLE for fields, param in SHARED),
    *((CHAT, fields, param) for fields, param in CHAT_ONLY),
    *((COMPLETIONS, fields, param) for fields, param in COMPLETIONS_ONLY),
]


_OBJECTS = frozenset(
    {
        "chat_template_kwargs",
        "logit_bias",
        "repetition_detection",
        "response_format",
        "stream_options",
        "structured_outputs",
        "tool_choice",
    }
)


def wrong_types() -> list[tuple[str, str, Any]]:
    """For each field of each body a value of a JSON type it cannot have."""
    return [
        (path, name, 5.5 if name in _OBJECTS else {"a": []})
        for path, struct in STRUCTS.items()
        for name in struct.__struct_fields__
        if name not in struct.UNSUPPORTED
    ]
