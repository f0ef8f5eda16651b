"""One answer as its reader saw it: what came, and when.

A chunk counts when it brings output: text, reasoning, a call's name or a fragment of its
arguments, or token ids. A chunk that only tells the role, or the finish, does not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from rillm.bench.wire import CallPart, Choice, Chunk, Message, Usage

Kind = Literal["content", "reasoning", "name", "arguments", "tokens"]


class Piece(NamedTuple):
    """Output that one chunk brought to one choice."""

    at_s: float
    """Seconds since the request was sent."""
    choice: int
    kind: Kind
    """Of what came first in the chunk."""
    size: int
    """Characters, or token ids where only those are sent."""


@dataclass(slots=True)
class ToolCall:
    """A call as its parts have told it so far."""

    name: str = ""
    fragments: list[str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    """When each of the fragments came."""
    is_in_order: bool = True
    """False: arguments came before the name, or the name came twice."""

    @property
    def arguments(self) -> str:
        """All fragments joined."""
        return "".join(self.fragments)

    def complete_s(self) -> float | None:
        """When the arguments had become a whole JSON value; None where they never did."""
        text = self.arguments
        start = len(text) - len(text.lstrip())
        try:
            _, end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            return None
        length = 0
        for fragment, at_s in zip(self.fragments, self.times_s, strict=True):
            length += len(fragment)
            if length >= end:
                return at_s
        return None


@dataclass(slots=True)
class ChoiceAnswer:
    """One choice."""

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, ToolCall] = field(default_factory=dict)
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    has_output_after_finish: bool = False

    def told(self) -> dict[str, object]:
        """What was said in the end, however it was cut: equal for a stream and a whole answer."""
        return {
            "content": "".join(self.content),
            "reasoning": "".join(self.reasoning),
            "calls": [(call.name, call.arguments) for _, call in sorted(self.calls.items())],
            "token_ids": self.token_ids,
            "finish_reason": self.finish_reason,
        }


@dataclass(slots=True)
class Answer:
    """One answer; times are seconds since the request was sent."""

    choices: dict[int, ChoiceAnswer] = field(default_factory=dict)
    pieces: list[Piece] = field(default_factory=list)
    first_s: dict[Kind, float] = field(default_factory=dict)
    """When each kind of output first came."""
    usage: Usage | None = None
    first_byte_s: float | None = None
    end_s: float | None = None
    """When the answer was over: at `[DONE]`, or the last byte of the body."""
    num_bytes: int = 0
    """Of the body."""

    def add(self, chunk: Chunk, at_s: float) -> None:
        """Take in a chunk, or a whole answer."""
        self.usage = chunk.usage or self.usage
        for each in chunk.choices or ():
            choice = self.choices.setdefault(each.index, ChoiceAnswer())
            size, kind = self._add_output(choice, each, at_s)
            if kind is not None:
                choice.has_output_after_finish |= choice.finish_reason is not None
                self.pieces.append(Piece(at_s, each.index, kind, size))
            if each.finish_reason is not None:
                choice.finish_reason = each.finish_reason

    def told(self) -> list[dict[str, object]]:
        """What all choices said, in order."""
        return [choice.told() for _, choice in sorted(self.choices.items())]

    def num_tokens(self) -> int | None:
        """Output tokens, as the server counts them, or else by their ids; None where unknown."""
        if self.usage is not None and self.usage.completion_tokens is not None:
            return self.usage.completion_tokens
        return sum(len(choice.token_ids) for choice in self.choices.values()) or None

    @property
    def prompt_tokens(self) -> int:
        """Input tokens, as the server counts them."""
        return (self.usage and self.usage.prompt_tokens) or 0

    @property
    def cached_tokens(self) -> int:
        """Input tokens that came from the server's prefix cache, as it says."""
        details = self.usage and self.usage.prompt_tokens_details
        return (details and details.cached_tokens) or 0

    def call_complete_s(self) -> float | None:
        """When the first call that became complete was complete."""
        calls = (call for choice in self.choices.values() for call in choice.calls.values())
        return min(
            (at_s for call in calls if (at_s := call.complete_s()) is not None), default=None
        )

    def gaps_s(self) -> list[float]:
        """Seconds between neighbouring chunks with output of the same choice."""
        last: dict[int, float] = {}
        gaps = []
        for piece in self.pieces:
            if piece.choice in last:
                gaps.append(piece.at_s - last[piece.choice])
            last[piece.choice] = piece.at_s
        return gaps

    def _add_output(
        self, choice: ChoiceAnswer, part: Choice, at_s: float
    ) -> tuple[int, Kind | None]:
        """The size and the kind of what a choice's part brought; None where it brought nothing."""
        size = 0
        kinds: list[Kind] = []
        message = part.delta or part.message
        if message is not None:
            size = self._add_message(choice, message, at_s, kinds)
        if part.text:
            choice.content.append(part.text)
            size += len(part.text)
            kinds.append("content")
        if part.token_ids:
            choice.token_ids += part.token_ids
            if not kinds and message is None:
                size = len(part.token_ids)
                kinds.append("tokens")
        for kind in kinds:
            self.first_s.setdefault(kind, at_s)
        return size, kinds[0] if kinds else None

    def _add_message(
        self, choice: ChoiceAnswer, message: Message, at_s: float, kinds: list[Kind]
    ) -> int:
        size = 0
        reasoning = message.reasoning_content or message.reasoning
        if reasoning:
            choice.reasoning.append(reasoning)
            size += len(reasoning)
            kinds.append("reasoning")
        if message.content:
            choice.content.append(message.content)
            size += len(message.content)
            kinds.append("content")
        if message.tool_calls:
            size += _add_calls(choice, message.tool_calls, at_s, kinds)
        return size


def _add_calls(
    choice: ChoiceAnswer, parts: Sequence[CallPart], at_s: float, kinds: list[Kind]
) -> int:
    size = 0
    for position, part in enumerate(parts):
        index = position if part.index is None else part.index
        call = choice.calls.setdefault(index, ToolCall())
        function = part.function
        if function is None:
            continue
        if function.name:
            call.is_in_order &= not call.name
            call.name += function.name
            size += len(function.name)
            kinds.append("name")
        if function.arguments:
            call.is_in_order &= bool(call.name)
            call.fragments.append(function.arguments)
            call.times_s.append(at_s)
            size += len(function.arguments)
            kinds.append("arguments")
    return size
