"""What parsers write to: one choice's events, with the decisions that no format takes itself.

Whitespace that touches a marker belongs to the marker. A call's index and id, which of several
calls are let through, and whether a call was complete are decided here, once for all formats.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Final, Literal

from rillm.formats.events import (
    ContentDelta,
    ReasoningDelta,
    StreamEvent,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)

Space = Literal["trim", "blank", "keep"]
"""Whitespace around calls: all of it is markup (`trim`), only where there is no other text before
a call (`blank`), or it is content (`keep`)."""

NewId = Callable[[int, str], str]
"""Makes the id of a call from its index and its function's name."""

_SPACE: Final = " \t\r\n\f\v"
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def random_id(index: int, name: str) -> str:
    """An id nobody else has: `call_` and 24 hexadecimal digits."""
    return f"call_{secrets.token_hex(12)}"


class TextRun:
    """Text of one kind, from which whitespace next to markers is taken off.

    Attributes:
        is_new: whether nothing was shown since the last marker.
        has_shown: whether anything was.
    """

    __slots__ = ("_emit", "_front", "_held", "_lead", "_tail", "_tail_start", "has_shown", "is_new")

    def __init__(
        self, emit: Callable[[str], None], *, front: str, tail: str, tail_start: str = ""
    ) -> None:
        """Begin at the start of the output.

        Args:
            emit: takes the text that is certain.
            front: characters held at the start of a run until others follow.
            tail: characters held at the end of a run until others follow.
            tail_start: if not empty, the one character of `tail` that a held end begins with:
                spaces between words need not wait.
        """
        self._emit = emit
        self._front = front
        self._tail = tail
        self._tail_start = tail_start
        self._lead = ""
        self._held: list[str] = []
        self.is_new = True
        self.has_shown = False

    def add(self, text: str) -> None:
        """Add text."""
        if self.is_new:
            text = self._begin(text)
        elif self._held:
            if not text.rstrip(self._tail):
                self._held.append(text)
                return
            text = self._take_held() + text
        if self._tail:
            end = len(text.rstrip(self._tail))
            if self._tail_start and end < len(text):
                start = text.find(self._tail_start, end)
                end = len(text) if start < 0 else start
            if end < len(text):
                self._held.append(text[end:])
                text = text[:end]
        if text:
            self.has_shown = True
            self._emit(text)

    def flows(self, text: str) -> bool:
        """Whether all of `text` would be shown at once, and nothing else with it."""
        if self.is_new or self._held:
            return False
        return text[-1:] not in self._tail or bool(
            self._tail_start and self._tail_start not in text
        )

    def _begin(self, text: str) -> str:
        """The text of a new run as far as it is certain; the rest is held."""
        if self._lead:
            text = text.lstrip(self._lead)
        if not text.lstrip(self._front):
            if text:
                self._held.append(text)
                # Held whitespace is the start of the run: no more of it belongs to the marker.
                self._lead = ""
            return ""
        self.is_new = False
        return self._take_held() + text

    def _take_held(self) -> str:
        held = "".join(self._held)
        self._held.clear()
        return held

    def drop_space(self) -> None:
        """A marker follows: what is held belongs to it."""
        self._held.clear()

    def restart(self, lead: str) -> None:
        """A marker went before: `lead` are the characters that belong to it."""
        self._lead = lead
        self._held.clear()
        self.is_new = True

    def flush(self) -> None:
        """Show what is held."""
        if self._held:
            self.has_shown = True
            self._emit(self._take_held())
            self.is_new = False


class Sink:
    """Collects events; parsers see only its methods.

    Attributes:
        content_run: the answer's text.
        reasoning_run: the reasoning's.
        is_reasoning: whether the output stands inside reasoning.
        num_calls: those that were begun and not dropped.
    """

    def __init__(
        self,
        *,
        space: Space,
        reasoning_space: str,
        new_id: NewId,
        is_muted: bool,
        is_parallel: bool,
        shown: Mapping[str, str],
        hidden: frozenset[str],
    ) -> None:
        """Start an empty choice.

        Args:
            space: what whitespace around calls is.
            reasoning_space: characters that belong to a reasoning fence they touch.
            new_id: makes the ids of calls to which the model gave none.
            is_muted: whether calls are parsed and dropped.
            is_parallel: whether there may be more than one call.
            shown: stand-ins of token markers to their text.
            hidden: stand-ins of tokens that no text shows.
        """
        self._events: list[StreamEvent] = []
        self._kind: type[ContentDelta] | type[ReasoningDelta] | None = None
        self._parts: list[str] = []
        self.is_reasoning = False
        self.num_calls = 0
        self._new_id = new_id
        self._is_muted = is_muted
        self._is_parallel = is_parallel
        self._shown = shown
        self._visible = {**shown, **dict.fromkeys(hidden, "")}
        self._space = space
        self._reasoning_space = reasoning_space
        self.content_run = TextRun(
            self._emit_content,
            front="" if space == "keep" else _SPACE,
            tail=_SPACE if space == "trim" else "",
            tail_start="" if " " in reasoning_space else "\n",
        )
        self.reasoning_run = TextRun(self._emit_reasoning, front="", tail=reasoning_space)
        self.reasoning_run.restart(reasoning_space)
        self._is_open = False
        self._was_called = False
        self._is_mute = False
        self._fragments: list[str] = []
        self._held = ""

    def take(self) -> list[StreamEvent]:
        """The events since the last call."""
        self._finish_event()
        events, self._events = self._events, []
        return events

    # Text

    def content(self, text: str) -> None:
        """Add to the answer."""
        self.content_run.add(text)

    def reasoning(self, text: str) -> None:
        """Add to the reasoning."""
        self.reasoning_run.add(text)

    def drop(self, text: str) -> None:
        """Take text that is no part of the answer."""

    @property
    def is_at_start(self) -> bool:
        """Whether the answer has no text yet since the last marker."""
        return self.content_run.is_new

    def open_reasoning(self) -> None:
        """A reasoning fence was opened."""
        self.is_reasoning = True
        self.reasoning_run.restart(self._reasoning_space)

    def close_reasoning(self) -> None:
        """The fence was closed, or a call ended the reasoning."""
        self.is_reasoning = False
        self.reasoning_run.drop_space()
        self.content_run.restart(self._reasoning_space)

    def absorb(self) -> None:
        """A marker that means nothing here: it is not shown, nor is whitespace that touches it."""
        if not self.is_reasoning:
            self.content_run.drop_space()
            self.content_run.restart(self._reasoning_space)
        elif self.reasoning_run.is_new:
            self.reasoning_run.restart(self._reasoning_space)

    def forget(self) -> None:
        """Forget what was emitted, and whitespace that is held: it was the prompt's."""
        self.take()
        self.num_calls = 0
        self._was_called = False
        self.content_run.has_shown = False
        self.content_run.restart("")
        self.reasoning_run.restart(self._reasoning_space)

    def raw(self, text: str) -> None:
        """Show text that looked like a call and is none."""
        run = self.reasoning_run if self.is_reasoning else self.content_run
        run.add(self.spell(text))

    # Calls

    def begin(self, name: str, given_id: str | None = None) -> None:
        """A call is certain, and so is its function."""
        self.cut()
        if self.is_reasoning:
            self.close_reasoning()
        self.content_run.drop_space()
        self._is_open = self._was_called = True
        self._is_mute = self._is_muted or (self.num_calls > 0 and not self._is_parallel)
        self._fragments = []
        self._held = ""
        if not self._is_mute:
            self._finish_event()
            name = self.spell(name)
            call_id = given_id or self._new_id(self.num_calls, name)
            self._events.append(ToolCallBegin(self.num_calls, call_id, name))
            self.num_calls += 1

    def arguments(self, fragment: str) -> None:
        """Add JSON text to the open call's arguments."""
        if fragment and self._is_open:
            fragment = self._held + self.spell(fragment)
            self._held = ""
            self._fragments.append(fragment)
            if not self._is_mute:
                self._emit(None, fragment)

    def last_argument(self, fragment: str) -> None:
        """Add what may be the end of the arguments: held until more follows or all is complete.

        So the fragments that were sent are never a whole object before the call is complete.
        """
        self._release()
        self._held = self.spell(fragment)

    def _release(self) -> None:
        held, self._held = self._held, ""
        self.arguments(held)

    def all_but_last(self, fragment: str) -> None:
        """Add JSON text any character of which may be the last."""
        if fragment:
            self.arguments(fragment[:-1])
            self.last_argument(fragment[-1:])

    def complete(self) -> None:
        """The open call is complete; without arguments it gets an empty object."""
        if not self._is_open:
            return
        if not self._fragments and not self._held:
            self._held = "{}"
        self._release()
        self._is_open = False
        if not self._is_mute and _is_json("".join(self._fragments)):
            self._finish_event()
            self._events.append(ToolCallEnd(self.num_calls - 1))
        self.after_call()

    def cut(self) -> None:
        """The open call, if any, ends here; it is complete if its arguments are."""
        if self._held:
            self.complete()
        elif self._is_open:
            self._is_open = False
            self.after_call()

    def after_call(self) -> None:
        """Content may follow a call: whitespace parts it from what went before, if anything."""
        is_between = self._space == "keep" or self.content_run.has_shown
        self.content_run.restart("" if is_between else _SPACE)

    def end(self) -> None:
        """Nothing follows."""
        self.cut()
        self.reasoning_run.flush()
        if self._was_called and self.content_run.is_new:
            self.content_run.drop_space()
        self.content_run.flush()

    def spell(self, text: str) -> str:
        """The text with token markers written out."""
        return _replaced(text, self._shown)

    def _emit_content(self, text: str) -> None:
        self._emit(ContentDelta, _replaced(text, self._visible))

    def _emit_reasoning(self, text: str) -> None:
        self._emit(ReasoningDelta, _replaced(text, self._visible))

    def _emit(self, kind: type[ContentDelta] | type[ReasoningDelta] | None, text: str) -> None:
        """Add text to the event in the making, or begin another; None is a call's arguments."""
        if text:
            if kind is not self._kind:
                self._finish_event()
                self._kind = kind
            self._parts.append(text)

    def _finish_event(self) -> None:
        if self._parts:
            text = "".join(self._parts)
            self._parts.clear()
            if self._kind is None:
                self._events.append(ToolCallArguments(self.num_calls - 1, text))
            else:
                self._events.append(self._kind(text))


def _replaced(text: str, stand_ins: Mapping[str, str]) -> str:
    if stand_ins and not text.isascii():
        return _SURROGATES.sub(lambda match: stand_ins.get(match[0], ""), text)
    return text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
