"""POST /v1/responses, and what can be done with a response that is kept."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.errors import InvalidRequestError
from rillm.server.access_log import CURRENT
from rillm.server.context import TextContext, answer_stream
from rillm.server.errors import JSON, ErrorBody
from rillm.server.event_log import EventLog
from rillm.server.heartbeat import PING
from rillm.server.protocol import decode_body, read_body
from rillm.server.responses import events
from rillm.server.responses.answer import UNFINISHED, ResponseAnswer
from rillm.server.responses.background import BackgroundRun, BackgroundRuns
from rillm.server.responses.call import ResponseCall, new_response_call
from rillm.server.responses.encoder import ResponseEncoder
from rillm.server.responses.kept import Kept, KeptResponses
from rillm.server.responses.options import MEMORY, ResponseOptions
from rillm.server.responses.request import SEALED_REASONING, ResponsesRequest
from rillm.server.responses.sqlite_store import SqliteStore
from rillm.server.responses.store import MemoryStore, ResponseStore, StoreBounds
from rillm.server.sse import (
    EventStreamResponse,
    GeneratedChunks,
    StreamForm,
    json_response,
    until_disconnect,
)
from rillm.streams import EventStream

MAX_PAGE: Final = 100
DEFAULT_PAGE: Final = 20

_MAX_NUMBER: Final = 2**53
_MAX_DIGITS: Final = 16


def open_store(options: ResponseOptions) -> ResponseStore:
    """The store an operator has chosen.

    Raises:
        ConfigError: its file cannot be used.
    """
    bounds = StoreBounds(
        options.response_store_count, options.response_store_bytes, options.response_store_seconds
    )
    if options.response_store == MEMORY:
        return MemoryStore(bounds)
    return SqliteStore(Path(options.response_store), bounds)


class Responses:
    """The routes, for one model."""

    def __init__(self, context: TextContext, store: ResponseStore) -> None:
        """Prepare the routes.

        Args:
            context: the model's.
            store: where responses are kept.
        """
        self._context = context
        self._runs = BackgroundRuns()
        self._kept = KeptResponses(store, self._runs)
        self._decoder = msgspec.json.Decoder(ResponsesRequest)

    async def create(self, http: Request) -> Response:
        """Answer one request.

        Raises:
            RillmError: the request is refused, or generation failed before its first output.
        """
        body = await read_body(http)
        request = decode_body(body, self._decoder)
        call = await new_response_call(
            http, request, self._context, self._kept, num_bytes=len(body)
        )
        request_id = call.chat.request_id
        stream = EventStream(self._context.engine, [call.chat.generation])
        encoder = ResponseEncoder(_answer(call), stream, self._context.tokenizer)
        if request.background:
            return await self._start(call, stream, encoder)
        keep = self._keeper(call)
        if request.stream:
            return answer_stream(
                stream,
                encoder,
                request_id,
                StreamForm(PING, encoder.fail),
                before_end=lambda: keep(encoder.response),
            )
        await until_disconnect(http.receive, stream.read_to_end(encoder.encode))
        encoder.end()
        await keep(encoder.response)
        return json_response(msgspec.json.encode(encoder.response), request_id)

    async def retrieve(self, http: Request) -> Response:
        """GET a response, or its events after a number.

        Raises:
            RequestError: there is none of that id, or its events are not kept.
        """
        is_stream = _flag(http, "stream")
        after = _number(http, "starting_after", 0, _MAX_NUMBER, -1)
        if after >= 0 and not is_stream:
            raise InvalidRequestError(
                "starting_after is set, must be absent unless stream is true",
                param="starting_after",
            )
        id = http.path_params["response_id"]
        kept = await self._kept.find(id)
        if not is_stream:
            return Response(msgspec.json.encode(kept.response), media_type=JSON)
        log = self._runs.log(id)
        if log is None:
            raise InvalidRequestError(
                f"stream is true, but the events of {id!r} are not kept: they are for responses "
                "made in the background, for a while",
                param="stream",
            )
        log.check(after + 1)
        record = CURRENT.get()
        assert record is not None
        # Nothing can be refused any more: a silent stream may begin with a comment.
        record.is_admitted = True
        return _told(log, after + 1, record.request_id)

    async def delete(self, http: Request) -> Response:
        """DELETE a response; one that is still being made ends.

        Raises:
            ItemNotFoundError: there is none of that id.
        """
        id = http.path_params["response_id"]
        await self._kept.delete(id)
        return _json({"id": id, "object": "response", "deleted": True})

    async def cancel(self, http: Request) -> Response:
        """End a response that is being made in the background.

        Raises:
            RequestError: there is none of that id, or it is not such a response.
        """
        id = http.path_params["response_id"]
        kept = await self._kept.find(id)
        response = kept.response
        if (run := self._runs.live(id)) is not None and response["status"] in UNFINISHED:
            await run.cancel()
            response = run.response
        elif response["status"] != "cancelled":
            raise InvalidRequestError(
                f"response {id!r} is {response['status']}: only one that is being made in the "
                "background can be cancelled",
                param="response_id",
            )
        return _json(response)

    async def list_input_items(self, http: Request) -> Response:
        """GET the items that a response answers, newest first.

        Raises:
            RequestError: there is none of that id, or a query parameter is out of range.
        """
        limit = _number(http, "limit", 1, MAX_PAGE, DEFAULT_PAGE)
        order = http.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InvalidRequestError(f"order is {order!r}, must be 'asc' or 'desc'", param="order")
        kept = await self._kept.find(http.path_params["response_id"])
        items = kept.input if order == "asc" else kept.input[::-1]
        if (after := http.query_params.get("after")) is not None:
            ids = [item["id"] for item in items]
            if after not in ids:
                raise InvalidRequestError(
                    f"after is {after!r}, must be the id of an item of this list", param="after"
                )
            items = items[ids.index(after) + 1 :]
        page = items[:limit]
        return _json(
            {
                "object": "list",
                "data": page,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
                "has_more": len(items) > len(page),
            }
        )

    async def _start(
        self, call: ResponseCall, stream: EventStream, encoder: ResponseEncoder
    ) -> Response:
        """Make a response in the background; answer with what is known, or with its events."""
        self._runs.check_room()
        keep = self._keeper(call)
        await keep(encoder.response)
        run = BackgroundRun(stream, encoder, keep)
        self._runs.add(call.id, run)
        if call.request.stream:
            return _told(run.log, 0, call.chat.request_id)
        return json_response(msgspec.json.encode(run.response), call.chat.request_id)

    def _keeper(self, call: ResponseCall) -> Callable[[dict[str, Any]], Awaitable[None]]:
        async def keep(response: dict[str, Any]) -> None:
            if call.request.is_stored:
                await self._kept.keep(Kept(response, call.input))

        return keep


def _answer(call: ResponseCall) -> ResponseAnswer:
    return ResponseAnswer(
        id=call.id,
        created=int(time.time()),
        model=call.chat.model,
        request=call.request,
        params=call.chat.generation.sampling_params,
        custom_tools=call.tools.custom,
        is_sealed=SEALED_REASONING in (call.request.include or ()),
    )


def _late_error(body: ErrorBody) -> bytes:
    """What a reader of a log is told when it cannot go on."""
    detail = body.error
    fields = {"code": detail.type, "message": detail.message, "param": detail.param}
    return events.frame(events.ERROR, {"sequence_number": 0} | fields)


_LOG: Final = StreamForm(PING, _late_error)


def _told(log: EventLog, first: int, request_id: str) -> Response:
    chunks = GeneratedChunks(log.follow(first))
    return EventStreamResponse(chunks, request_id, _LOG, is_replay=True)


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type=JSON)


def _flag(http: Request, name: str) -> bool:
    value = http.query_params.get(name, "false")
    if value not in ("true", "false"):
        raise InvalidRequestError(f"{name} is {value!r}, must be 'true' or 'false'", param=name)
    return value == "true"


def _number(http: Request, name: str, least: int, most: int, default: int) -> int:
    value = http.query_params.get(name)
    if value is None:
        return default
    is_number = value.isascii() and value.isdecimal() and len(value) <= _MAX_DIGITS
    number = int(value) if is_number else -1
    if not least <= number <= most:
        raise InvalidRequestError(
            f"{name} is {value!r}, must be an integer from {least} to {most}", param=name
        )
    return number
