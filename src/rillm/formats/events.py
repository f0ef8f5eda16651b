"""Stream events: what one choice's output means, piece by piece.

The set is closed: formats produce these and nothing else, every face encodes these and decides
nothing about content itself. Concatenating the texts of one kind gives the whole of it, wherever
the model's output was cut.
"""

from __future__ import annotations

from dataclasses import dataclass

# What comes with every token is not frozen: that triples the cost of making one.


@dataclass(slots=True)
class ReasoningDelta:
    """Some of the reasoning that precedes an answer, its fences removed."""

    text: str
    """Not empty."""


@dataclass(slots=True)
class ContentDelta:
    """Some of the answer."""

    text: str
    """Not empty."""


@dataclass(frozen=True, slots=True)
class ToolCallBegin:
    """A call whose function name has become certain."""

    index: int
    """Position among the choice's calls, from 0, never decreasing."""
    id: str
    """Unique in the conversation; a tool message answers to it."""
    name: str
    """The whole name of the function."""


@dataclass(slots=True)
class ToolCallArguments:
    """Some of a call's arguments."""

    index: int
    """The call's `ToolCallBegin.index`."""
    fragment: str
    """JSON text; the fragments of a complete call concatenate to one JSON object."""


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """A call is complete."""

    index: int
    """The call's `ToolCallBegin.index`."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The choice is complete: its last event, sent exactly once."""

    reason: str
    """Why the engine stopped: `stop`, `length`, `abort` or `repetition`; `tool_calls` in place of
    `stop` where there are calls and all of them are complete."""
    stop_reason: int | str | None = None
    """The stop token id or stop string that matched; None for end of sequence and length."""


StreamEvent = (
    ReasoningDelta | ContentDelta | ToolCallBegin | ToolCallArguments | ToolCallEnd | Finish
)
