"""The document says what the routes are, and the page needs nothing from elsewhere."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from scripted_engine import ScriptedEngine, call_app, delta, new_app

from rillm.server.anthropic.protocol import MessagesRequest
from rillm.server.openapi import OPERATIONS
from rillm.server.options import HttpOptions
from rillm.server.protocol import ChatCompletionRequest, CompletionRequest


async def document(options: HttpOptions | None = None) -> Any:
    app = new_app(ScriptedEngine(), options)
    return (await call_app(app, "/openapi.json", b"", method="GET")).json()


def references(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(references, node))
    if not isinstance(node, dict):
        return set()
    own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
    return own.union(*map(references, node.values()))


async def test_every_path_answers_as_it_says() -> None:
    described = await document()
    app = new_app(ScriptedEngine([delta(0, "a", finish="stop")]))
    bodies = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
        "/v1/completions": {"prompt": "a"},
        "/v1/messages": {"max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]},
        "/v1/responses": {"input": "hello"},
        "/inference/v1/generate": {"token_ids": [5], "sampling_params": {"max_tokens": 1}},
    }
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            url = path.replace("{model}", "scripted")
            answer = await call_app(app, url, bodies.get(path, {}), method=method.upper())
            said = operation["responses"][str(answer.status)]
            assert said["description"], path
            if answer.status == 200 and path in bodies:
                assert list(said["content"]) == ["application/json", "text/event-stream"]
                schema = said["content"]["application/json"]["schema"]
                assert set(schema["required"]) <= set(answer.json()), path


async def test_every_route_that_takes_a_body_describes_it() -> None:
    described = await document()

    for path, methods in described["paths"].items():
        if "post" in methods and path != "/ping" and not path.endswith("/cancel"):
            assert "requestBody" in methods["post"], path
            assert path in OPERATIONS


async def test_references_and_names_hold() -> None:
    described = await document()

    for reference in references(described):
        node = described
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    names = [
        operation["operationId"]
        for methods in described["paths"].values()
        for operation in methods.values()
    ]
    assert len(names) == len(set(names))
    assert described["openapi"].startswith("3.1")


@pytest.mark.parametrize("body", [ChatCompletionRequest, CompletionRequest, MessagesRequest])
async def test_fields_are_those_that_are_served(body: Any) -> None:
    described = await document()

    shown = set(described["components"]["schemas"][body.__name__]["properties"])

    assert shown == {each.name for each in msgspec.structs.fields(body)} - set(body.UNSUPPORTED)


async def test_roles_are_those_that_are_taken() -> None:
    schema = (await document())["components"]["schemas"]["ChatCompletionRequest"]
    roles = schema["properties"]["messages"]["items"]["properties"]["role"]["enum"]
    app = new_app(ScriptedEngine([delta(0, "a", finish="stop")]))

    for role, status in [*((role, 200) for role in roles), ("robot", 400)]:
        body = {"messages": [{"role": role, "content": "hello"}]}
        assert (await call_app(app, "/v1/chat/completions", body)).status == status, role


async def test_keys_and_root_path_are_said() -> None:
    described = await document(HttpOptions(api_key=("hush",), root_path="/llm"))

    assert described["servers"] == [{"url": "/llm"}]
    assert described["components"]["securitySchemes"]
    chat = described["paths"]["/v1/chat/completions"]["post"]
    assert chat["security"] == [{"key": []}]
    assert "401" in chat["responses"]
    assert "security" not in described["paths"]["/health"]["get"]
    assert "hush" not in str(described)


async def test_page_shows_every_route_and_loads_nothing() -> None:
    answer = await call_app(new_app(ScriptedEngine()), "/docs", b"", method="GET")
    page = answer.body.decode()

    assert answer.headers["content-type"].startswith("text/html")
    for path in (await document())["paths"]:
        assert f"<code>{path}</code>" in page
    assert "max_completion_tokens" in page
    assert not re.search(r"<script|<link|<img|https?:|url\(", page)
