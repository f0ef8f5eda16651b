"""Anything may come out of a model: nothing fails, nothing is lost, and the cost is linear."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from formats.folding import Answer, events_of, fold
from formats.printing import Choices
from formats.test_properties import BYTES, SEEDS, check_fragments, cut, examples
from hypothesis import given, note

from rillm.formats import sink as sinks
from rillm.formats import source as sources
from rillm.formats import values
from rillm.formats.description import Format
from rillm.formats.machine import Machine
from rillm.formats.registry import combine, reasoning_formats, tool_formats
from rillm.formats.tokens import NO_TOKENS, find_tokens, markers_of

TOOLS = [
    {
        "function": {
            "name": "tide",
            "parameters": {
                "properties": {
                    "port": {"type": "string"},
                    "days": {"type": "integer"},
                    "more": {"type": "object"},
                }
            },
        }
    }
]
EMPTY_OPENER = {"minimax_m2_append_think"}
"""Formats that put a marker before the answer."""
CRUMBS = (
    '{"name": "tide", "arguments": {', '"port": "', "}", "}}", "]", "[", "{", '"', ",", ":", "'",
    "\\", '{"name": "', "tide", "tide(port=", "port", "\n", " ", "(", ")", "=", ">", "<", "/",
    "\\u12", "\\ud83c", "潮", "🌊", "null", "1e", "-", "true", "x" * 30, '{"tide": ', "```json\n",
    "```", "functions.tide:0", "\r", "\t", '[{"name":"tide","parameters":', "\x00", "\ufffd", "#",
    "functools", "to=tide", "name=", 'name="tide">', "call:tide{", "<think>", "</think>",
)  # fmt: skip


@cache
def formats() -> tuple[tuple[str, Format], ...]:
    """All formats, alone and with reasoning between tags, each description once."""
    found: dict[Format, str] = {}
    for name, format in tool_formats().items():
        only_calls = replace(combine(name, None), example=format.example)
        found.setdefault(only_calls, f"calls-{name}")
    for name, format in reasoning_formats().items():
        only_reasoning = replace(combine(None, name), example=format.example)
        found.setdefault(only_reasoning, f"reasoning-{name}")
        if only_reasoning.mixes and "hermes" in tool_formats():
            found.setdefault(combine("hermes", name), f"hermes-{name}")
    return tuple((name, format) for format, name in found.items())


def params(select: Callable[[Format], bool] = lambda format: True) -> list[Any]:
    return [pytest.param(format, id=name) for name, format in formats() if select(format)]


@cache
def vocabulary(format: Format, has_tokens: bool) -> tuple[Any, tuple[str, ...]]:
    markers = tuple(sorted(markers_of(format) - {""}))
    tokens = find_tokens(format, dict.fromkeys(markers, True)) if has_tokens else NO_TOKENS
    return tokens, (*markers, format.example or "tide")


def make_soup(choices: Choices, markers: tuple[str, ...], encode: Callable[[str], str]) -> str:
    """Crumbs of markup, and words that occur once."""
    parts: list[str] = []
    for i in range(choices.below(14)):
        kind = choices.below(6)
        if kind == 0:
            parts.append(f"word{i}x")
        elif kind < 3:
            parts.append(encode(choices.one_of(markers)))
        elif kind == 3:
            marker = choices.one_of(markers)
            start = choices.below(len(marker))
            parts.append(marker[start : start + 1 + choices.below(len(marker))])
        else:
            parts.append(choices.one_of(CRUMBS))
    return "".join(parts)


def is_subsequence(short: str, long: str) -> bool:
    characters: Iterator[str] = iter(long)
    return all(character in characters for character in short)


@pytest.mark.parametrize("format", params())
def test_any_text_is_parsed(format: Format) -> None:
    @examples(250)
    @given(BYTES, SEEDS)
    def holds(data: bytes, seed: int) -> None:
        choices = Choices(data)
        tokens, markers = vocabulary(format, choices.chance(3))
        options: dict[str, Any] = {
            "tokens": tokens,
            "start": choices.one_of((None, "content", "reasoning")),
            "tools": choices.one_of((TOOLS, ())),
            "is_cut": choices.chance(2),
            "tool_choice": "none" if choices.chance(6) else "auto",
            "parallel_tool_calls": not choices.chance(6),
        }
        if options["start"] == "reasoning" and format.reasoning is None:
            options["start"] = None
        text = make_soup(choices, markers, tokens.encode)
        note(f"{options} {text!r}")
        whole = fold(events_of(format, [text], **options))
        pieces = cut(text, seed)
        note(f"in pieces: {pieces}")
        events = events_of(format, pieces, **options)
        assert fold(events) == whole
        check_fragments(events)
        check_nothing_is_lost(format, text, whole, options)

    holds()


def check_nothing_is_lost(
    format: Format, text: str, answer: Answer, options: dict[str, Any]
) -> None:
    """Where nothing was called, every word is in the answer or in the reasoning.

    Around calls, descriptions say which text is dropped; headers are no text. What is in the
    answer was in the output, in that order.
    """
    spelled = "".join(options["tokens"].shown.get(each, each) for each in text)
    if not EMPTY_OPENER & {*format.reasoning_names}:
        assert is_subsequence(answer.content, spelled)
    assert is_subsequence(answer.reasoning, spelled)
    calls = format.calls
    drops = calls is not None and "drop" in (calls.noise, calls.after)
    if answer.calls or drops or format.header is not None or options["tool_choice"] == "none":
        return
    for word in re.findall(r"word\d+x", text):
        assert word in answer.content or word in answer.reasoning


# Cost

SIZES = (25_000, 100_000)
MOST_TIMES = 4.4
"""How much more four times the text may cost."""


class CountedText(str):
    """Text that counts the characters copied out of it."""

    count = 0

    def __getitem__(self, key: Any) -> str:
        part = super().__getitem__(key)
        CountedText.count += len(part)
        return part


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Count the characters that are searched, copied, and held back and looked at again."""
    find, push = sources.Markers.find, sources.Source.push
    add, add_value = sinks.TextRun.add, values.StringValue.add

    def counted_find(markers: Any, text: str, start: int, ended: bool) -> Any:
        end, literal = find(markers, text, start, ended)
        CountedText.count += end - start
        return end, literal

    def counted_push(source: Any, text: str) -> None:
        push(source, text)
        CountedText.count += len(source.text)
        source.text = CountedText(source.text)

    def held_back(method: Callable[[Any, str], None]) -> Callable[[Any, str], None]:
        def counted_add(holder: Any, text: str) -> None:
            num_held = len(holder._held)
            method(holder, text)
            # A list that grows costs nothing; what is put together with the text is copied.
            is_kept = isinstance(holder._held, list) and len(holder._held) > num_held
            CountedText.count += len(text) + (0 if is_kept else num_held)

        return counted_add

    CountedText.count = 0
    with monkeypatch.context() as patch:
        patch.setattr(sources.Markers, "find", counted_find)
        patch.setattr(sources.Source, "push", counted_push)
        patch.setattr(sinks.TextRun, "add", held_back(add))
        patch.setattr(values.StringValue, "add", held_back(add_value))
        yield


def adversarial(format: Format, size: int) -> dict[str, str]:
    """Texts of one size that make bad parsers slow."""
    markers = sorted(markers_of(format) - {""}, key=len) or ["<"]
    opener = max(format.example.split("{")[0].split(">")[0] + ">", "<", key=len)
    calls = format.calls
    frame = "" if calls is None else next(iter((*calls.open, *calls.item_open)), "")
    head = frame + '{"name": "tide", "arguments": '
    texts = {
        "spaces": "a" + " " * size,
        "lines": "a" + "\n" * size,
        "examples": (format.example + "\n") * (size // (len(format.example) + 1)),
        "openers": opener * (size // len(opener)),
        "every marker": "".join(markers) * (size // len("".join(markers))),
        "half a marker": (markers[-1][:-1] or "<") * (size // len(markers[-1])),
        "braces": head + "{" * size,
        "lists": head + '{"a": ' + "[" * size,
        "string": head + '{"port": "' + "tide " * (size // 5),
        "escapes": head + '"' + '\\"' * (size // 2),
        "example cut": format.example[: len(format.example) // 2] + "tide " * (size // 5),
        "spaces in a value": format.example[: len(format.example) // 2] + " \n" * (size // 2),
    }
    return {name: text[:size] for name, text in texts.items()}


def run(format: Format, text: str, length: int) -> None:
    machine = Machine(format, TOOLS)
    for start in range(0, len(text), length):
        machine.feed(text[start : start + length])
    machine.finish()
    assert machine.faults == 0


def count_calls(action: Callable[[], None]) -> int:
    """How many functions an action calls."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("format", params(lambda format: bool(format.example)))
def test_cost_is_linear(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = (adversarial(format, size) for size in SIZES)
    for name in short:
        for length in (97, SIZES[-1]):
            counts = []
            for text in (short[name], long[name]):
                with counted(monkeypatch):
                    run(format, text, length)
                counts.append(CountedText.count)
            assert counts[1] <= MOST_TIMES * counts[0], (name, length, counts)
            assert counts[1] <= 40 * len(long[name]), (name, length, counts)


@pytest.mark.parametrize("format", params(lambda format: bool(format.example)))
@pytest.mark.parametrize("name", ["examples", "string", "every marker"])
def test_the_number_of_steps_is_linear(format: Format, name: str) -> None:
    short, long = (adversarial(format, size)[name] for size in (2000, 8000))
    once = count_calls(lambda: run(format, short, 64))
    assert count_calls(lambda: run(format, long, 64)) <= MOST_TIMES * once
