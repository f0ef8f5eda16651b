"""Stream events to content blocks: one is open at a time, and none opens twice.

Both the streamed and the whole answer are made here; they differ only in where the blocks go.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any, Final, Literal, Protocol

import msgspec

from rillm.formats.events import (
    ContentDelta,
    Finish,
    ReasoningDelta,
    StreamEvent,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from rillm.server.anthropic.conversation import TOOL_ID_PREFIX

Kind = Literal["text", "thinking", "tool_use"]

INVALID_JSON: Final = "INVALID_JSON"
"""Key under which the input of a call stands that is no JSON object, because it was cut off."""

_SIGNED_BYTES: Final = 32


class BlockSink(Protocol):
    """Takes blocks, one after the other."""

    def begin_block(self, kind: Kind, fields: dict[str, Any]) -> None:
        """A block begins, with the `fields` it has from the start."""

    def add_text(self, text: str) -> None:
        """The open block gets more text."""

    def end_block(self, signature: str | None) -> None:
        """The open block is complete; a thinking block has a signature."""


class Blocks:
    """The blocks of one answer.

    Attributes:
        finish: the answer's last event, once it has come.
    """

    def __init__(self, sink: BlockSink, *, shows_thinking: bool = True) -> None:
        """Begin with no block.

        Args:
            sink: where they go.
            shows_thinking: False leaves thinking blocks empty.
        """
        self._sink = sink
        self._shows_thinking = shows_thinking
        self._open: Kind | None = None
        self._held: list[StreamEvent] = []
        self._digest = hashlib.blake2b(digest_size=_SIGNED_BYTES)
        self.finish: Finish | None = None

    def add(self, events: Iterable[StreamEvent]) -> None:
        """Add what is new."""
        for event in events:
            match event:
                case ContentDelta(text):
                    self._add_text("text", text, event)
                case ReasoningDelta(text):
                    self._add_text("thinking", text, event)
                case ToolCallBegin(_, id, name):
                    self._close()
                    self._begin("tool_use", {"id": TOOL_ID_PREFIX + id, "name": name, "input": {}})
                case ToolCallArguments(_, fragment):
                    self._sink.add_text(fragment)
                case ToolCallEnd():
                    self._close()
                case Finish():
                    self._close()
                    self.finish = event

    def _add_text(self, kind: Kind, text: str, event: StreamEvent) -> None:
        if self._open == "tool_use":
            # More of the call may follow, and a block that was left cannot be opened again.
            self._held.append(event)
            return
        if self._open != kind:
            self._close()
            self._begin(kind, {"text": ""} if kind == "text" else {"thinking": "", "signature": ""})
        if kind == "thinking":
            self._digest.update(text.encode())
            if not self._shows_thinking:
                return
        self._sink.add_text(text)

    def _begin(self, kind: Kind, fields: dict[str, Any]) -> None:
        self._open = kind
        self._sink.begin_block(kind, fields)

    def _close(self) -> None:
        """End the open block, and show the text that came within a call."""
        kind, self._open = self._open, None
        if kind is None:
            return
        signature = None
        if kind == "thinking":
            signature = base64.b64encode(self._digest.digest()).decode()
            self._digest = hashlib.blake2b(digest_size=_SIGNED_BYTES)
        self._sink.end_block(signature)
        held, self._held = self._held, []
        if held:
            self.add(held)
            self._close()


class WholeBlocks:
    """A sink that keeps the blocks.

    Attributes:
        content: the blocks so far, as in an answer that is not streamed.
    """

    def __init__(self) -> None:
        self.content: list[dict[str, Any]] = []
        self._parts: list[str] = []

    def begin_block(self, kind: Kind, fields: dict[str, Any]) -> None:
        """A block begins."""
        self.content.append({"type": kind, **fields})

    def add_text(self, text: str) -> None:
        """The open block gets more text."""
        self._parts.append(text)

    def end_block(self, signature: str | None) -> None:
        """The open block is complete."""
        block = self.content[-1]
        text = "".join(self._parts)
        self._parts.clear()
        if block["type"] == "tool_use":
            block["input"] = _input(text)
        else:
            block[block["type"]] = text
        if signature is not None:
            block["signature"] = signature


def _input(arguments: str) -> dict[str, Any]:
    """The object of a call's arguments; half a call must not look like a whole one."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {INVALID_JSON: arguments}
