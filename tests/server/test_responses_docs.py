"""docs/responses.md lists every event, field and item: the code's, and those of OpenAI's client."""

from __future__ import annotations

import re
from pathlib import Path

from openai.types.responses import Response
from response_events import CLIENT_EVENTS, PATH
from scripted_engine import ScriptedEngine, call, delta

from rillm.server.responses import events
from rillm.server.responses.items import ACTIONS, PREFIXES
from rillm.server.responses.options import ResponseOptions

TEXT = (Path(__file__).parents[2] / "docs" / "responses.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def named(text: str) -> list[str]:
    """What stands in backquotes in the first column of tables."""
    columns = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for column in columns for name in re.findall(r"`([^`]+)`", column)]


def test_every_event_is_listed_as_sent_or_as_never_sent() -> None:
    sent, _, never = section("Events").partition("Never sent")
    known = {
        value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)
    }

    assert set(named(sent)) == known
    assert known | set(named(never)) <= set(CLIENT_EVENTS)
    assert not known & set(named(never))
    assert len(known | set(named(never))) >= 58


async def test_every_field_of_a_response_is_listed() -> None:
    answer = await call(ScriptedEngine([delta(0, "a", finish="stop")]), PATH, {"input": "Hi"})
    table, _, never = section("Fields of a response").partition("never there")

    assert named(table) == list(answer.json())
    absent = set(re.findall(r"`(\w+)`", never))
    assert set(named(table)) | absent <= {*Response.model_fields, "store"}


def test_every_item_and_option_is_listed() -> None:
    assert set(named(section("Items"))) == {*PREFIXES, *ACTIONS, "item_reference"}
    options = {f"--{name.replace('_', '-')}" for name in ResponseOptions.__dataclass_fields__}
    assert set(named(section("What is kept"))) == options
