"""Items of the output while they are written: the events of their lives, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol

import msgspec

from rillm.server.responses import events
from rillm.server.responses.events import DeltaHead, EventWriter
from rillm.server.responses.items import Item, seal
from rillm.server.responses.tools import CUSTOM_INPUT

ItemStatus = Literal["completed", "incomplete"]
Logprobs = Sequence[dict[str, Any]]
"""As chat has them, one for each token."""

_NO_LOGPROBS: Final = b',"logprobs":[]}\n\n'


class OpenItem(Protocol):
    """An item that has begun and not ended."""

    def close(self, writer: EventWriter, status: ItemStatus) -> Item:
        """Write its end; returns the whole item."""


class OpenText:
    """A message or a reasoning item: one part, which is text."""

    def __init__(
        self,
        writer: EventWriter,
        id: str,
        index: int,
        *,
        is_reasoning: bool = False,
        is_sealed: bool = False,
        has_logprobs: bool = False,
    ) -> None:
        """Write its beginning.

        Args:
            writer: of the stream.
            id: the item's.
            index: its place in the output.
            is_reasoning: it is reasoning, not a message.
            is_sealed: tell the reasoning a second time, for callers that keep no state.
            has_logprobs: its end tells the logprobs of all of its tokens.
        """
        self.is_reasoning = is_reasoning
        self._is_sealed = is_sealed
        self._logprobs: list[dict[str, Any]] | None = [] if has_logprobs else None
        self._texts: list[str] = []
        self._place = {"item_id": id, "output_index": index, "content_index": 0}
        self._id, self._index = id, index
        delta = events.REASONING_DELTA if is_reasoning else events.TEXT_DELTA
        self._head = DeltaHead(delta, self._place)
        self._tail = b"}\n\n" if is_reasoning else _NO_LOGPROBS
        writer.write(events.ITEM_ADDED, output_index=index, item=self._item("in_progress", []))
        writer.write(events.PART_ADDED, **self._place, part=self._part(""))

    def add(self, writer: EventWriter, text: str, logprobs: Logprobs = ()) -> None:
        """Write some text."""
        self._texts.append(text)
        if logprobs and self._logprobs is not None:
            self._logprobs += logprobs
            tail = b',"logprobs":%b}\n\n' % msgspec.json.encode(logprobs)
            writer.write_delta(self._head, text, tail)
        else:
            writer.write_delta(self._head, text, self._tail)

    def close(self, writer: EventWriter, status: ItemStatus) -> Item:
        """Write its end; returns the whole item."""
        text = "".join(self._texts)
        part = self._part(text)
        if self.is_reasoning:
            writer.write(events.REASONING_DONE, **self._place, text=text)
        else:
            logprobs = self._logprobs or []
            writer.write(events.TEXT_DONE, **self._place, text=text, logprobs=logprobs)
        writer.write(events.PART_DONE, **self._place, part=part)
        item = self._item(status, [part])
        if self._is_sealed:
            item["encrypted_content"] = seal(text)
        writer.write(events.ITEM_DONE, output_index=self._index, item=item)
        return item

    def _part(self, text: str) -> dict[str, Any]:
        if self.is_reasoning:
            return {"type": "reasoning_text", "text": text}
        logprobs = list(self._logprobs or [])
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _item(self, status: str, content: list[dict[str, Any]]) -> Item:
        if self.is_reasoning:
            item: Item = {"id": self._id, "type": "reasoning", "status": status}
            return item | {"summary": [], "content": content, "encrypted_content": None}
        head = {"id": self._id, "type": "message", "status": status, "role": "assistant"}
        return head | {"content": content}


class OpenCall:
    """A call of a function."""

    def __init__(self, writer: EventWriter, id: str, index: int, call_id: str, name: str) -> None:
        """Write its beginning."""
        self._call_id, self._name = call_id, name
        self._fragments: list[str] = []
        self._id, self._index = id, index
        self._place = {"item_id": id, "output_index": index}
        self._head = DeltaHead(events.ARGUMENTS_DELTA, self._place)
        writer.write(events.ITEM_ADDED, output_index=index, item=self._item("in_progress", ""))

    def add(self, writer: EventWriter, fragment: str) -> None:
        """Write some of the arguments."""
        self._fragments.append(fragment)
        writer.write_delta(self._head, fragment)

    def close(self, writer: EventWriter, status: ItemStatus) -> Item:
        """Write its end; returns the whole item."""
        arguments = "".join(self._fragments)
        item = self._item(status, arguments)
        writer.write(events.ARGUMENTS_DONE, **self._place, name=self._name, arguments=arguments)
        writer.write(events.ITEM_DONE, output_index=self._index, item=item)
        return item

    def _item(self, status: str, arguments: str) -> Item:
        return {
            "id": self._id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": arguments,
        }


class OpenCustomCall:
    """A call of a custom tool: to the model, of a function with one string.

    The string is told at once when the call ends: a part of JSON text is not a part of it.
    """

    def __init__(self, writer: EventWriter, id: str, index: int, call_id: str, name: str) -> None:
        """Write its beginning."""
        self._call_id, self._name = call_id, name
        self._fragments: list[str] = []
        self._id, self._index = id, index
        self._place = {"item_id": id, "output_index": index}
        writer.write(events.ITEM_ADDED, output_index=index, item=self._item("in_progress", ""))

    def add(self, _: EventWriter, fragment: str) -> None:
        """Take some of the arguments."""
        self._fragments.append(fragment)

    def close(self, writer: EventWriter, status: ItemStatus) -> Item:
        """Write its end; returns the whole item."""
        text = _custom_input("".join(self._fragments))
        if text:
            writer.write_delta(DeltaHead(events.INPUT_DELTA, self._place), text)
        writer.write(events.INPUT_DONE, **self._place, input=text)
        item = self._item(status, text)
        writer.write(events.ITEM_DONE, output_index=self._index, item=item)
        return item

    def _item(self, status: str, text: str) -> Item:
        return {
            "id": self._id,
            "type": "custom_tool_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "input": text,
        }


def _custom_input(arguments: str) -> str:
    """The one string in a call's arguments; arguments of any other form are the input."""
    try:
        value = msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return arguments
    text = value.get(CUSTOM_INPUT) if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments
