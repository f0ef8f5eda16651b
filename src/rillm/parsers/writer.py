"""Turns the deltas of a vLLM-style parser into events; what was written once stands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from rillm.formats.events import StreamEvent
from rillm.formats.sink import NewId, Sink


@dataclass(slots=True)
class _Call:
    """A call as the parser has given it so far."""

    name: str = ""
    id: str | None = None
    fragments: list[str] = field(default_factory=list)


class Writer:
    """Writes one choice's events.

    Attributes:
        has_written: whether there was any content, or a call has begun.
    """

    def __init__(self, new_id: NewId, *, is_muted: bool, is_parallel: bool) -> None:
        """Start an empty choice; for the arguments see `Sink`."""
        self._sink = Sink(
            space="keep",
            reasoning_space="",
            new_id=new_id,
            is_muted=is_muted,
            is_parallel=is_parallel,
            shown={},
            hidden=frozenset(),
        )
        self._content: list[str] = []
        self._by_index: dict[int, _Call] = {}
        self._calls: list[_Call] = []
        self.has_written = False

    @property
    def sent_content(self) -> str:
        """All content so far."""
        return "".join(self._content)

    @property
    def num_calls(self) -> int:
        """Calls that have begun."""
        return len(self._calls)

    def sent_call(self, position: int) -> tuple[str, str]:
        """Name, and arguments so far, of a call that has begun."""
        call = self._calls[position]
        return call.name, "".join(call.fragments)

    def take(self) -> list[StreamEvent]:
        """The events since the last call."""
        return self._sink.take()

    def add(self, message: Any) -> None:
        """Write a `DeltaMessage`, or nothing for None.

        Raises:
            ValueError: it adds to a call that has ended.
        """
        if message is None:
            return
        reasoning = getattr(message, "reasoning", None)
        self.reasoning(reasoning or getattr(message, "reasoning_content", None) or "")
        self.content(message.content or "")
        for item in message.tool_calls or ():
            name = getattr(item.function, "name", None) or ""
            self._call(item.index, item.id, name, getattr(item.function, "arguments", None))

    def reasoning(self, text: str) -> None:
        """Write reasoning."""
        self._sink.reasoning(text)

    def content(self, text: str) -> None:
        """Write content."""
        if text:
            self.has_written = True
            self._content.append(text)
            self._sink.content(text)

    def new_call(self, call_id: str | None, name: str, arguments: str) -> None:
        """Write a whole call after all others."""
        self._call(max(self._by_index, default=-1) + 1, call_id, name, arguments)

    def more_arguments(self, fragment: str) -> None:
        """Write more of the last call's arguments."""
        self._calls[-1].fragments.append(fragment)
        self._sink.arguments(fragment)

    def end_call(self, *, is_cut: bool) -> None:
        """The last call, if any, ends; `is_cut` says that it may lack something."""
        if is_cut and not (self._calls and self._calls[-1].fragments):
            self._sink.cut()
        else:
            self._sink.complete()

    def end(self, *, is_cut: bool) -> None:
        """Nothing follows; `is_cut` as above."""
        self.end_call(is_cut=is_cut)
        self._sink.end()

    def _call(self, index: int, call_id: str | None, name: str, arguments: Any) -> None:
        """Write more of a call; nothing of it is certain before its name."""
        call = self._by_index.setdefault(index, _Call())
        call.id = call.id or call_id
        fragment = as_json(arguments) if arguments else ""
        if call.name and fragment and call is not self._calls[-1]:
            raise ValueError(f"arguments for call {index}, which has ended")
        if fragment:
            call.fragments.append(fragment)
        if name and not call.name:
            self._sink.complete()
            call.name = name
            self._calls.append(call)
            self.has_written = True
            self._sink.begin(name, call.id)
            fragment = "".join(call.fragments)
        if call.name:
            self._sink.arguments(fragment)


def as_json(arguments: Any) -> str:
    """Arguments as JSON text, which they usually are already."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
