"""Responses that end when their reader goes away: server-sent events and whole bodies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from rillm.errors import InvalidRequestError, RillmError
from rillm.server.access_log import CURRENT
from rillm.server.errors import JSON, ErrorBody, error_body
from rillm.server.heartbeat import PING, Heartbeat
from rillm.server.options import options_of

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"
RAW_SEND = "rillm.send"
"""Scope key of the server's own send: middleware frames on every token cost more than it."""
WRITE_NOW = "rillm.write_now"
"""Scope key of a `WriteNow` for the response's body, where the server has one."""
KEEPER = "rillm.stream_keeper"
"""Scope key of the application's `StreamKeeper`."""
ON_DISCONNECT = "x-on-disconnect"
"""Header with which a request says what becomes of its stream when its reader goes away."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

logger = logging.getLogger(__name__)

now = time.monotonic


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, cancelling it when the client goes away.

    Both run as tasks of their own: resuming `work` for a token passes through no frame of the
    application around it.

    Args:
        receive: the ASGI channel, the request's body already read from it.
        work: what answers the request.

    Raises:
        ClientDisconnect: the client went away first; `work` has been cancelled and has ended.
    """

    async def finish() -> T:
        result = await work
        # At once: when a response is complete, the server's channel says disconnect, too.
        watcher.cancel()
        return result

    try:
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(_raise_on_disconnect(receive))
            working = tasks.create_task(finish())
    except ExceptionGroup as group:
        # One failure ends both sides, so the group holds the cause first.
        raise group.exceptions[0] from None
    return working.result()


async def _raise_on_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if (record := CURRENT.get()) is not None:
        record.aborted_by = "client"
    raise ClientDisconnect


@dataclass(frozen=True, slots=True)
class StreamForm:
    """What a stream says besides its events, which each API says in its own way."""

    ping: bytes
    """Nothing, to show that the stream lives."""
    failure: Callable[[ErrorBody], bytes]
    """All that follows when it fails."""


def _openai_failure(body: ErrorBody) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n" + DONE


OPENAI: Final = StreamForm(PING, _openai_failure)


def json_response(body: bytes, request_id: str) -> Response:
    """Answer a generation request with a whole body."""
    return Response(body, headers={"X-Request-Id": request_id}, media_type=JSON)


WriteNow = Callable[[bytes], bool]
"""Writes a part of a body; False where that has to wait, and nothing was written."""


def never(chunk: bytes) -> bool:
    """Write nothing now; a `WriteNow`."""
    del chunk
    return False


class Chunks(Protocol):
    """Where the bytes of a stream come from."""

    async def send_all(
        self,
        start: Callable[[], Awaitable[None]],
        raw_send: Send,
        heartbeat: Heartbeat,
        write_now: WriteNow,
    ) -> None:
        """Send everything, and say when to the heartbeat.

        Args:
            start: sends status and headers; awaited before the first bytes, once they are there.
            raw_send: the server's own.
            heartbeat: the stream's.
            write_now: cheaper than `raw_send`, after `start`.

        Raises:
            Exception: the stream failed, or was refused.
        """


class GeneratedChunks:
    """Each item of a generator, as one write."""

    def __init__(self, generator: AsyncGenerator[bytes, None]) -> None:
        self._generator = generator

    async def send_all(
        self,
        start: Callable[[], Awaitable[None]],
        raw_send: Send,
        heartbeat: Heartbeat,
        write_now: WriteNow,
    ) -> None:
        """Send everything; see `Chunks`."""
        async with aclosing(self._generator) as chunks:
            async for chunk in chunks:
                await start()
                await raw_send(body_message(chunk))
                heartbeat.last_write = now()


class StreamKeeper(Protocol):
    """Lets streams go on without their readers; `rillm.server.kept_streams.KeptStreams` does."""

    def keep(
        self, chunks: Chunks, request_id: str, form: StreamForm
    ) -> AbstractContextManager[AsyncGenerator[bytes, None]]:
        """Begin a stream that goes on; gives its events to its first reader."""


class EventStreamResponse(Response):
    """Sends chunks as server-sent events, headers with the first.

    The first bytes are awaited before the status line, so that what is refused lazily still gets
    a status of its own. After them, an error is the stream's last data.

    A stream that has been silent for the application's `heartbeat_seconds` gets a ping, which is
    a comment line in most forms. Where even the first bytes take longer than that, headers go out
    with it, once the engine has taken the request: no refusal can follow then, only a failure.

    Where the request or the server says so, the stream goes on when its reader goes away.
    """

    def __init__(
        self,
        chunks: Chunks,
        request_id: str,
        form: StreamForm = OPENAI,
        *,
        is_replay: bool = False,
    ) -> None:
        """Prepare an answer.

        Args:
            chunks: not begun.
            request_id: for the header.
            form: what the API says besides.
            is_replay: of something that goes on anyway.
        """
        super().__init__()
        self._chunks = chunks
        self._request_id = request_id
        self._is_replay = is_replay
        self._form = form
        self._started = False
        self._start_message = {
            "type": "http.response.start",
            "status": 200,
            "headers": [*_HEADERS, (b"x-request-id", request_id.encode())],
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            ClientDisconnect: the client went away before the first bytes.
            Exception: what the stream raised before its first bytes.
        """
        if self._is_replay or not _goes_on(scope):
            await self._answer(self._chunks, scope, receive, send)
            return
        keeper: StreamKeeper = scope[KEEPER]
        with keeper.keep(self._chunks, self._request_id, self._form) as events:
            self._is_replay = True
            await self._answer(GeneratedChunks(events), scope, receive, send)

    async def _answer(self, chunks: Chunks, scope: Scope, receive: Receive, send: Send) -> None:
        seconds = options_of(scope).heartbeat_seconds
        try:
            await until_disconnect(receive, self._send(chunks, scope, send, seconds))
        except ClientDisconnect:
            record = CURRENT.get()
            if record is not None and self._is_replay:
                record.aborted_by, record.is_detached = None, True
            if not self._started:
                raise

    async def _send(self, chunks: Chunks, scope: Scope, send: Send, seconds: float) -> None:
        raw_send: Send = scope[RAW_SEND]

        async def beat() -> None:
            if not self._started:
                record = CURRENT.get()
                if record is None or not record.is_admitted:
                    return
                await self._start(send)
            await raw_send(body_message(self._form.ping))

        async def start() -> None:
            if not self._started:
                await heartbeat.settle()
                await self._start(send)

        heartbeat = Heartbeat(seconds, beat, asyncio.get_running_loop())
        try:
            await chunks.send_all(start, raw_send, heartbeat, scope.get(WRITE_NOW, never))
        except Exception as error:
            await heartbeat.settle()
            if not self._started:
                raise
            await raw_send(body_message(self._form.failure(described(error))))
        finally:
            heartbeat.stop()
        await self._start(send)
        await raw_send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        """Send status and headers, through all that wants to add to them."""
        if not self._started:
            await send(self._start_message)
            self._started = True


def _goes_on(scope: Scope) -> bool:
    """Whether a stream survives its reader.

    Raises:
        InvalidRequestError: the request says something else than that or not.
    """
    wish = Headers(scope=scope).get(ON_DISCONNECT, options_of(scope).on_disconnect)
    if wish not in ("abort", "continue"):
        raise InvalidRequestError(
            f"X-On-Disconnect is {wish!r}, must be 'abort' or 'continue'", param="X-On-Disconnect"
        )
    return wish == "continue"


def body_message(chunk: bytes) -> Message:
    """A part of a body, more to follow."""
    return {"type": "http.response.body", "body": chunk, "more_body": True}


def described(error: Exception) -> ErrorBody:
    """What is told of an error that ended a stream; the log gets it, too."""
    if not isinstance(error, RillmError):
        logger.error("a stream failed", exc_info=error)
    body = error_body(error)
    if (record := CURRENT.get()) is not None:
        record.error = body.error.type
    return body
