"""Every case of the vector files, in every way of cutting it, and cut off everywhere.

A file holds the cases of one format: `tool` and `reasoning` name its halves, or list several names
of the same markup, `start` says where its outputs begin; each `[[case]]` has
the text that the model writes and what it means. `calls` are exact: name, JSON text, and whether
the call is complete (true unless the case says no). `template` is what a checkpoint declares, where
the format is its own.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from formats.folding import Answer, cut, events_of, fold

from rillm.formats.description import Format
from rillm.formats.registry import combine, reasoning_formats, tool_formats
from rillm.model_formats.response_template import resolve_template

VECTORS = Path(__file__).parent / "vectors"
TOOLS = json.loads((VECTORS / "tools.json").read_text(encoding="utf-8"))
SIZES = (1, 2, 3, 5, 8, 13)


def _cases() -> list[Any]:
    cases = []
    for path in sorted(VECTORS.glob("*.toml")):
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        names = itertools.product(_listed(data.get("tool")), _listed(data.get("reasoning")))
        for (tool, reasoning), case in itertools.product(names, data["case"]):
            case_id = f"{path.stem}-{tool}-{reasoning}-{case['name']}"
            if "start" in data:
                case.setdefault("start", data["start"])
            if "template" in data:
                case["template"] = data["template"]
            cases.append(pytest.param(tool, reasoning, case, id=case_id))
    return cases


def _listed(names: list[str] | str | None) -> list[str | None]:
    return [*names] if isinstance(names, list) else [names]


def _format(tool: str | None, reasoning: str | None, case: dict[str, Any]) -> Format:
    format = combine(tool, reasoning)
    assert format.from_checkpoint == ("template" in case)
    return resolve_template(case["template"]) if "template" in case else format


def _options(case: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"start": case["start"]} if "start" in case else {}
    return options | {"is_cut": case.get("is_cut", False)}


def _check(case: dict[str, Any], answer: Answer) -> None:
    assert answer.content == case.get("content", "")
    assert answer.reasoning == case.get("reasoning", "")
    got = [(each.name, each.arguments, each.is_complete) for each in answer.calls]
    assert got == [
        (each["name"], each.get("arguments", "{}"), each.get("complete", True))
        for each in case.get("calls", [])
    ]
    for call, expected in zip(answer.calls, case.get("calls", []), strict=True):
        assert call.id == expected.get("id", call.id)
        if call.is_complete:
            json.loads(call.arguments)


@pytest.mark.parametrize(("tool", "reasoning", "case"), _cases())
def test_vector(tool: str | None, reasoning: str | None, case: dict[str, Any]) -> None:
    format = _format(tool, reasoning, case)
    tools = case.get("tools", TOOLS)
    text = case["text"]
    _check(case, fold(events_of(format, [text], tools, **_options(case))))
    for size in SIZES:
        _check(case, fold(events_of(format, cut(text, size), tools, **_options(case))))


@pytest.mark.parametrize(("tool", "reasoning", "case"), _cases())
def test_every_beginning_of_a_vector_is_a_beginning_of_its_events(
    tool: str | None, reasoning: str | None, case: dict[str, Any]
) -> None:
    format = _format(tool, reasoning, case)
    tools = case.get("tools", TOOLS)
    options = _options(case) | {"is_cut": True}
    text = case["text"]
    streamed = _Streamed(format, tools, case)
    for end in range(len(text)):
        before = streamed.until(end)
        whole = fold(events_of(format, [text[:end]], tools, **options))
        assert whole.content.startswith(before.content)
        assert whole.reasoning.startswith(before.reasoning)
        assert [each.name for each in before.calls] == [
            each.name for each in whole.calls[: len(before.calls)]
        ]
        for call in before.calls:
            assert call.is_complete or not _is_whole_json(call.arguments)


class _Streamed:
    """The answer as it is known after each character."""

    def __init__(self, format: Format, tools: list[Any], case: dict[str, Any]) -> None:
        from formats.folding import numbered_id

        from rillm.formats.machine import Machine

        start = case.get("start")
        self._machine = Machine(format, tools, new_id=numbered_id, start=start)
        self._text = case["text"]
        self._events: list[Any] = []
        self._position = 0

    def until(self, end: int) -> Answer:
        while self._position < end:
            self._events += self._machine.feed(self._text[self._position])
            self._position += 1
        return fold(self._events)


def _is_whole_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_every_format_has_twelve_vectors() -> None:
    counts: dict[str, int] = {}
    for param in _cases():
        tool, reasoning, _ = param.values
        for name in filter(None, (tool, reasoning)):
            counts[name] = counts.get(name, 0) + 1
    names = {*tool_formats(), *reasoning_formats()}
    too_few = {name: counts.get(name, 0) for name in names if counts.get(name, 0) < 12}
    assert not too_few
