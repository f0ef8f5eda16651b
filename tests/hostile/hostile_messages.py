"""Messages of odd shapes, and variables for templates that should not have come."""

from __future__ import annotations

from typing import Any, Final

_CALL: Final = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def _deep(levels: int, value: Any = 1) -> Any:
    for _ in range(levels):
        value = {"a": value}
    return value


ODD_CONTENTS: Final[tuple[Any, ...]] = (
    *(None, "", " ", 5, True, [], {}, [[]], [5], [None], "\0", "<|im_end|>" * 100, "💧" * 3000),
    *([{}], [{"type": 5}], [{"type": "text"}], [{"type": "text", "text": 5}], ["a", "b"]),
    [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
    [{"type": "image_url", "image_url": "http://169.254.169.254/latest"}],
    [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
    [{"type": "image", "source": {"type": "url", "url": "http://localhost:1/"}}],
    [{"type": "tool_result", "tool_use_id": None, "content": [[]]}],
    [{"type": "tool_result"}],
    [{"type": "tool_use", "id": 5, "name": None, "input": "a"}],
    [{"type": "thinking", "thinking": 5, "signature": {}}],
    [{"type": "document", "source": {"type": "text", "data": 5}}],
    [{"type": "refusal", "refusal": None}],
    [{"type": "text", "text": "a", "cache_control": 5}] * 500,
    [{"type": "text", "text": "{{ x }}{% raw %}"}],
    _deep(70),
    _deep(600),
)
ODD_MESSAGES: Final[tuple[Any, ...]] = (
    *({}, None, 5, "a", [], {"role": None}, {"role": 5}, {"role": "nobody", "content": "a"}),
    {"role": "user"},
    {"role": "tool", "content": "a"},
    {"role": "tool", "tool_call_id": 5, "content": None},
    {"role": "assistant"},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "assistant", "tool_calls": "a"},
    {"role": "assistant", "tool_calls": [5]},
    {"role": "assistant", "tool_calls": [{}]},
    {"role": "assistant", "tool_calls": [_CALL | {"function": None}]},
    {"role": "assistant", "tool_calls": [_CALL | {"function": {"name": None}}]},
    {"role": "assistant", "tool_calls": [_CALL | {"function": {"name": "f", "arguments": 5}}]},
    {
        "role": "assistant",
        "tool_calls": [_CALL | {"function": {"name": "f", "arguments": "[" * 5000}}],
    },
    {
        "role": "assistant",
        "tool_calls": [_CALL | {"function": {"name": "f", "arguments": '{"a":' * 900}}],
    },
    {
        "role": "assistant",
        "tool_calls": [
            _CALL | {"function": {"name": "f", "arguments": '{"a":' * 400 + "1" + "}" * 400}}
        ],
    },
    {"role": "assistant", "content": "a", "tool_calls": [_CALL] * 300},
    {"role": "assistant", "content": "a", "function_call": {"name": 5}},
    {"role": "assistant", "content": "a", "reasoning_content": 5},
    {"role": "assistant", "content": "a", "reasoning_content": ["a"], "thinking": {}},
    {"role": "assistant", "audio": {"id": "a"}},
    {"role": "user", "content": "a", "name": {"a": 1}},
    {"role": "user", "content": "a", "": "", "items": 5, "get": 7, "__class__": "a"},
    {"role": "system", "content": ["a"]},
    {"role": "developer", "content": [{"type": "text", "text": "a"}] * 2},
    {"type": "function_call_output", "call_id": None, "output": 5},
    {"type": "function_call", "name": "f", "arguments": "{", "call_id": "x"},
    {"type": "reasoning", "summary": 5},
    {"type": "item_reference", "id": "../a"},
    {"type": "message", "role": "user", "content": [{"type": "input_text"}]},
    {"type": "computer_call_output"},
    {"role": "user", "content": _deep(300)},
    {"role": "user", "content": "a", "extra": _deep(450)},
)
TEMPLATE_VARIABLES: Final[tuple[Any, ...]] = (
    *(10**9, "a" * 100_000, {"a": "b"}, ["a"] * 5000, "{{ messages }}", _deep(80), _deep(450)),
    *({"__class__": {"__mro__": []}}, {"items": 5}, True, "{% for i in range(9) %}{% endfor %}"),
)
