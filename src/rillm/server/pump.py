"""From the engine to the socket, without waking a task for each token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import closing
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from starlette.types import Send

from rillm.server import sse
from rillm.server.chunk_memo import ChunkMemo, PlainForm, remember
from rillm.server.eager import run_to_pause
from rillm.server.heartbeat import Heartbeat
from rillm.server.sse import WriteNow
from rillm.streams import ChoiceDelta, EventStream

_BATCH_STREAMS: Final = 32
"""Encoded before any is written: half a millisecond of work."""


class ChunkEncoder(Protocol):
    """Makes a stream's bytes."""

    @property
    def plain(self) -> PlainForm | None:
        """How it encodes a piece of text where that is all there is to tell; None: see `encode`."""

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
        "_form",
        "_head",
        "_heartbeat",
        "_idle",
        "_memo",
        "_num_skipped",
        "_raw_send",
        "_state",
        "_stream",
        "_table",
        "_unwritten",
        "_write_now",
        "_writes",
        "_writing",
    )

    def __init__(
        self,
        stream: EventStream,
        encoder: ChunkEncoder,
        before_end: Callable[[], Awaitable[None]] | None = None,
        memo: ChunkMemo | None = None,
    ) -> None:
        """Prepare a stream.

        Args:
            stream: not yet started.
            encoder: makes its bytes.
            before_end: to be done when all has been generated, before the end is sent.
            memo: where to look for what a token became before; None: nowhere.
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
        plain = encoder.plain or PlainForm(b"", None)
        self._memo = None if encoder.plain is None else memo
        self._head, self._form = plain
        self._state: Hashable = None
        """Of the stream, after what was taken last."""
        self._table: dict[int, bytes] | None = None
        """What tokens become in that state, as far as it is known; None in no steady one."""
        self._num_skipped = 0
        """Tokens told out of the table that the stream does not know of."""

    async def send_all(
        self,
        start: Callable[[], Awaitable[None]],
        raw_send: Send,
        heartbeat: Heartbeat,
        write_now: WriteNow,
    ) -> None:
        """Send everything; see `rillm.server.sse.Chunks`."""
        self._raw_send = raw_send
        self._write_now = write_now
        self._heartbeat = heartbeat
        self._writes = _writes_of(asyncio.get_running_loop())
        if self._memo is not None:
            self._stream.on_token = self._take_token
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
        ready = asyncio.Event()
        self._stream.on_ready = ready.set
        while not (chunk := self._next()) and not self._stream.is_finished:
            await ready.wait()
            ready.clear()
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
        """Encode what is new, and look up what the token after it may become."""
        if self._num_skipped:
            self._stream.skip(self._num_skipped)
            self._num_skipped = 0
        deltas = self._stream.take()
        chunk = self._encoder.encode(deltas) if deltas else b""
        if self._memo is not None:
            state = self._stream.steady_state()
            if state is None:
                self._table = None
            elif self._table is not None and state == self._state:
                remember(self._table, deltas, self._head, chunk)
            else:
                self._table = self._memo.table(state, self._form)
            self._state = state
        return chunk

    async def _wait(self) -> None:
        self._idle = idle = asyncio.get_running_loop().create_future()
        try:
            await idle
        finally:
            self._idle = None

    def _resume(self, error: Exception | None = None) -> None:
        """Let the task go on, if it waits; with an error, if there is one."""
        idle, self._idle = self._idle, None
        if idle is None or idle.done():
            return
        if error is None:
            idle.set_result(None)
        else:
            idle.set_exception(error)

    def _take_token(self, token_id: int) -> bool:
        """Tell a token out of the table, if it is there and nothing else is being written."""
        table = self._table
        if table is None or self._unwritten or self._idle is None:
            return False
        chunk = table.get(token_id)
        if chunk is None or self._heartbeat.is_beating:
            return False
        self._num_skipped += 1
        self._unwritten = self._head + chunk
        self._writes.add(self)
        return True

    def _push(self) -> None:
        """Encode what is new at once, if nothing else is being written."""
        if self._unwritten:
            self.write(sse.now())
        if self._idle is None:
            return
        if self._heartbeat.is_beating:
            self._resume()
            return
        try:
            self._unwritten = self._next()
        except Exception as error:  # noqa: BLE001 - for the task to deal with
            self._resume(error)
            return
        if self._stream.is_finished:
            self.write(sse.now())
        elif self._unwritten:
            self._writes.add(self)

    def write(self, time_now: float) -> None:
        """Write what has been encoded, unless the stream has ended meanwhile.

        Args:
            time_now: monotonic seconds.
        """
        chunk, self._unwritten = self._unwritten, b""
        if self._idle is None:
            return
        try:
            if chunk:
                self._heartbeat.last_write = time_now
                if not self._write_now(chunk):
                    self._writing = run_to_pause(self._raw_send(sse.body_message(chunk)))
        except Exception as error:  # noqa: BLE001 - for the task to deal with
            self._resume(error)
            return
        if self._writing is not None or self._stream.is_finished:
            self._resume()


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
        time_now = sse.now()
        for stream in streams:
            stream.write(time_now)


_WRITES: WeakKeyDictionary[asyncio.AbstractEventLoop, _Writes] = WeakKeyDictionary()


def _writes_of(loop: asyncio.AbstractEventLoop) -> _Writes:
    writes = _WRITES.get(loop)
    if writes is None:
        writes = _WRITES[loop] = _Writes()
    return writes
