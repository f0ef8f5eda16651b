"""Responses that end when their reader goes away: server-sent events and whole bodies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rillm.errors import RillmError
from rillm.server.errors import JSON, error_body

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


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, cancelling it when the client goes away.

    Args:
        receive: the ASGI channel, the request's body already read from it.
        work: what answers the request.

    Raises:
        ClientDisconnect: the client went away first; `work` has been cancelled and has ended.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(_raise_on_disconnect(receive))
            result = await work
            watcher.cancel()
    except ExceptionGroup as group:
        # One failure ends both sides, so the group holds the cause first.
        raise group.exceptions[0] from None
    return result


async def _raise_on_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


def json_response(body: bytes, request_id: str) -> Response:
    """Answer a generation request with a whole body."""
    return Response(body, headers={"X-Request-Id": request_id}, media_type=JSON)


class EventStreamResponse(Response):
    """Sends each item of a generator as one write, headers with the first.

    The first item is awaited before the status line, so that what is refused lazily still gets
    a status of its own. After it, an error is the stream's last data, followed by `[DONE]`.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], request_id: str) -> None:
        super().__init__()
        self._chunks = chunks
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
        try:
            await until_disconnect(receive, self._stream(scope[RAW_SEND]))
        except ClientDisconnect:
            if not self._started:
                raise

    async def _stream(self, send: Send) -> None:
        async with aclosing(self._chunks) as chunks:
            chunk: bytes | None = await anext(chunks)
            self._started = True
            await send(self._start_message)
            try:
                while chunk is not None:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    chunk = await anext(chunks, None)
            except Exception as error:
                if not isinstance(error, RillmError):
                    logger.exception("a stream failed")
                chunk = b"data: " + msgspec.json.encode(error_body(error)) + b"\n\n" + DONE
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
