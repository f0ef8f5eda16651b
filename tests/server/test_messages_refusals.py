"""What the Messages API refuses, in Anthropic's shape, and that the message names the field."""

from __future__ import annotations

from typing import Any

import pytest
from messages_script import COUNT, FORMATS, HELLO, MESSAGES, TIDE_TOOL
from scripted_engine import ScriptedEngine, call_app, delta, new_app

from rillm.server.options import HttpOptions

KEYS = HttpOptions(api_key=("right",))
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "tide", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "noon"}


def says(role: str, *blocks: Any) -> list[Any]:
    return [{"role": role, "content": list(blocks)}]


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


PROMPT_ROWS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": ["hello"]}, "messages[0]"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
    ({"messages": says("user")}, "messages[0].content"),
    ({"messages": [{"role": "assistant", "content": []}, *HELLO]}, "messages[0].content"),
    ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
    ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
    ({"messages": says("user", {"type": "text"})}, "messages[0].content[0].text"),
    ({"messages": says("user", {"text": "a"})}, "messages[0].content[0].type"),
    ({"messages": says("user", {"type": "audio"})}, "messages[0].content[0].type"),
    ({"messages": says("user", {"type": "text", "text": "a"}, IMAGE)}, "messages[0].content[1]"),
    ({"messages": says("user", {"type": "document", "source": {}})}, "messages[0].content[0]"),
    ({"messages": says("user", USE)}, "messages[0].content[0]"),
    ({"messages": says("user", {"type": "thinking", "thinking": "a"})}, "messages[0].content[0]"),
    ({"messages": [*HELLO, *says("assistant", RESULT)]}, "messages[1].content[0]"),
    ({"messages": [*HELLO, *says("system", USE)]}, "messages[1].content[0]"),
    ({"messages": says("user", RESULT | {"content": [IMAGE]})}, "content[0].content[0].type"),
    ({"messages": says("user", {"type": "tool_result"})}, "content[0].tool_use_id"),
    ({"messages": says("user", RESULT | {"content": 5})}, "content[0].content"),
    ({"messages": [*HELLO, *says("assistant", USE | {"input": "{}"})]}, "content[0].input"),
    ({"messages": [*HELLO, *says("assistant", USE)]}, "messages[1]"),
    ({"messages": [*HELLO, *says("assistant", {"type": "text", "text": "a"}, USE)]}, "messages[1]"),
    ({"messages": HELLO, "system": 5}, "system"),
    ({"messages": HELLO, "system": [IMAGE]}, "system[0].type"),
    ({"tools": {}}, "tools"),
    ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ({"tools": [TIDE_TOOL, {"name": "f", "input_schema": 5}]}, "tools[1].input_schema"),
    ({"tools": [{"type": "custom", "name": "f"}]}, "tools[0].input_schema"),
    ({"tools": [{"name": "", "input_schema": {}}]}, "tools[0].name"),
    ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tool_choice": {"type": "required"}}, "tool_choice.type"),
    ({"tools": [TIDE_TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"tools": [TIDE_TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name"),
    ({"thinking": True}, "thinking"),
    ({"thinking": {"type": "maybe"}}, "thinking.type"),
    ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled", "display": "all"}}, "thinking.display"),
    ({"output_config": {"effort": "huge"}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"output_format": {"type": "xml", "schema": {}}}, "output_format.type"),
    ({"mcp_servers": [{"type": "url", "url": "http://a", "name": "a"}]}, "mcp_servers"),
    ({"container": "c1"}, "container"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"model": 5}, "model"),
]
ROWS: list[tuple[dict[str, Any], str]] = [
    *PROMPT_ROWS,
    (
        {"output_config": {"format": {"type": "json_schema", "schema": _nested(70)}}},
        "output_config.format",
    ),
    ({"output_format": {"type": "json_schema", "schema": _nested(70)}}, "output_config.format"),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 2**63}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"stream": "yes"}, "stream"),
    ({"stop_sequences": "END"}, "stop_sequences"),
    ({"stop_sequences": ["a", ""]}, "stop_sequences"),
    ({"stop_sequences": [str(i) for i in range(65)]}, "stop_sequences"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"cache_salt": "a/b"}, "cache_salt"),
    ({"repetition_detection": {"max_pattern_size": 0}}, "repetition_detection"),
]


async def answer_to(
    path: str, body: Any, options: HttpOptions | None = None, **how: Any
) -> tuple[int, dict[str, Any], dict[str, str]]:
    engine = ScriptedEngine([delta(0, "a", finish="stop")])
    engine.formats = FORMATS
    answer = await call_app(new_app(engine, options), path, body, **how)
    return answer.status, answer.json(), answer.headers


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(ROWS) >= 60


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "name"), ROWS, ids=lambda value: str(value)[:60])
async def test_a_refusal_names_the_field(fields: dict[str, Any], name: str, stream: bool) -> None:
    body = {"max_tokens": 9, "messages": HELLO, "stream": stream} | fields
    status, said, headers = await answer_to(MESSAGES, body)

    assert status == 400
    assert said["type"] == "error"
    assert said["error"]["type"] == "invalid_request_error"
    assert name in said["error"]["message"]
    assert said["request_id"] == headers["request-id"] == headers["x-request-id"]


@pytest.mark.parametrize(("fields", "name"), PROMPT_ROWS, ids=lambda value: str(value)[:60])
async def test_what_is_refused_is_not_counted(fields: dict[str, Any], name: str) -> None:
    status, said, _ = await answer_to(COUNT, {"messages": HELLO} | fields)

    assert (status, said["error"]["type"]) == (400, "invalid_request_error")
    assert name in said["error"]["message"]


async def test_a_prompt_that_is_too_long_is_told_in_the_words_agents_know() -> None:
    long = [{"role": "user", "content": "word " * 3000}]
    _, counted, _ = await answer_to(COUNT, {"messages": long})
    status, said, _ = await answer_to(MESSAGES, {"max_tokens": 9, "messages": long})

    assert status == 400
    expected = f"prompt is too long: {counted['input_tokens']} tokens > 2047 maximum"
    assert said["error"] == {"type": "invalid_request_error", "message": expected}


@pytest.mark.parametrize("stop", [["a", "b", "c", "d", "e"], []])
async def test_more_stop_sequences_than_chat_takes(stop: list[str]) -> None:
    body = {"max_tokens": 9, "messages": HELLO, "stop_sequences": stop}

    assert (await answer_to(MESSAGES, body))[0] == 200


FINE: dict[str, Any] = {"max_tokens": 9, "messages": HELLO}


@pytest.mark.parametrize(
    ("path", "body", "how", "status", "kind"),
    [
        (MESSAGES, FINE | {"model": "none"}, {}, 404, "not_found_error"),
        (COUNT, FINE | {"model": "none"}, {}, 404, "not_found_error"),
        ("/v1/messages/batches", FINE, {}, 404, "not_found_error"),
        (MESSAGES, b"", {"method": "GET"}, 405, "invalid_request_error"),
        (MESSAGES, b"{", {}, 400, "invalid_request_error"),
        (MESSAGES, b"[" * 100_000, {}, 400, "invalid_request_error"),
        (MESSAGES, FINE, {"content_type": "text/plain"}, 400, "invalid_request_error"),
        (MESSAGES, FINE | {"system": "a" * 900}, {}, 413, "request_too_large"),
        (MESSAGES, FINE, {"headers": [("x-request-id", "a b")]}, 400, "invalid_request_error"),
    ],
)
async def test_every_error_of_its_routes_has_anthropics_shape(
    path: str, body: Any, how: dict[str, Any], status: int, kind: str
) -> None:
    options = HttpOptions(root_path="/llm", max_body_bytes=500 if status == 413 else 2**20)
    for prefix in ("", "/llm"):
        answered, said, headers = await answer_to(prefix + path, body, options, **how)

        assert answered == status
        assert said.keys() == {"type", "error", "request_id"}
        assert (said["type"], said["error"]["type"]) == ("error", kind)
        assert said["request_id"] == headers["request-id"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([("x-api-key", "wrong")], 401),
        ([("authorization", "Bearer wrong"), ("x-api-key", "wrong")], 401),
        ([("x-api-key", "right")], 200),
        ([("authorization", "Bearer right")], 200),
        ([("authorization", "Bearer other"), ("x-api-key", "right")], 200),
        ([("authorization", "Bearer right"), ("x-api-key", "other")], 200),
    ],
)
async def test_either_header_may_hold_the_key(headers: Any, status: int) -> None:
    for path in (MESSAGES, COUNT):
        answered, said, _ = await answer_to(path, FINE, KEYS, headers=headers)

        assert answered == status
        if status == 401:
            assert said["error"]["type"] == "authentication_error"


async def test_models_are_listed_in_the_shape_that_was_asked_for() -> None:
    version = [("anthropic-version", "2023-06-01")]
    how = {"method": "GET", "headers": version}
    _, listed, headers = await answer_to("/v1/models", b"", **how)
    _, one, _ = await answer_to("/v1/models/other-name", b"", **how)
    status, missing, _ = await answer_to("/v1/models/none", b"", **how)
    _, openai, _ = await answer_to("/v1/models", b"", method="GET")

    assert [card["id"] for card in listed["data"]] == ["scripted", "other-name"]
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (
        False,
        "scripted",
        "other-name",
    )
    assert one == listed["data"][1]
    assert (one["type"], one["display_name"]) == ("model", "other-name")
    assert (status, missing["error"]["type"]) == (404, "not_found_error")
    assert "request-id" in headers
    assert openai["object"] == "list"
