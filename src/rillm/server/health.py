"""GET /health, /ready, /load and /version: whether the engine serves, how busy, and what it is."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm import __version__
from rillm.server.errors import JSON
from rillm.server.intake import Intake
from rillm.server.serving_engine import ServingEngine


class Health:
    """The routes, for one engine."""

    def __init__(self, engine: ServingEngine, intake: Intake) -> None:
        """Answer for an engine.

        Args:
            engine: the engine.
            intake: what is being answered.
        """
        self._engine = engine
        self._intake = intake

    async def get_health(self, _: Request) -> Response:
        """200 when requests are served at once; 503 otherwise, with a status that says why."""
        status = self._status()
        body = msgspec.json.encode({"status": status})
        return Response(body, 200 if status == "ok" else 503, media_type=JSON)

    async def get_ready(self, _: Request) -> Response:
        """200 when a request would be served at once; 503 before that, and after a failure."""
        is_ready = self._status() == "ok"
        body = msgspec.json.encode({"ready": is_ready})
        return Response(body, 200 if is_ready else 503, media_type=JSON)

    def _status(self) -> Literal["ok", "loading", "restarting", "draining", "dead"]:
        if self._engine.errored:
            return "dead"
        if self._intake.is_draining:
            return "draining"
        if self._engine.ready_info is None:
            return "loading"
        return "restarting" if self._engine.is_restarting else "ok"

    async def get_load(self, _: Request) -> Response:
        """How many requests are being answered; probes are not counted."""
        return Response(
            msgspec.json.encode({"server_load": self._intake.num_answers}), media_type=JSON
        )

    async def get_version(self, _: Request) -> Response:
        """Which rillm this is."""
        return Response(msgspec.json.encode({"version": __version__}), media_type=JSON)
