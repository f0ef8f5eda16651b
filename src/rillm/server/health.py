"""GET /health and /version: whether the engine serves, and what it is."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm import __version__
from rillm.server.errors import JSON
from rillm.server.serving_engine import ServingEngine


class Health:
    """The routes, for one engine."""

    def __init__(self, engine: ServingEngine) -> None:
        self._engine = engine

    async def get_health(self, _: Request) -> Response:
        """200 when requests are served at once; 503 while loading and when the engine is dead."""
        is_ready = self._engine.ready_info is not None
        status = "dead" if self._engine.errored else "ok" if is_ready else "loading"
        body = msgspec.json.encode({"status": status})
        return Response(body, 200 if status == "ok" else 503, media_type=JSON)

    async def get_version(self, _: Request) -> Response:
        """Which rillm this is."""
        return Response(msgspec.json.encode({"version": __version__}), media_type=JSON)
