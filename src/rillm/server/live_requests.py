"""Requests that are being answered, by the ids that their callers know, and how to end them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.admission import CLIENT
from rillm.errors import ItemNotFoundError
from rillm.server.errors import JSON
from rillm.server.kept_streams import KeptStreams

_PREFIXES: Final = ("chatcmpl-", "cmpl-", "generate-tokens-")
"""What answers put before a request's id to make their own."""


class LiveRequests:
    """The engine's ids of each request: of a prompt each, and callers may use an id twice.

    A client, as `rillm.admission.CLIENT` names it, knows its own requests only.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], set[str]] = {}

    def add(self, client: str, request_id: str, name: str) -> None:
        """Note that the engine works on a request.

        Args:
            client: whose it is.
            request_id: of the request.
            name: the engine's id.
        """
        self._names.setdefault((client, request_id), set()).add(name)

    def remove(self, client: str, request_id: str, name: str) -> None:
        """Note that it does no more."""
        names = self._names[client, request_id]
        names.remove(name)
        if not names:
            del self._names[client, request_id]

    def names(self, id: str) -> list[str]:
        """The engine's ids of a request of the calling client, or of the request of an answer."""
        client = CLIENT.get()
        found = self._names.get((client, id)) or self._names.get((client, request_id_in(id)))
        return sorted(found or ())


def request_id_in(id: str) -> str:
    """The id of the request that an answer's id holds; any other as it is."""
    for prefix in _PREFIXES:
        if id.startswith(prefix):
            return id.removeprefix(prefix)
    return id


class CanAbort(Protocol):
    """The part of an engine that ends requests."""

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """End live requests; their streams yield a last output with finish reason `abort`."""


class Requests:
    """The routes that end a request from any connection."""

    def __init__(self, engine: CanAbort, live: LiveRequests, streams: KeptStreams) -> None:
        """Prepare the routes.

        Args:
            engine: what generates.
            live: what it works on.
            streams: those that are kept.
        """
        self._engine = engine
        self._live = live
        self._streams = streams

    async def cancel(self, http: Request) -> Response:
        """End a request: its answer ends with finish reason `abort`, and its usage.

        Raises:
            ItemNotFoundError: no request of that id is being answered.
        """
        id = http.path_params["id"]
        names = self._live.names(id)
        if not names:
            raise ItemNotFoundError(f"no request {id!r} is being answered")
        await self._engine.abort(names)
        return _told(id)

    async def delete(self, http: Request) -> Response:
        """End a request as `cancel` does, and keep nothing of its stream for later.

        Raises:
            ItemNotFoundError: no request of that id is being answered, and nothing is kept of one.
        """
        id = http.path_params["id"]
        names = self._live.names(id)
        if names:
            await self._engine.abort(names)
        try:
            self._streams.forget(request_id_in(id))
        except ItemNotFoundError:
            if not names:
                raise
        return _told(id)


def _told(id: str) -> Response:
    body = {"id": id, "object": "request", "status": "cancelled"}
    return Response(msgspec.json.encode(body), media_type=JSON)
