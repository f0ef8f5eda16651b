"""A connection that has to say what it wants soon, and briefly."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rillm.server.sse import WRITE_NOW

MAX_HEAD_BYTES: Final = 65_536
"""Most bytes of a request line and its headers."""
HEAD_SECONDS: Final = 30.0
"""Longest time from a connection's first byte, or its beginning, to the end of the headers."""


class HttpConnection(HttpToolsProtocol):
    """uvicorn's, with an end to the size and the time of what comes before a body.

    Whoever opens connections and says nothing, or never comes to an end, would hold memory and a
    file for each of them. A head that is too large is answered with 400, and one that is late not
    at all.
    """

    _is_in_head = True
    _num_head_bytes = 0
    _num_body_bytes = 0
    """Of what came last."""
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; refuse a head that is too large before it is whole."""
        self._num_body_bytes = 0
        super().data_received(data)
        if not self._is_in_head or self.transport.is_closing():
            return
        self._num_head_bytes += len(data) - self._num_body_bytes
        if self._num_head_bytes > MAX_HEAD_BYTES:
            self.send_400_response(f"Invalid HTTP request: more than {MAX_HEAD_BYTES} header bytes")
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._is_in_head = True
        self._num_head_bytes = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Tell what is no head from what is."""
        self._num_body_bytes += len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """End a head; one that came in one piece can still be too large."""
        self._stop_timer()
        num_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if num_bytes > MAX_HEAD_BYTES:
            raise ValueError("the head is too large")
        self._is_in_head = False
        super().on_headers_complete()
        if self.cycle is not None and self.cycle.scope is self.scope:
            scope: dict[str, object] = self.scope  # type: ignore[assignment]
            scope[WRITE_NOW] = _BodyWriter(self.cycle).write

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class _BodyWriter:
    """Writes parts of a response's body as its `send` would, without the calls in between."""

    __slots__ = ("_cycle", "_flow", "_is_chunked", "_is_closing", "_write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._write = cycle.transport.write
        self._is_closing = cycle.transport.is_closing
        self._is_chunked = False

    def write(self, part: bytes) -> bool:
        """Write a part that is not empty; a `rillm.server.sse.WriteNow`."""
        if not self._is_chunked:
            # Decided with the headers.
            self._is_chunked = self._cycle.chunked_encoding is True
        if self._flow.write_paused or self._is_closing() or not self._is_chunked:
            return False
        self._write(b"%x\r\n%b\r\n" % (len(part), part))
        return True
