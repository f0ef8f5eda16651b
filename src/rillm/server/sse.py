"""Responses that end when their reader goes away: server-sent events and whole bodies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from rillm.errors import RillmError
from rillm.server.access_log import CURRENT
from rillm.server.eager import run_to_pause
from rillm.server.errors import JSON, error_body
from rillm.server.heartbeat import PING, Heartbeat
from rillm.server.options import options_of
from rillm.streams import ChoiceDelta, EventStream

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"
RAW_SEND = "rillm.send"
"""Scope key of the server's own send: middleware frames on every token cost more than it."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

logger = logging.getLogger(__name__)

_now = time.monotonic


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


def json_response(body: bytes, request_id: str) -> Response:
    """Answer a generation request with a whole body."""
    return Response(body, headers={"X-Request-Id": request_id}, media_type=JSON)


class ChunkEncoder(Protocol):
    """Makes a stream's bytes."""

    def encode(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        """Encode what has changed; may be empty."""

    def end(self) -> bytes:
        """Encode what follows the last finish."""


class EventStreamResponse(Response):
    """Sends what an encoder makes of a stream of events, headers with the first bytes.

    These are awaited before the status line, so that what is refused lazily still gets a status
    of its own. After them, an error is the stream's last data, followed by `[DONE]`.

    A stream that has been silent for the application's `heartbeat_seconds` gets a comment line.
    Where even the first bytes take longer than that, headers go out with the comment, once the
    engine has taken the request: no refusal can follow then, only a failure.
    """

    def __init__(
        self,
        stream: EventStream,
        encoder: ChunkEncoder,
        request_id: str,
        running: AbstractContextManager[None] | None = None,
    ) -> None:
        """Prepare an answer.

        Args:
            stream: not yet started.
            encoder: makes its bytes.
            request_id: for the header.
            running: entered while the stream is read.
        """
        super().__init__()
        self._stream = stream
        self._encoder = encoder
        self._running = running or nullcontext()
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
        seconds = options_of(scope).heartbeat_seconds
        try:
            await until_disconnect(receive, self._send(send, scope[RAW_SEND], seconds))
        except ClientDisconnect:
            if not self._started:
                raise

    async def _send(self, send: Send, raw_send: Send, seconds: float) -> None:
        async def beat() -> None:
            if not self._started:
                record = CURRENT.get()
                if record is None or not record.is_admitted:
                    return
                await self._start(send)
            await raw_send(_body(PING))

        heartbeat = Heartbeat(seconds, beat, asyncio.get_running_loop())
        pump = _Pump(self._stream, self._encoder, raw_send, heartbeat)
        try:
            with self._running, closing(self._stream):
                await self._stream.start()
                chunk = await pump.first()
                await heartbeat.settle()
                await self._start(send)
                await pump.run(chunk)
            await raw_send(_body(self._encoder.end()))
        except Exception as error:
            await heartbeat.settle()
            if not self._started:
                raise
            await raw_send(_body(_last(error)))
        finally:
            heartbeat.stop()
        await raw_send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        """Send status and headers, through all that wants to add to them."""
        if not self._started:
            await send(self._start_message)
            self._started = True


class _Pump:
    """Passes a stream on to a socket.

    While its reader keeps up, the engine's client calls and the bytes are written, with no task
    in between. Where the socket takes no more, a task waits for it, and what comes meanwhile
    merges in the engine's client.
    """

    def __init__(
        self, stream: EventStream, encoder: ChunkEncoder, raw_send: Send, heartbeat: Heartbeat
    ) -> None:
        self._stream = stream
        self._encoder = encoder
        self._raw_send = raw_send
        self._heartbeat = heartbeat
        self._idle: asyncio.Future[None] | None = None
        """What the task waits for while there is nothing for it to do."""
        self._writing: Awaitable[None] | None = None
        """The rest of a write that the socket did not take at once."""

    async def first(self) -> bytes:
        """Wait for the first bytes; empty where there are none at all."""
        self._stream.on_ready = self._wake
        while not (chunk := self._next()) and not self._stream.is_finished:
            await self._wait()
        return chunk

    async def run(self, chunk: bytes) -> None:
        """Write, until everything has been taken.

        Args:
            chunk: what is already to be written.
        """
        self._stream.on_ready = self._push
        while True:
            if chunk:
                await self._raw_send(_body(chunk))
                self._heartbeat.last_write = _now()
            if self._stream.is_finished:
                return
            chunk = self._next()
            if not chunk and not self._stream.is_finished:
                await self._wait()
                if self._writing is not None:
                    writing, self._writing = self._writing, None
                    await writing
                    self._heartbeat.last_write = _now()
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
        """Write what is new at once, if nothing else is being written."""
        idle = self._idle
        if idle is None or idle.done():
            return
        if self._heartbeat.is_beating:
            idle.set_result(None)
            return
        try:
            if chunk := self._next():
                self._writing = run_to_pause(self._raw_send(_body(chunk)))
                self._heartbeat.last_write = _now()
        except Exception as error:  # noqa: BLE001 - for the task to deal with
            idle.set_exception(error)
        else:
            if self._writing is not None or self._stream.is_finished:
                idle.set_result(None)


def _body(chunk: bytes) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": True}


def _last(error: Exception) -> bytes:
    """What a stream that failed ends with."""
    if not isinstance(error, RillmError):
        logger.exception("a stream failed")
    body = error_body(error)
    if (record := CURRENT.get()) is not None:
        record.error = body.error.type
    return b"data: " + msgspec.json.encode(body) + b"\n\n" + DONE
