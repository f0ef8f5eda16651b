"""Reading a stream on after its connection has broken.

GET /v1/streams/{name} does it, and so does the request that began the stream when it is sent again
with the `Last-Event-ID` that its reader has seen, as clients of server-sent events do by
themselves. Source of the header and of ids: the HTML standard, section "Server-sent events".
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rillm.errors import InvalidRequestError
from rillm.server.access_log import CURRENT
from rillm.server.kept_streams import PARAM, KeptStreams
from rillm.server.sse import EventStreamResponse, GeneratedChunks

LAST_EVENT_ID: Final = "last-event-id"

STREAMS_PATH: Final = "/v1/streams/"

_MAX_DIGITS: Final = 16


class Resume:
    """The route."""

    def __init__(self, streams: KeptStreams) -> None:
        self._streams = streams

    async def get(self, http: Request) -> Response:
        """Tell the events of a stream from a number on, and then those to come.

        The number is that after `Last-Event-ID`, or `from`, or 0.

        Raises:
            RequestError: no such stream is kept, or not these events of it.
        """
        if last := http.headers.get(LAST_EVENT_ID):
            # A client that comes again keeps its address, `from` included.
            first = _number("Last-Event-ID", last.rpartition(":")[2]) + 1
        else:
            first = _number(PARAM, http.query_params.get(PARAM, "0"))
        stream = self._streams.find(http.path_params["name"])
        record = CURRENT.get()
        assert record is not None
        # Nothing can be refused any more: a silent stream may begin with a comment.
        record.is_admitted = True
        chunks = GeneratedChunks(self._streams.read(stream, first))
        return EventStreamResponse(chunks, stream.request_id, stream.form, is_replay=True)


class ResumedPosts:
    """Sends requests that come again with a `Last-Event-ID` to the route; passes others on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            name, colon, _ = Headers(scope=scope).get(LAST_EVENT_ID, "").rpartition(":")
            if colon:
                # What its body asks for was asked for the first time.
                path = STREAMS_PATH + name
                scope = {**scope, "method": "GET", "path": path, "raw_path": path.encode()}
        await self._app(scope, receive, send)


def _number(param: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise InvalidRequestError(f"{param} is {text!r}, must end in a number", param=param)
    return int(text)
