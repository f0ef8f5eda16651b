"""JSON that arrives in pieces: passed through unchanged, or decoded, whatever the pieces are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from formats.folding import cut
from hypothesis import given
from hypothesis import strategies as st

from rillm.formats.json_text import json_string, json_value, unquoted, without_controls
from rillm.formats.source import Source, Steps

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
CUTS = st.lists(st.integers(1, 12), max_size=60)


def run(parser: Callable[[Source], Steps[Any]], pieces: Iterable[str]) -> tuple[Any, str]:
    """Feed pieces to a parser; returns its result and what it did not consume."""
    source = Source()

    def steps() -> Steps[Any]:
        yield from source.skip_space()
        return (yield from parser(source))

    waiting = steps()
    pieces = iter([*filter(None, pieces), ""])
    try:
        next(waiting)
        for piece in pieces:
            source.push(piece)
            source.ended = not piece
            next(waiting)
    except StopIteration as stop:
        return stop.value, source.text[source.position :] + "".join(pieces)
    raise AssertionError("a parser waits after the end")


def decode(pieces: Iterable[str]) -> str:
    """The text of a whole string, decoded as it comes."""
    parts: list[str] = []
    is_whole, rest = run(lambda source: unquoted(source, parts.append), pieces)
    assert is_whole
    assert rest == ""
    return "".join(parts)


def pieces_of(text: str, sizes: list[int]) -> list[str]:
    """Pieces of the sizes, and the rest."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(text[start : start + size])
        start += size
    return [*pieces, text[start:]]


@given(value=VALUES, sizes=CUTS, indent=st.sampled_from([None, 1]), ascii=st.booleans())
def test_any_value_passes_through_unchanged(
    value: object, sizes: list[int], indent: int | None, ascii: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    parts: list[str] = []
    last: list[str] = []

    def parse(source: Source) -> Steps[bool]:
        is_whole = yield from json_value(source, parts.append, last.append)
        # A scalar has no end of its own: without this the rest would not be waited for.
        yield from source.skip_space()
        return is_whole

    is_whole, rest = run(parse, pieces_of(text + " ", sizes))
    assert is_whole
    assert rest == ""
    assert "".join(parts) + "".join(last) == text
    if isinstance(value, (dict, list)):
        assert "".join(last) == text[-1]


@given(value=VALUES.filter(lambda value: isinstance(value, (dict, list))), data=st.data())
def test_what_follows_a_value_is_left_alone(value: object, data: st.DataObject) -> None:
    text = json.dumps(value)
    parts: list[str] = []
    end = data.draw(st.integers(0, len(text)))
    pieces = [text[:end], text[end:] + "}]more"]
    is_whole, rest = run(lambda source: json_value(source, parts.append, parts.append), pieces)
    assert is_whole
    assert "".join(parts) == text
    assert rest == "}]more"


@given(value=VALUES.filter(lambda value: isinstance(value, (dict, list))), data=st.data())
def test_a_cut_value_is_passed_through_and_not_whole(value: object, data: st.DataObject) -> None:
    text = json.dumps(value)
    text = text[: data.draw(st.integers(1, len(text) - 1))]
    parts: list[str] = []
    is_whole, _ = run(lambda source: json_value(source, parts.append, parts.append), [text])
    assert not is_whole
    assert "".join(parts) == text


@given(text=TEXT, sizes=CUTS, ascii=st.booleans())
def test_a_string_is_decoded(text: str, sizes: list[int], ascii: bool) -> None:
    quoted = json.dumps(text, ensure_ascii=ascii)
    assert run(json_string, pieces_of(quoted, sizes)) == (text, "")
    assert decode(pieces_of(quoted, sizes)) == text


@pytest.mark.parametrize(
    ("quoted", "text"),
    [
        (r'"\ud83c\udf0a"', "🌊"),
        (r'"a\ud83c\udf0ab\u00e9\n\"\\\/"', 'a🌊bé\n"\\/'),
        (r'"\ud83cx"', "\ufffdx"),
        (r'"\ud83c\n"', "\ufffd\n"),
        (r'"\udf0a"', "\ufffd"),
        (r'"\ud83c\ud83c\udf0a"', "\ufffd🌊"),
        (r'"\ud83c\u0041"', "\ufffdA"),
    ],
)
def test_surrogates_in_strings(quoted: str, text: str) -> None:
    for size in (1, 2, 3, 5, 7, len(quoted)):
        assert decode(cut(quoted, size)) == text


def test_half_a_character_is_no_name() -> None:
    assert run(json_string, ['"a\\ud83c"']) == (None, "")
    assert run(json_string, ['"\\ud83c\\udf0a"']) == ("🌊", "")


def test_decoded_text_leaves_as_it_comes() -> None:
    source = Source()
    source.push('"')
    parts: list[str] = []
    steps = unquoted(source, parts.append)
    next(steps)
    for piece, shown in (
        ("a", "a"),
        ("b\\", "ab"),
        ("n", "ab\n"),
        ("\\ud83c", "ab\n"),
        ("\\u", "ab\n"),
    ):
        source.push(piece)
        next(steps)
        assert "".join(parts) == shown


@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_control_characters_are_escaped_inside_strings_only(size: int) -> None:
    text = '{\n\t"a": "x\n\ty\\"\r\x01",\n "b": [1,\n2]}'
    parts: list[str] = []
    emit = without_controls(parts.append)
    run(lambda source: json_value(source, emit, parts.append), cut(text, size))
    assert json.loads("".join(parts)) == {"a": 'x\n\ty"\r\x01', "b": [1, 2]}


def test_a_long_value_is_scanned_once() -> None:
    pieces = ['{"a": "', *["x" * 100] * 1_000, '"}']
    source = Source()
    sizes: list[int] = []
    steps = json_value(source, lambda part: sizes.append(len(part)), lambda part: None)
    next(steps)
    for piece in pieces[:-1]:
        source.push(piece)
        next(steps)
        assert source.position == len(source.text)
    assert sizes[1:] == [100] * 1_000
