"""Folds events into a whole answer, for comparing answers whatever their pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rillm.formats.description import Format
from rillm.formats.events import (
    ContentDelta,
    ReasoningDelta,
    StreamEvent,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from rillm.formats.machine import Machine


@dataclass
class Call:
    """One folded call."""

    name: str
    arguments: str = ""
    id: str = ""
    is_complete: bool = False


@dataclass
class Answer:
    """A folded answer; `order` is the sequence of kinds, each once for a run of pieces."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    order: list[str] = field(default_factory=list)


def fold(events: Iterable[StreamEvent]) -> Answer:
    """Fold events, checking that they come in an order that clients can follow."""
    answer = Answer()
    for event in events:
        kind = type(event).__name__
        if not answer.order or answer.order[-1] != kind:
            answer.order.append(kind)
        match event:
            case ContentDelta(text):
                assert text
                answer.content += text
            case ReasoningDelta(text):
                assert text
                answer.reasoning += text
            case ToolCallBegin(index, id, name):
                assert index == len(answer.calls)
                assert name
                answer.calls.append(Call(name, id=id))
            case ToolCallArguments(index, fragment):
                assert fragment
                assert index == len(answer.calls) - 1
                assert not answer.calls[index].is_complete
                answer.calls[index].arguments += fragment
            case ToolCallEnd(index):
                assert index == len(answer.calls) - 1
                answer.calls[index].is_complete = True
    return answer


def numbered_id(index: int, name: str) -> str:
    """Ids that are the same in every run."""
    return f"call_{index}"


def events_of(
    format: Format,
    pieces: Sequence[str],
    tools: Iterable[dict[str, Any]] = (),
    *,
    is_cut: bool = False,
    **options: Any,
) -> list[StreamEvent]:
    """The events of a text that comes in pieces; no parser may fail."""
    machine = Machine(format, tools, new_id=numbered_id, **options)
    events = [event for piece in pieces for event in machine.feed(piece)]
    events += machine.finish(is_cut=is_cut)
    assert machine.faults == 0
    return events


def cut(text: str, size: int) -> list[str]:
    """Pieces of `size` characters."""
    return [text[i : i + size] for i in range(0, len(text), size)]


def cut_at(text: str, points: Iterable[int]) -> list[str]:
    """Pieces that end at the given points, taken modulo the length."""
    ends = sorted({point % (len(text) + 1) for point in points} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
