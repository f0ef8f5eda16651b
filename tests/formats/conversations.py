"""Random conversations that a style can express, and what their parsing must give."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from formats.folding import Answer
from formats.printing import (
    Call,
    CallStyle,
    Choices,
    Conversation,
    MessageStyle,
    make_json,
    make_text,
    without,
)

from rillm.formats.tokens import NO_TOKENS, TokenMarkers

_NAMES = ("tide", "moon_phase", "getWeather2", "sea")
_KEYS = ("port", "days", "unit_of_height", "x1", "Filter")
_TYPES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
    list: "array",
    dict: "object",
}


def make_conversation(
    choices: Choices,
    style: CallStyle | MessageStyle | None,
    *,
    reasons: bool,
    fences: Sequence[str],
    markers: Sequence[str],
    tokens: TokenMarkers = NO_TOKENS,
) -> Conversation:
    """A conversation.

    Args:
        choices: what is decided by chance.
        style: of the calls; None for none.
        reasons: whether there is a way to write reasoning.
        fences: what plain text and reasoning cannot hold.
        markers: what texts look like where they look like markup.
        tokens: markers that are tokens, so that raw values can hold their texts.
    """
    conversation = Conversation()
    if reasons and not choices.chance(4):
        conversation.reasoning = _plain(choices, fences, markers)
    if style is None:
        conversation.parts = [_plain(choices, fences, markers) or "tide"]
        return conversation
    stops = tuple(stop for stop in style.stops if tokens.encode(stop) == stop)
    style = replace(style, stops=stops)
    num_groups = choices.one_of((1, 1, 0, 2)) if style.text_after else choices.one_of((1, 0))
    for i in range(num_groups):
        if i == 0 and style.text_before:
            conversation.parts.append(_plain(choices, fences, markers))
        calls: list[Call] = []
        for _ in range(1 + choices.below(style.max_calls)):
            calls.append(_call(choices, style, markers, (*conversation.calls, *calls)))
        conversation.parts.append(calls)
        if style.text_after:
            conversation.parts.append(_plain(choices, fences, markers))
    if not num_groups:
        conversation.parts.append(_plain(choices, fences, markers) or "tide")
    conversation.parts = [part for part in conversation.parts if part]
    return conversation


def _plain(choices: Choices, fences: Sequence[str], markers: Sequence[str]) -> str:
    """Text without markers and without whitespace at its ends, which markers may swallow."""
    text = without(make_text(choices, markers, 8), fences)
    if not text:
        return ""
    # Letters at the ends: nothing before or after can make a marker of the text. Without one at
    # the end, the text may end in the beginning of a marker, and then a whole one follows.
    if choices.chance(2):
        for fence in fences:
            text = without(text.rstrip(), fences, fence)
        return f"A{text.rstrip()}"
    return f"A{text}z"


def _call(
    choices: Choices,
    style: CallStyle | MessageStyle,
    markers: Sequence[str],
    earlier: Sequence[Call],
) -> Call:
    name = choices.one_of(_NAMES)
    known = next((call.schema for call in earlier if call.name == name), None)
    schema: dict[str, Any] = dict(known or {})
    arguments: dict[str, Any] = {}
    least = 1 if style.must_have_arguments else 0
    for key in _KEYS[: least + choices.below(len(_KEYS) - least)]:
        if style.values == "json":
            arguments[key] = make_json(choices, markers)
            continue
        value = _value(choices, style, markers)
        kind = _schema_of(value)
        if schema.setdefault(key, kind) != kind:
            continue
        arguments[key] = value
    if known is not None:
        known.update(schema)
        schema = known
    return Call(name, arguments, schema)


def _value(choices: Choices, style: CallStyle | MessageStyle, markers: Sequence[str]) -> Any:
    if style.values == "python":
        return make_json(choices, markers)
    kind = choices.below(7 if style.values == "typed" else 5)
    if kind < 2:
        text = without(make_text(choices, markers), style.stops)
        if not style.edges:
            text = without(text.strip(), style.stops).strip()
        return text
    value = make_json(choices, markers, 2 if kind > 4 else 0)
    if isinstance(value, str):
        return 7
    texts = (json.dumps(value, ensure_ascii=False), *_strings(value))
    return 5 if any(stop in text for stop in style.stops for text in texts) else value


def _strings(value: Any) -> Iterator[str]:
    """All strings in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value:
            yield from _strings(item)
        if isinstance(value, dict):
            yield from _strings(list(value.values()))


def _schema_of(value: Any) -> dict[str, Any]:
    return {"type": _TYPES[type(value)]}


def tools_of(
    choices: Choices, style: CallStyle | MessageStyle | None, conversation: Conversation
) -> list[dict[str, Any]]:
    """The functions offered: those called and another, or not all of them where it is no matter."""
    tools = {call.name: call.tool() for call in conversation.calls}
    needs_all = style is None or style.offered or style.values != "json"
    if tools and not needs_all and choices.chance(4):
        del tools[next(iter(tools))]
    tools.setdefault("unused", Call("unused", {}).tool())
    return list(tools.values())


def check(answer: Answer, conversation: Conversation) -> None:
    """The answer is what the conversation means; whitespace at markers is theirs or not."""
    assert answer.reasoning.strip() == conversation.reasoning
    rest = answer.content
    for text in conversation.texts:
        rest = rest.lstrip()
        assert rest.startswith(text), (rest, text)
        rest = rest[len(text) :]
    assert not rest.strip(), rest
    assert [call.name for call in answer.calls] == [call.name for call in conversation.calls]
    for got, wanted in zip(answer.calls, conversation.calls, strict=True):
        assert got.is_complete
        if wanted.exact is not None:
            assert got.arguments == wanted.exact
        assert is_same(json.loads(got.arguments), wanted.arguments), (got, wanted)
        assert wanted.id is None or got.id == wanted.id


def is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: 1 and true are not, 1 and 1.0 are."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
