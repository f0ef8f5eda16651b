"""docs/messages.md says what the code does."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any

import pytest
from messages_script import (
    COUNT,
    HELLO,
    MESSAGES,
    REQUEST,
    TIDE,
    CutEngine,
    read_events,
)
from scripted_engine import call

from rillm.errors import EngineGenerateError
from rillm.server.anthropic.errors import ERROR_TYPES
from rillm.server.anthropic.events import EVENTS
from rillm.server.anthropic.protocol import (
    Block,
    CountTokensRequest,
    MessagesRequest,
    ResultBlock,
)
from rillm.server.options import HttpOptions

TEXT = (Path(__file__).parents[2] / "docs" / "messages.md").read_text(encoding="utf-8")


def table(head: str) -> dict[str, str]:
    """The rows of the table that begins with this head: first column to last."""
    _, _, rest = TEXT.partition(f"\n| {head} |")
    rows = rest.split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {row[0].strip("`"): row[-1] for row in cells}


FIELDS = table("field")


def test_every_field_is_listed_in_order() -> None:
    assert list(FIELDS) == list(MessagesRequest.__struct_fields__)
    first_half = list(FIELDS)[: len(CountTokensRequest.__struct_fields__)]
    assert first_half == list(CountTokensRequest.__struct_fields__)
    refused = [name for name, support in FIELDS.items() if support == "refused"]
    assert refused == list(MessagesRequest.UNSUPPORTED)


@pytest.mark.parametrize("name", FIELDS)
async def test_fields_are_ignored_or_refused_as_it_says(name: str) -> None:
    for value in ({"a": 1}, ["a"], "a"):
        answer = await call(CutEngine("Yes."), MESSAGES, REQUEST | {name: value})
        if FIELDS[name] == "refused":
            assert answer.status == 400
        if FIELDS[name].startswith("ignored"):
            assert answer.status == 200


async def test_what_count_tokens_ignores_it_says() -> None:
    for name in FIELDS:
        if name not in CountTokensRequest.__struct_fields__:
            answer = await call(CutEngine(""), COUNT, {"messages": HELLO, name: {"a": 1}})
            assert answer.status == 200


def test_every_block_is_listed() -> None:
    kinds = {*typing.get_args(Block), *typing.get_args(ResultBlock)}
    assert table("block").keys() == {kind.__struct_config__.tag for kind in kinds}


async def test_images_and_documents_are_refused_as_it_says() -> None:
    for kind, support in table("block").items():
        content = [{"type": kind, "text": "a"}]
        body = REQUEST | {"messages": [{"role": "user", "content": content}]}
        if support.startswith("refused"):
            assert (await call(CutEngine("Yes."), MESSAGES, body)).status == 400


async def test_events_and_deltas_are_those_that_are_sent() -> None:
    listed = table("event")
    assert list(listed) == list(EVENTS)
    body = REQUEST | {"stream": True}
    spoken = await call(CutEngine(f"<think>\nhm\n</think>\n\nSo.\n{TIDE}"), MESSAGES, body)
    broken = CutEngine("So.")
    broken.last = EngineGenerateError("broken")
    failed = await call(broken, MESSAGES, body)

    events = read_events(spoken.body) + read_events(failed.body)
    assert {event["type"] for event in events} == set(listed)
    sent: set[Any] = {event["delta"].get("type") for event in events if "delta" in event}
    deltas = table("delta")
    assert sent - {None} == {name for name, said in deltas.items() if said != "never sent"}


async def test_stop_reasons_are_those_that_are_told() -> None:
    told = set()
    for finish, stop_reason, text in [
        ("stop", None, "Yes."),
        ("stop", "END", "Yes."),
        ("stop", None, TIDE),
        ("length", None, "Yes."),
        ("abort", None, "Yes."),
        ("repetition", None, "Yes."),
    ]:
        for max_tokens in (2, 99):
            engine = CutEngine(text, [], finish, stop_reason)
            answer = await call(engine, MESSAGES, REQUEST | {"max_tokens": max_tokens})
            told.add(answer.json()["stop_reason"])
    assert told == table("stop reason").keys()


def test_errors_are_those_of_the_table() -> None:
    listed = {int(status): kind.strip("`") for status, kind in table("status").items()}
    assert listed == ERROR_TYPES | {500: "api_error"}


def test_lines_that_are_taken_out_are_those_it_shows() -> None:
    shown = re.findall(r"\(`([^`]+)`", TEXT.partition("## Lines that change")[2])
    patterns = HttpOptions().strip_system_line
    assert len(patterns) == 2
    assert all(any(re.match(each, line) for line in shown) for each in patterns)
