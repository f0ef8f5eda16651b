"""Responses that end when their reader goes away: server-sent events and whole bodies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rillm.errors import RillmError
from rillm.server.access_log import CURRENT
from rillm.server.errors import JSON, ErrorBody, error_body
from rillm.server.heartbeat import PING, Heartbeat
from rillm.server.options import options_of

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


class EventStreamResponse(Response):
    """Sends each item of a generator as one write, headers with the first.

    The first item is awaited before the status line, so that what is refused lazily still gets
    a status of its own. After it, an error is the stream's last data.

    A stream that has been silent for the application's `heartbeat_seconds` gets a ping, which is
    a comment line in most forms. Where even the first item takes longer than that, headers go out
    with it, once the engine has taken the request: no refusal can follow then, only a failure.
    """

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], request_id: str, form: StreamForm = OPENAI
    ) -> None:
        super().__init__()
        self._chunks = chunks
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
            ClientDisconnect: the client went away before the first chunk.
            Exception: what the generator raised before its first chunk.
        """
        seconds = options_of(scope).heartbeat_seconds
        try:
            await until_disconnect(receive, self._stream(send, scope[RAW_SEND], seconds))
        except ClientDisconnect:
            if not self._started:
                raise

    async def _stream(self, send: Send, raw_send: Send, seconds: float) -> None:
        async def beat() -> None:
            if not self._started:
                record = CURRENT.get()
                if record is None or not record.is_admitted:
                    return
                await self._start(send)
            ping = self._form.ping
            await raw_send({"type": "http.response.body", "body": ping, "more_body": True})

        heartbeat = Heartbeat(seconds, beat, asyncio.get_running_loop())
        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    if not self._started:
                        await heartbeat.settle()
                        await self._start(send)
                    await raw_send({"type": "http.response.body", "body": chunk, "more_body": True})
                    heartbeat.last_write = _now()
        except Exception as error:
            await heartbeat.settle()
            if not self._started:
                raise
            last = self._form.failure(described(error))
            await raw_send({"type": "http.response.body", "body": last, "more_body": True})
        finally:
            heartbeat.stop()
        await self._start(send)
        await raw_send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        """Send status and headers, through all that wants to add to them."""
        if not self._started:
            await send(self._start_message)
            self._started = True


def described(error: Exception) -> ErrorBody:
    """What is told of an error that ended a stream; the log gets it, too."""
    if not isinstance(error, RillmError):
        logger.error("a stream failed", exc_info=error)
    body = error_body(error)
    if (record := CURRENT.get()) is not None:
        record.error = body.error.type
    return body
