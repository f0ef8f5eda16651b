"""From the engine to the socket, without waking a task for each token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from starlette.types import Send

from rillm.server import sse
from rillm.server.eager import run_to_pause
from rillm.server.heartbeat import Heartbeat
from rillm.streams import ChoiceDelta, EventStream

_BATCH_STREAMS: Final = 32
"""Encoded before any is written: half a millisecond of work."""


class ChunkEncoder(Protocol):
    """Makes a stream's bytes."""

    def encode(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        """Encode what has changed; may be empty."""

    def end(self) -> bytes:
        """Encode what follows the last finish."""


class EncodedChunks:
    """What an encoder makes of a stream of events.

    While its reader keeps up, the engine's client calls and the bytes are written, with no task
    in between. Where the socket takes no more, a task waits for it, and what comes meanwhile
    merges in the engine's client.
    """

    __slots__ = (
        "_before_end",
        "_encoder",
        "_heartbeat",
        "_idle",
        "_raw_send",
        "_stream",
        "_unwritten",
        "_writes",
        "_writing",
    )

    def __init__(
        self,
        stream: EventStream,
        encoder: ChunkEncoder,
        before_end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare a stream.

        Args:
            stream: not yet started.
            encoder: makes its bytes.
            before_end: to be done when all has been generated, before the end is sent.
        """
        self._stream = stream
        self._encoder = encoder
        self._before_end = before_end
        self._idle: asyncio.Future[None] | None = None
        """What the task waits for while there is nothing for it to do."""
        self._unwritten = b""
        """Encoded, and waiting for its turn in the batch."""
        self._writing: Awaitable[None] | None = None
        """The rest of a write that the socket did not take at once."""

    async def send_all(
        self, start: Callable[[], Awaitable[None]], raw_send: Send, heartbeat: Heartbeat
    ) -> None:
        """Send everything; see `rillm.server.sse.Chunks`."""
        self._raw_send = raw_send
        self._heartbeat = heartbeat
        self._writes = _writes_of(asyncio.get_running_loop())
        with closing(self._stream):
            await self._stream.start()
            chunk = await self._first()
            await start()
            await self._write_all(chunk)
        end = self._encoder.end()
        if self._before_end is not None:
            await self._before_end()
        await raw_send(sse.body_message(end))

    async def _first(self) -> bytes:
        """Wait for the first bytes; empty where there are none at all."""
        self._stream.on_ready = self._wake
        while not (chunk := self._next()) and not self._stream.is_finished:
            await self._wait()
        return chunk

    async def _write_all(self, chunk: bytes) -> None:
        """Write `chunk` and what follows, until everything has been taken."""
        self._stream.on_ready = self._push
        while True:
            if chunk:
                await self._raw_send(sse.body_message(chunk))
                self._heartbeat.last_write = sse.now()
            if self._stream.is_finished:
                return
            chunk = self._next()
            if not chunk and not self._stream.is_finished:
                await self._wait()
                if self._writing is not None:
                    writing, self._writing = self._writing, None
                    await writing
                    self._heartbeat.last_write = sse.now()
                await self._heartbeat.settle()

    def _next(self) -> bytes:
        deltas = self._stream.take()
        return self._encoder.encode(deltas) if deltas else b""

    async def _wait(self) -> None:
        self._idle = asyncio.get_running_loop().create_future()
        try:
            await self._idle
        finally:
            self._idle = None

    def _wake(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def _push(self) -> None:
        """Encode what is new at once, if nothing else is being written."""
        if self._unwritten:
            self.write()
        idle = self._idle
        if idle is None or idle.done():
            return
        if self._heartbeat.is_beating:
            idle.set_result(None)
            return
        try:
            deltas = self._stream.take()
            self._unwritten = self._encoder.encode(deltas) if deltas else b""
        except Exception as error:  # noqa: BLE001 - for the task to deal with
            idle.set_exception(error)
            return
        if self._stream.is_finished:
            self.write()
        elif self._unwritten:
            self._writes.add(self)

    def write(self) -> None:
        """Write what has been encoded, unless the stream has ended meanwhile."""
        chunk, self._unwritten = self._unwritten, b""
        idle = self._idle
        if idle is None or idle.done():
            return
        try:
            if chunk:
                message = {"type": "http.response.body", "body": chunk, "more_body": True}
                self._writing = run_to_pause(self._raw_send(message))
                self._heartbeat.last_write = sse.now()
        except Exception as error:  # noqa: BLE001 - for the task to deal with
            idle.set_exception(error)
        else:
            if self._writing is not None or self._stream.is_finished:
                idle.set_result(None)


class _Writes:
    """Streams of one event loop that have something to write.

    Several are written in a row: their readers stay awake meanwhile, and the processor's caches
    keep either the kernel's data or ours. That takes a tenth off the cost of a token.
    """

    def __init__(self) -> None:
        self._streams: list[EncodedChunks] = []

    def add(self, stream: EncodedChunks) -> None:
        """Write what a stream has encoded, after others perhaps, but in this turn of the loop."""
        self._streams.append(stream)
        if len(self._streams) == _BATCH_STREAMS:
            self._write()
        elif len(self._streams) == 1:
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.write()


_WRITES: WeakKeyDictionary[asyncio.AbstractEventLoop, _Writes] = WeakKeyDictionary()


def _writes_of(loop: asyncio.AbstractEventLoop) -> _Writes:
    writes = _WRITES.get(loop)
    if writes is None:
        writes = _WRITES[loop] = _Writes()
    return writes
