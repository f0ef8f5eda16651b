"""Calls in the notation of Gemma become JSON that means the same, however they arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest
from formats.folding import cut_at, events_of, fold, numbered_id
from hypothesis import given, settings
from hypothesis import strategies as st

from rillm.formats.events import ToolCallArguments
from rillm.formats.machine import Machine
from rillm.formats.registry import combine

QUOTE = '<|"|>'
TEXT = st.text() | st.text(alphabet='<|">,:{}[] \n')
STRINGS = TEXT.filter(lambda text: QUOTE not in text + "|>")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=8,
)
POINTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


def written(value: Any) -> str:
    """A value as Gemma writes it, with all keys in quotes."""
    match value:
        case str():
            return f"{QUOTE}{value}{QUOTE}"
        case list():
            return f"[{','.join(map(written, value))}]"
        case dict():
            pairs = (f"{written(key)}:{written(item)}" for key, item in value.items())
            return f"{{{','.join(pairs)}}}"
        case _:
            return json.dumps(value)


@settings(max_examples=300)
@given(arguments=st.dictionaries(STRINGS, VALUES, max_size=4), points=POINTS)
def test_arguments_survive(arguments: dict[str, Any], points: list[int]) -> None:
    text = f"<|tool_call>call:tide{written(arguments)}<tool_call|>"
    answer = fold(events_of(combine("gemma4", "gemma4"), cut_at(text, points)))
    assert answer.content == ""
    assert answer.calls[0].is_complete
    assert json.loads(answer.calls[0].arguments) == arguments


def test_strings_stream_character_by_character() -> None:
    machine = Machine(combine("gemma4", "gemma4"), new_id=numbered_id)
    machine.feed(f"<|tool_call>call:tide{{port:{QUOTE}")
    for character in "Brest\n":
        fragment = json.dumps(character)[1:-1]
        assert machine.feed(character) == [ToolCallArguments(0, fragment)]


@pytest.mark.parametrize("opener", ["[", "{a:"])
def test_deep_nesting_is_no_fault(opener: str) -> None:
    text = f"<|tool_call>call:tide{{a:{opener * 5_000}"
    answer = fold(events_of(combine("gemma4", "gemma4"), [text]))
    assert [call.is_complete for call in answer.calls] == [False]
