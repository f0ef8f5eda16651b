"""Calls written as Python become JSON that means the same, however they arrive."""

from __future__ import annotations

import ast
import json
import math
import warnings
from typing import Any

import pytest
from formats.folding import cut_at, events_of, fold, numbered_id
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rillm.formats.events import ToolCallArguments, ToolCallBegin
from rillm.formats.machine import Machine
from rillm.formats.registry import combine

FRAMES = {
    "pythonic": "[{}]",
    "llama4_pythonic": "<|python_start|>[{}]<|python_end|>",
    "olmo3": "<function_calls>\n{}\n</function_calls>",
    "lfm2": "<|tool_call_start|>[{}]<|tool_call_end|>",
}
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
KEYS = st.from_regex(r"[^\W\d]\w{0,7}", fullmatch=True).filter(str.isidentifier)
VALUES = st.recursive(
    SCALARS | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)
ESCAPED = st.sampled_from(["\\x41", "\\u00e9", "\\U0001F600", "\\0", "\\41", "\\n", "\\\\", "\\q"])
POINTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


def as_json(value: Any) -> Any:
    """What JSON makes of a Python value."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", FRAMES)
@settings(max_examples=250)
@given(arguments=st.dictionaries(KEYS, VALUES, max_size=4), points=POINTS)
@example(arguments={"a": "it's", "b": 'say "x"', "c": "'\""}, points=[])
@example(arguments={"a": (1,), "b": ((),), "c": [{}], "d": {"": ()}}, points=[8, 9, 10])
def test_arguments_survive(name: str, arguments: dict[str, Any], points: list[int]) -> None:
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    text = FRAMES[name].format(f"tide({written})") if "{" in FRAMES[name] else written
    answer = fold(events_of(combine(name, None), cut_at(text, points)))
    assert answer.content == ""
    assert [call.name for call in answer.calls] == ["tide"]
    assert answer.calls[0].is_complete
    assert json.loads(answer.calls[0].arguments) == as_json(arguments)


@settings(max_examples=250)
@given(
    parts=st.lists(st.text(alphabet="ab'\"{}\n é", max_size=4) | ESCAPED, max_size=6),
    mark=st.sampled_from(["'", '"', "'''", '"""']),
    points=POINTS,
)
def test_strings_mean_what_python_says(parts: list[str], mark: str, points: list[int]) -> None:
    literal = mark + "".join(parts) + mark
    try:
        with warnings.catch_warnings(action="ignore"):
            expected = ast.literal_eval(literal)
    except (SyntaxError, ValueError):
        return
    answer = fold(events_of(combine("pythonic", None), cut_at(f"[tide(a={literal})]", points)))
    assert json.loads(answer.calls[0].arguments) == {"a": expected}


def test_strings_stream_character_by_character() -> None:
    machine = Machine(combine("pythonic", None), new_id=numbered_id)
    assert machine.feed("[tide(port=") == []
    assert machine.feed("'") == [
        ToolCallBegin(0, "call_0", "tide"),
        ToolCallArguments(0, '{"port": "'),
    ]
    for character in "Brest\n":
        fragment = json.dumps(character)[1:-1]
        assert machine.feed(character) == [ToolCallArguments(0, fragment)]


def test_text_is_held_only_while_it_may_be_a_call() -> None:
    tools = [{"name": "tide"}]
    machine = Machine(combine("pythonic", None), tools)
    assert machine.feed("[ti") == []
    assert machine.feed("m")[0].text == "[tim"  # type: ignore[union-attr]
    machine = Machine(combine("olmo3", None), tools)
    assert machine.feed("It")[0].text == "It"  # type: ignore[union-attr]


@pytest.mark.parametrize("length", [1, 2, 100])
def test_a_name_that_was_not_offered_is_text_however_it_arrives(length: int) -> None:
    tools = [{"type": "function", "function": {"name": "tide", "parameters": {}}}]
    text = "A call:</function_calls>\ntide()\nmoon() b"
    pieces = [text[i : i + length] for i in range(0, len(text), length)]
    answer = fold(events_of(combine("olmo3", None), pieces, tools=tools))
    assert answer.content == "A call:\nmoon() b"
    assert [call.name for call in answer.calls] == ["tide"]


@pytest.mark.parametrize("opener", ["[", "(", "{'a': ", "{"])
def test_deep_nesting_is_no_fault(opener: str) -> None:
    text = f"[tide(a='x', b={opener * 5_000}"
    answer = fold(events_of(combine("pythonic", None), [text]))
    assert [call.name for call in answer.calls] == ["tide"]
    assert not answer.calls[0].is_complete


def test_numbers_that_json_lacks_are_no_arguments() -> None:
    assert math.isinf(float("1e999"))
    for number in ("nan", "inf", "-inf", "+1e999", "1j", "1__0", "0x", "1.2.3"):
        text = f"[tide(a={number})]"
        answer = fold(events_of(combine("pythonic", None), [text]))
        assert (answer.content, answer.calls) == (text, [])
