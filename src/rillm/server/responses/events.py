"""The events of a response's stream: their types, their bytes, and their numbers."""

from __future__ import annotations

from typing import Any, Final

import msgspec

_encode = msgspec.json.encode

# What each of them means is in docs/responses.md.
CREATED: Final = "response.created"
QUEUED: Final = "response.queued"
IN_PROGRESS: Final = "response.in_progress"
COMPLETED: Final = "response.completed"
INCOMPLETE: Final = "response.incomplete"
FAILED: Final = "response.failed"
ITEM_ADDED: Final = "response.output_item.added"
ITEM_DONE: Final = "response.output_item.done"
PART_ADDED: Final = "response.content_part.added"
PART_DONE: Final = "response.content_part.done"
TEXT_DELTA: Final = "response.output_text.delta"
TEXT_DONE: Final = "response.output_text.done"
REASONING_DELTA: Final = "response.reasoning_text.delta"
REASONING_DONE: Final = "response.reasoning_text.done"
ARGUMENTS_DELTA: Final = "response.function_call_arguments.delta"
ARGUMENTS_DONE: Final = "response.function_call_arguments.done"
INPUT_DELTA: Final = "response.custom_tool_call_input.delta"
INPUT_DONE: Final = "response.custom_tool_call_input.done"
ERROR: Final = "error"


def frame(kind: str, fields: dict[str, Any]) -> bytes:
    """One event as it is sent."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind} | fields))


class EventWriter:
    """Numbers events from 0 on, and collects them until they are taken."""

    def __init__(self) -> None:
        self._number = 0
        self._events: list[bytes] = []

    def write(self, kind: str, **fields: Any) -> None:
        """Add one event."""
        self._events.append(frame(kind, {"sequence_number": self._number} | fields))
        self._number += 1

    def write_delta(self, head: DeltaHead, text: str, tail: bytes = b"}\n\n") -> None:
        """Add one event of some text.

        Args:
            head: what it has in common with others of its item.
            text: what is new.
            tail: the rest of its object.
        """
        self._events.append(
            b"%b%d%b%b%b" % (head.before, self._number, head.after, _encode(text), tail)
        )
        self._number += 1

    def take(self) -> list[bytes]:
        """What was added since the last time, one item an event."""
        events, self._events = self._events, []
        return events


class DeltaHead:
    """The bytes around the number of an event, before its text."""

    __slots__ = ("after", "before")

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        start = f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":'
        self.before = start.encode()
        self.after = b"," + _encode(fields)[1:-1] + b',"delta":'
