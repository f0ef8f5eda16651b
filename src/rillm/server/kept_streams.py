"""Streams that go on without their readers, and can be read again from any event.

A kept stream is a task of its own that writes into a log. A connection reads the log: it may
break, and another one goes on where it ended. Events have ids then, `TAG:NUMBER`, where the tag
is a secret of the stream. What is kept is bounded by time and bytes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final

from starlette.types import Message

from rillm.admission import CLIENT
from rillm.errors import CapacityError, ItemNotFoundError
from rillm.server.event_log import EventLog
from rillm.server.heartbeat import Heartbeat
from rillm.server.sse import Chunks, StreamForm, described, never

PARAM: Final = "from"
"""What callers call the number of the event that they want to read on from."""
MAX_KEPT: Final = 4096
"""Streams that are kept at a time."""

_TAG_BYTES = 9
_SPLIT = b"\n\n"


class KeptStream:
    """One stream.

    Attributes:
        tag: names it in the ids of its events; nobody can guess it.
        client: whose it is, as `rillm.admission.CLIENT` says.
        request_id: of the request that it answers.
        log: its events.
        form: what its API says besides events.
        num_readers: connections that read it.
        is_forgotten: whether it goes with its last reader.
    """

    def __init__(
        self,
        chunks: Chunks,
        request_id: str,
        form: StreamForm,
        on_growth: Callable[[int], None],
    ) -> None:
        """Begin.

        Args:
            chunks: not begun.
            request_id: of the request.
            form: of its API.
            on_growth: called with the number of bytes that were added to the log.
        """
        self.tag = secrets.token_urlsafe(_TAG_BYTES)
        self.client = CLIENT.get()
        self.request_id = request_id
        self.form = form
        self.log = EventLog(PARAM, is_inclusive=True)
        self.num_readers = 0
        self.is_forgotten = False
        self._chunks = chunks
        self._on_growth = on_growth
        loop = asyncio.get_running_loop()
        self._began: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run())

    async def events(self, first: int) -> AsyncGenerator[bytes, None]:
        """Tell the events from a number on, with their ids; first of all wait until it begins.

        Raises:
            Exception: what the stream was refused for.
            InvalidRequestError: these events are not kept.
        """
        await asyncio.shield(self._began)
        self.log.check(first)
        async with aclosing(self.log.follow(first, self.tag.encode())) as events:
            async for each in events:
                yield each

    @property
    def is_refused(self) -> bool:
        """Whether it never began."""
        began = self._began
        return began.done() and (began.cancelled() or began.exception() is not None)

    def end(self) -> None:
        """End it, now that nobody reads it and nobody will."""
        self._on_growth = _forget
        self._task.cancel()

    async def _run(self) -> None:
        async def start() -> None:
            if not self._began.done():
                self._began.set_result(None)

        try:
            # There is no connection that could fall silent.
            silent = Heartbeat(0, start, asyncio.get_running_loop())
            await self._chunks.send_all(start, self._send, silent, never)
            await start()
        except Exception as error:  # noqa: BLE001 - for whoever reads
            if not self._began.done():
                self._began.set_exception(error)
                # The reader may have gone.
                self._began.exception()
            else:
                self._add(self.form.failure(described(error)))
        finally:
            self._began.cancel()
            self.log.append([], is_last=True)

    def _send(self, message: Message) -> Awaitable[None]:
        self._add(message["body"])
        return _NOTHING

    def _add(self, chunk: bytes) -> None:
        events = [each + _SPLIT for each in chunk.split(_SPLIT) if each]
        self.log.append(events)
        self._on_growth(len(chunk))


def _forget(_num_bytes: int) -> None:
    """Keep no account."""


class _Nothing:
    """Awaitable, and done."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


_NOTHING: Final[Awaitable[None]] = _Nothing()


class KeptStreams:
    """All kept streams of a server."""

    def __init__(self, keep_seconds: float, max_bytes: int) -> None:
        """Keep none yet.

        Args:
            keep_seconds: how long a stream is kept while nobody reads it; one that has not ended
                by then is ended.
            max_bytes: most bytes of events to keep. Above it, streams that nobody reads go, the
                longest unread first; then what all readers of a stream have taken.
        """
        self._keep_seconds = keep_seconds
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._trim_above = max_bytes
        self._by_tag: dict[str, KeptStream] = {}
        self._by_request: dict[tuple[str, str], KeptStream] = {}
        self._unread: dict[KeptStream, asyncio.TimerHandle] = {}
        """In the order in which they were left."""

    @contextmanager
    def keep(
        self, chunks: Chunks, request_id: str, form: StreamForm
    ) -> Iterator[AsyncGenerator[bytes, None]]:
        """Begin a stream that is kept; gives its events with their ids to its first reader.

        Raises:
            CapacityError: there are too many.
        """
        while len(self._by_tag) >= MAX_KEPT:
            if not self._unread:
                raise CapacityError(f"{MAX_KEPT} streams are being read that can be resumed")
            self._drop(next(iter(self._unread)))
        stream = KeptStream(chunks, request_id, form, self._grow)
        self._by_tag[stream.tag] = self._by_request[stream.client, request_id] = stream
        with self._reading(stream):
            yield stream.events(0)

    def find(self, name: str) -> KeptStream:
        """A stream of the calling client: that of a tag, or the newest of a request's id.

        Raises:
            ItemNotFoundError: none is kept under that name.
        """
        client = CLIENT.get()
        stream = self._by_tag.get(name) or self._by_request.get((client, name))
        if stream is None or stream.client != client:
            raise ItemNotFoundError(
                f"no stream {name!r} is kept: it does not exist, was not made with "
                "'X-On-Disconnect: continue', or was left too long ago"
            )
        return stream

    async def read(self, stream: KeptStream, first: int) -> AsyncGenerator[bytes, None]:
        """Tell the events of a stream from a number on; it is kept while somebody reads.

        Raises:
            Exception: as `KeptStream.events`.
        """
        if stream.tag not in self._by_tag:
            raise ItemNotFoundError("the stream has just been dropped")
        with self._reading(stream):
            async with aclosing(stream.events(first)) as events:
                async for each in events:
                    yield each

    def forget(self, name: str) -> None:
        """Keep a stream only for those who read it now.

        Raises:
            ItemNotFoundError: none is kept under that name.
        """
        stream = self.find(name)
        stream.is_forgotten = True
        if stream.num_readers == 0:
            self._drop(stream)

    @contextmanager
    def _reading(self, stream: KeptStream) -> Iterator[None]:
        stream.num_readers += 1
        self._stop_timer(stream)
        try:
            yield
        finally:
            stream.num_readers -= 1
            if stream.num_readers == 0:
                self._leave(stream)

    def _leave(self, stream: KeptStream) -> None:
        if stream.is_refused or stream.is_forgotten:
            self._drop(stream)
        else:
            self._unread[stream] = asyncio.get_running_loop().call_later(
                self._keep_seconds, self._drop, stream
            )

    def _stop_timer(self, stream: KeptStream) -> None:
        if (timer := self._unread.pop(stream, None)) is not None:
            timer.cancel()

    def _drop(self, stream: KeptStream) -> None:
        if self._by_tag.pop(stream.tag, None) is None:
            return
        name = (stream.client, stream.request_id)
        if self._by_request.get(name) is stream:
            del self._by_request[name]
        self._stop_timer(stream)
        self._num_bytes -= stream.log.num_bytes
        self._trim_above = self._max_bytes
        stream.end()

    def _grow(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        if self._num_bytes > self._trim_above:
            self._trim()
            # Where nothing can go, there is no use in looking again for each token.
            self._trim_above = max(self._max_bytes, self._num_bytes * 9 // 8)

    def _trim(self) -> None:
        """Drop more than has to be, so that it is rare."""
        aim = self._max_bytes * 3 // 4
        while self._num_bytes > aim and self._unread:
            self._drop(next(iter(self._unread)))
        for stream in list(self._by_tag.values()):
            if self._num_bytes <= aim:
                return
            before = stream.log.num_bytes
            stream.log.drop_taken()
            self._num_bytes -= before - stream.log.num_bytes
