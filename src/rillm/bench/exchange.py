"""One request and its answer, from the first byte to the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from rillm.bench.answer import Answer
from rillm.bench.gates import Fault, Gate, check_answer
from rillm.bench.wire import PATHS, Endpoint, decode_chunk
from rillm.http_client import Client, StallError, TransferError
from rillm.sse_reader import EventReader

_OK: Final = 200
_SHOWN: Final = 200
"""Bytes of what was not understood that are shown."""
_BROKEN: Final[frozenset[Gate]] = frozenset({"error", "disconnect", "stall"})


@dataclass(slots=True)
class Exchange:
    """What was asked and what came of it."""

    body: Mapping[str, Any]
    answer: Answer = field(default_factory=Answer)
    faults: list[Fault] = field(default_factory=list)
    sent_at: float = 0.0
    """A time of `time.perf_counter`, in seconds."""

    @property
    def is_complete(self) -> bool:
        """Whether the answer came to its end, so that its times mean something."""
        return not any(fault.gate in _BROKEN for fault in self.faults)


async def exchange(client: Client, endpoint: Endpoint, body: Mapping[str, Any]) -> Exchange:
    """Ask, read the answer, and hold it against the gates that need no second answer.

    Args:
        client: of the server.
        endpoint: which one to ask.
        body: the request; with `stream`, the answer must be a stream with usage.
    """
    made = Exchange(body)
    receiver = _Receiver(made, bool(body.get("stream")))
    try:
        await client.ask(PATHS[endpoint], msgspec.json.encode(body), receiver)
    except StallError as error:
        receiver.fail("stall", str(error))
    except TransferError as error:
        # Whoever has read [DONE] does not care how the connection ends.
        if not receiver.has_done:
            receiver.fail("disconnect", str(error))
    if made.is_complete:
        receiver.end()
    if made.is_complete:
        made.faults += check_answer(made.answer, body)
    return made


class _Receiver:
    """Reads one answer, streamed or whole."""

    def __init__(self, made: Exchange, wants_stream: bool) -> None:
        self.has_done = False
        self._made = made
        self._answer = made.answer
        self._wants_stream = wants_stream
        self._is_stream = False
        self._status = 0
        self._last_s = 0.0
        self._events = EventReader()
        self._whole: list[bytes] = []

    def sent(self, at: float) -> None:
        self._made.sent_at = at

    def begin(self, status: int, content_type: str, at: float) -> None:
        self._answer.first_byte_s = self._last_s = at - self._made.sent_at
        self._status = status
        self._is_stream = status == _OK and "event-stream" in content_type

    def feed(self, data: bytes, at: float) -> None:
        at_s = self._last_s = at - self._made.sent_at
        self._answer.num_bytes += len(data)
        if not self._is_stream:
            self._whole.append(data)
            return
        for event in self._events.feed(data):
            if event == b"[DONE]":
                self.has_done = True
                self._answer.end_s = at_s
            else:
                self._add(event, at_s)

    def end(self) -> None:
        """The body is over."""
        if not self._is_stream:
            body = b"".join(self._whole)
            if self._status != _OK:
                self.fail("error", f"status {self._status}: {_readable(body)}")
                return
            self._add(body, self._last_s)
            if self._wants_stream:
                self.fail("malformed", "the answer is no event stream")
        elif not self.has_done:
            self.fail("done", "no [DONE]")
        if self._answer.end_s is None:
            self._answer.end_s = self._last_s

    def fail(self, gate: Gate, detail: str) -> None:
        self._made.faults.append(Fault(gate, detail))

    def _add(self, event: bytes, at_s: float) -> None:
        try:
            chunk = decode_chunk(event)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.fail("malformed", f"{error}: {_readable(event)}")
            return
        if chunk.error is not None:
            self.fail("error", _readable(event))
        elif self.has_done:
            self.fail("done", "an event after [DONE]")
        self._answer.add(chunk, at_s)


def _readable(data: bytes) -> str:
    return data[:_SHOWN].decode(errors="replace")
