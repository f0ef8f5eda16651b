"""Content blocks to the events of a stream, and to a whole message.

Source: Anthropic's API reference (messages, streaming messages).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from rillm.formats.events import Finish
from rillm.server.anthropic.blocks import Blocks, Kind, WholeBlocks
from rillm.server.anthropic.errors import anthropic_error
from rillm.server.errors import ErrorBody
from rillm.server.sse import StreamForm
from rillm.streams import ChoiceDelta, EventStream, Usage

EVENTS: Final = (
    "message_start",
    "ping",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
)
"""All there are."""
_DELTAS: Final[dict[Kind, tuple[bytes, bytes]]] = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}
"""Kinds of blocks to the type of their deltas and the key of its text."""
_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
"""What the engine says besides, `abort` and `repetition`, has no name in this API: it is passed
on."""

_encode = msgspec.json.encode


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name} | fields))


PING: Final = _event("ping", {})


def _failure(body: ErrorBody) -> bytes:
    error = anthropic_error(body.error.code, body.error.message)
    return b"event: error\ndata: %b\n\n" % _encode(error)


STREAM: Final = StreamForm(PING, _failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAnswer:
    """What is constant over one answer, streamed or not."""

    id: str
    model: str
    max_tokens: int
    """As the request has it, whatever the context left of it."""
    shows_thinking: bool = True

    def message(self, **fields: Any) -> dict[str, Any]:
        """The message, with the fields that become known as it is made."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            **fields,
        }

    def stop(self, finish: Finish, usage: Usage) -> dict[str, Any]:
        """Why the message ended."""
        reason = _STOP_REASONS.get(finish.reason, finish.reason)
        sequence = None
        if finish.reason == "stop" and isinstance(finish.stop_reason, str):
            reason, sequence = "stop_sequence", finish.stop_reason
        elif finish.reason == "length" and usage.completion_tokens < self.max_tokens:
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": sequence}


def message_usage(usage: Usage) -> dict[str, Any]:
    """Encode counts: input that came from the cache is counted apart from the rest."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


class MessageEncoder:
    """Encodes one streamed answer: `encode` for each list of deltas, then `end`."""

    plain = None

    def __init__(self, answer: MessageAnswer, stream: EventStream) -> None:
        self._answer = answer
        self._stream = stream
        self._blocks = Blocks(self, shows_thinking=answer.shows_thinking)
        self._chunks: list[bytes] = []
        self._began = False
        self._index = -1
        self._head = b""

    def encode(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        """Encode what one engine output changed; empty when nothing is certain yet."""
        if not self._began:
            self._began = True
            self._chunks += (self._start(), PING)
        for delta in deltas:
            self._blocks.add(delta.events)
        encoded = b"".join(self._chunks)
        self._chunks.clear()
        return encoded

    def end(self) -> bytes:
        """Encode why the message ended, and its end."""
        finish = self._blocks.finish
        assert finish is not None
        usage = self._stream.usage()
        fields = {"delta": self._answer.stop(finish, usage), "usage": message_usage(usage)}
        return _event("message_delta", fields) + _event("message_stop", {})

    def begin_block(self, kind: Kind, fields: dict[str, Any]) -> None:
        """A block begins."""
        self._index += 1
        delta_type, key = _DELTAS[kind]
        self._head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":' % (self._index, delta_type, key)
        )
        block = {"type": kind, **fields}
        start = {"index": self._index, "content_block": block}
        self._chunks.append(_event("content_block_start", start))

    def add_text(self, text: str) -> None:
        """The open block gets more text."""
        self._chunks.append(self._head + _encode(text) + b"}}\n\n")

    def end_block(self, signature: str | None) -> None:
        """The open block is complete."""
        if signature is not None:
            delta = {"type": "signature_delta", "signature": signature}
            fields = {"index": self._index, "delta": delta}
            self._chunks.append(_event("content_block_delta", fields))
        self._chunks.append(_event("content_block_stop", {"index": self._index}))

    def _start(self) -> bytes:
        usage = replace(self._stream.usage(), completion_tokens=0, reasoning_tokens=0)
        message = self._answer.message(
            content=[], stop_reason=None, stop_sequence=None, usage=message_usage(usage)
        )
        return _event("message_start", {"message": message})


class WholeMessage:
    """Folds one answer: `add` for each list of deltas, then `encode`."""

    def __init__(self, answer: MessageAnswer, stream: EventStream) -> None:
        self._answer = answer
        self._stream = stream
        self._whole = WholeBlocks()
        self._blocks = Blocks(self._whole, shows_thinking=answer.shows_thinking)

    def add(self, deltas: Sequence[ChoiceDelta]) -> None:
        """Add what one engine output changed."""
        for delta in deltas:
            self._blocks.add(delta.events)

    def encode(self) -> bytes:
        """Encode the message, all of its deltas added."""
        finish = self._blocks.finish
        assert finish is not None
        usage = self._stream.usage()
        return _encode(
            self._answer.message(
                content=self._whole.content,
                **self._answer.stop(finish, usage),
                usage=message_usage(usage),
            )
        )
