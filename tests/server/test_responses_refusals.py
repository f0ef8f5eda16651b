"""What POST /v1/responses refuses, and the name of the field at fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from refusals import SHARED, Row
from response_events import PATH
from scripted_engine import ScriptedEngine, call, delta

from rillm.input_processor import InputProcessor, Limits
from rillm.server.responses.request import ResponsesRequest

HELLO = {"role": "user", "content": "hello"}
F = {"type": "function", "name": "f"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


def item(**fields: Any) -> dict[str, Any]:
    return {"input": [HELLO, fields]}


def message(content: Any) -> dict[str, Any]:
    return item(role="user", content=content)


def _set(name: str) -> Any:
    """A value of a field that is not supported, of a type that it may have."""
    if name.startswith("return_"):
        return True
    return {"n": 2, "prompt_logprobs": 1, "logprob_token_ids": [1]}.get(name, {"a": 1})


_ELSEWHERE = {"n", "max_tokens", "prompt_logprobs", "logprob_token_ids", "response_format"}
ROWS: list[Row] = [
    *((fields, param) for fields, param in SHARED if not _ELSEWHERE & fields.keys()),
    *(({name: _set(name)}, name) for name in ResponsesRequest.UNSUPPORTED),
    (item(type="item_reference"), "input[1].id"),
    (item(id=["x"]), "input[1].id"),
    ({"min_tokens": 9, "max_output_tokens": 8}, "min_tokens"),
    ({"input": []}, "input"),
    ({"input": "word " * 3000}, "input_tokens"),
    ({"input": [{}]}, "input[0].type"),
    (item(type="robot"), "input[1].type"),
    (item(type=5), "input[1].type"),
    (item(role="robot", content="x"), "input[1].role"),
    (item(role=["user"], content="x"), "input[1].role"),
    (item(type="message", content="x"), "input[1].role"),
    (item(role="user"), "input[1].content"),
    (message(5), "input[1].content"),
    (message({"type": "input_text", "text": "x"}), "input[1].content"),
    (message(["x"]), "input[1].content[0].type"),
    (message([{"text": "x"}]), "input[1].content[0].type"),
    (message([{"type": "input_text"}]), "input[1].content[0].text"),
    (message([{"type": "input_text", "text": 5}]), "input[1].content[0].text"),
    (message([{"type": "refusal", "text": "x"}]), "input[1].content[0].refusal"),
    (
        message([{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "x"}]),
        "input[1].content[1].type",
    ),
    (message([{"type": "input_file", "file_id": "x"}]), "input[1].content[0].type"),
    (message([{"type": "input_audio"}]), "input[1].content[0].type"),
    (item(**{**CALL, "name": None}), "input[1].name"),
    (item(**{**CALL, "call_id": None}), "input[1].call_id"),
    (item(**{**CALL, "arguments": {}}), "input[1].arguments"),
    (item(type="custom_tool_call", call_id="c", name="f"), "input[1].input"),
    (item(type="function_call_output", output="x"), "input[1].call_id"),
    (item(type="function_call_output", call_id="c", output="x"), "input[1].call_id"),
    (
        {"input": [CALL, {"type": "function_call_output", "call_id": "c"}]},
        "input[1].output",
    ),
    (
        {"input": [CALL, {"type": "function_call_output", "call_id": "c", "output": 5}]},
        "input[1].output",
    ),
    (
        {
            "input": [
                CALL,
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_image"}],
                },
            ]
        },
        "input[1].output[0].type",
    ),
    (item(type="local_shell_call", call_id="c"), "input[1].action"),
    (item(type="apply_patch_call", call_id="c", operation="x"), "input[1].operation"),
    (item(type="reasoning", summary="x"), "input[1].summary"),
    (item(type="reasoning", summary=[], content=[{"type": "reasoning_text"}]), "input[1].content"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": -1}, "max_output_tokens"),
    ({"max_output_tokens": 2049}, "max_output_tokens"),
    ({"max_tool_calls": 0}, "max_tool_calls"),
    ({"background": True, "store": False}, "background"),
    ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
    ({"metadata": {"k" * 65: "x"}}, "metadata"),
    ({"metadata": {"k": "x" * 513}}, "metadata"),
    ({"top_logprobs": 21, "include": ["message.output_text.logprobs"]}, "top_logprobs"),
    ({"top_logprobs": -2, "include": ["message.output_text.logprobs"]}, "top_logprobs"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": [1]}}}, "text.format"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format"),
    ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": 5}]}, "tools[0].type"),
    ({"tools": [F, {"type": "function"}]}, "tools[1].name"),
    ({"tools": [{"type": "function", "name": ""}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
    ({"tools": [{"type": "custom"}]}, "tools[0].name"),
    ({"tools": [{**F, "parameters": "x"}]}, "tools[0].parameters"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "required", "tools": [{"type": "web_search"}]}, "tool_choice"),
    ({"tool_choice": "maybe", "tools": [F]}, "tool_choice"),
    ({"tool_choice": {}, "tools": [F]}, "tool_choice"),
    ({"tool_choice": {"type": "function", "name": "g"}, "tools": [F]}, "tool_choice"),
    ({"tool_choice": {"type": "function", "name": ["f"]}, "tools": [F]}, "tool_choice"),
    ({"tool_choice": {"type": "web_search"}, "tools": [{"type": "web_search"}]}, "tool_choice"),
    ({"tool_choice": {"type": "allowed_tools", "mode": "x", "tools": []}}, "tool_choice.mode"),
    ({"tool_choice": {"type": "allowed_tools", "tools": "x"}}, "tool_choice.tools"),
    ({"tools": [F]}, "tools"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
]


def name_of(value: Any) -> str | None:
    return json.dumps(value)[:60] if isinstance(value, dict) else None


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("fields", "param"), ROWS, ids=name_of)
async def test_a_refusal_names_the_field(
    fields: dict[str, Any], param: str, is_stream: bool
) -> None:
    engine = CheckingEngine()
    stream = {"stream": True} if is_stream and "stream_options" not in fields else {}

    answer = await call(engine, PATH, {"input": "hello"} | stream | fields)

    error = answer.json()["error"]
    assert (answer.status, error["type"], error["param"]) == (400, "BadRequestError", param)
    assert param.split(".")[-1].split("[")[0] in error["message"] or param == "input_tokens"
    assert not engine.seen


class CheckingEngine(ScriptedEngine):
    """Refuses as the real one, by the same checks, and never generates."""

    async def generate(self, *arguments: Any, **options: Any) -> Any:
        inputs = InputProcessor(
            self.model_config, self.generation_config, self.get_tokenizer(), max_logprobs=20, seed=0
        )
        prompt, params, *_ = arguments
        priority = options["priority"]
        inputs.process(1, prompt, params, Limits(max_model_len=2048, max_num_seqs=256), priority)
        raise AssertionError("accepted")
        yield


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{}", "input"),
        (b'{"input": null}', "input"),
        (b'{"input": 5}', "input"),
        (b'{"input": ["hello"]}', "input[0]"),
        (b'{"input": "a", "instructions": 5}', "instructions"),
        (b'{"input": "a", "reasoning": {"effort": "huge"}}', "reasoning.effort"),
        (b'{"input": "a", "reasoning": "high"}', "reasoning"),
        (b'{"input": "a", "text": {"verbosity": "none"}}', "text.verbosity"),
        (b'{"input": "a", "text": {"format": "json"}}', "text.format"),
        (b'{"input": "a", "truncation": "middle"}', "truncation"),
        (b'{"input": "a", "metadata": {"a": 1}}', "metadata[...]"),
        (b'{"input": "a", "store": "yes"}', "store"),
        (b'{"input": "a", "background": 1}', "background"),
        (b'{"input": "a", "tools": {}}', "tools"),
        (b'{"input": "a", "tools": ["f"]}', "tools[0]"),
        (b'{"input": "a", "tool_choice": 5}', "tool_choice"),
        (b'{"input": "a", "include": "x"}', "include"),
        (b'{"input": "a", "previous_response_id": 5}', "previous_response_id"),
        (b'{"input": "a", "max_output_tokens": "5"}', "max_output_tokens"),
        (b'{"input": "a", "max_output_tokens": 1e99}', "max_output_tokens"),
        (b'{"input": ' + b"[" * 100_000, "input[0]"),
        (b'{"input": "a", "tools": ' + b'[{"a":' * 100_000, None),
        (b"{", None),
    ],
)
async def test_wrong_json_is_a_bad_request_with_the_path(body: bytes, param: str | None) -> None:
    answer = await call(ScriptedEngine(), PATH, body)

    error = answer.json()["error"]
    assert (answer.status, error["type"], error["param"]) == (400, "Bad Request", param)


async def test_unknown_fields_and_values_of_include_are_ignored() -> None:
    body = {"input": "a", "new_field": 1, "include": ["web_search_call.results"], "tools": []}

    answer = await call(ScriptedEngine([delta(0, "a", finish="stop")]), PATH, body)

    assert answer.status == 200
