"""The order that the events of a response must have, as a small machine; and how to get them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, get_args

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel
from scripted_engine import Answer, call_app
from starlette.types import ASGIApp

PATH = "/v1/responses"
ENDS = {
    "response.completed": {"completed"},
    "response.incomplete": {"incomplete", "cancelled"},
    "response.failed": {"failed"},
}
DELTAS = {
    "reasoning": "response.reasoning_text",
    "message": "response.output_text",
    "function_call": "response.function_call_arguments",
    "custom_tool_call": "response.custom_tool_call_input",
}
VALUES = {"function_call": "arguments", "custom_tool_call": "input"}
CLIENT_EVENTS: dict[str, type[BaseModel]] = {
    get_args(event.model_fields["type"].annotation)[0]: event
    for event in get_args(get_args(ResponseStreamEvent)[0])
}
"""Every type of event that the official client knows."""


def parse(body: bytes) -> list[Any]:
    """The events of a stream; each is one that the official client knows, to the letter."""
    if not body:
        return []
    assert body.endswith(b"\n\n")
    events = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        CLIENT_EVENTS[event["type"]].model_validate(event)
        events.append(event)
    return events


class Order:
    """Folds a stream, and fails where an event comes out of turn."""

    def __init__(self) -> None:
        self.number = 0
        self.state = "new"
        self.output: list[Any] = []
        self.item: Any = None
        self.text: str | None = None
        self.response: Any = None

    def take(self, event: Any) -> None:
        assert event["sequence_number"] == self.number
        self.number += 1
        kind = event["type"]
        assert self.state != "ended"
        if kind in ("response.created", "response.queued", "response.in_progress"):
            before = {
                "response.created": ("new",),
                "response.queued": ("created",),
                "response.in_progress": ("created", "queued"),
            }
            assert self.state in before[kind]
            self.state = kind.removeprefix("response.")
            assert event["response"]["output"] == []
            assert event["response"]["usage"] is None
        elif kind in ENDS:
            assert self.state == "in_progress"
            assert self.item is None
            self.state = "ended"
            self.response = event["response"]
            Response.model_validate(self.response)
            assert self.response["status"] in ENDS[kind]
            assert self.response["output"] == self.output
        elif kind == "response.output_item.added":
            assert self.state == "in_progress"
            assert self.item is None
            self.item, self.text = event["item"], None
            assert self.item["status"] == "in_progress"
            if self.item["type"] in VALUES:
                assert self.item[VALUES[self.item["type"]]] == ""
                self.text = ""
            else:
                assert self.item["content"] == []
            assert event["output_index"] == len(self.output)
        else:
            self.take_of_item(kind, event)

    def take_of_item(self, kind: str, event: Any) -> None:
        assert self.item is not None
        assert event["output_index"] == len(self.output)
        stem = DELTAS[self.item["type"]]
        if kind == "response.output_item.done":
            item = event["item"]
            assert {key: item[key] for key in ("id", "type")} == {
                key: self.item[key] for key in ("id", "type")
            }
            assert item["status"] in ("completed", "incomplete")
            assert text_of(item) == self.text
            self.output.append(item)
            self.item = None
            return
        assert event["item_id"] == self.item["id"]
        if kind.startswith("response.content_part."):
            assert self.item["type"] not in VALUES
            assert event["content_index"] == 0
            if kind.endswith("added"):
                assert self.text is None
                self.text = ""
            assert event["part"]["text"] == self.text
        elif kind == f"{stem}.delta":
            assert event["delta"]
            assert self.text is not None
            self.text += event["delta"]
        else:
            assert kind == f"{stem}.done"
            value = VALUES.get(self.item["type"], "text")
            assert event[value] == self.text


def text_of(item: Any) -> str:
    """What an item says."""
    if item["type"] in VALUES:
        return str(item[VALUES[item["type"]]])
    [part] = item["content"]
    return str(part["text"])


def fold(events: Iterable[Any]) -> Any:
    """The final response of a stream whose order is right."""
    order = Order()
    for event in events:
        order.take(event)
    assert order.state == "ended"
    return order.response


def comparable(response: Any) -> Any:
    """A response without what differs between two equal requests."""
    text = json.dumps({**response, "created_at": 0, "completed_at": 0})
    name = response["id"].removeprefix("resp_")
    whole = json.loads(text.replace(name, "ID"))
    for item in whole["output"]:
        if "call_id" in item:
            item["call_id"] = "CALL"
    return whole


async def get(app: ASGIApp, path: str, query: str = "", method: str = "GET") -> Answer:
    """Send a request without a body, perhaps with a query."""

    async def with_query(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {"query_string": query.encode()}, receive, send)

    return await call_app(with_query, f"{PATH}/{path}", b"", method=method)
