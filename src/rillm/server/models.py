"""The model this server serves: its names, GET /v1/models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.errors import ModelNotFoundError
from rillm.server.anthropic.errors import speaks_anthropic
from rillm.server.errors import JSON
from rillm.server.serving_engine import ServingEngine


class ServedModel:
    """The names callers may use for the one model that is loaded."""

    def __init__(self, names: Sequence[str], root: str, engine: ServingEngine) -> None:
        """Name the model.

        Args:
            names: at least one; the first is the answer's `model` when a request names none.
            root: the name or path the weights came from.
            engine: knows how long a context can be, finally once the engine is ready.
        """
        self.names = tuple(names)
        self._root = root
        self._engine = engine
        self._created = int(time.time())

    def resolve(self, requested: str | None) -> str:
        """The name to answer a request with.

        Raises:
            ModelNotFoundError: the request names another model.
        """
        if not requested:
            return self.names[0]
        if requested not in self.names:
            raise ModelNotFoundError(
                f"The model {requested!r} does not exist; this server has "
                + ", ".join(repr(name) for name in self.names),
                param="model",
            )
        return requested

    async def list_models(self, request: Request) -> Response:
        """GET /v1/models; to Anthropic's clients in the shape they read."""
        models: dict[str, Any]
        if speaks_anthropic(request.scope):
            data = [self._anthropic_card(name) for name in self.names]
            models = {"data": data, "has_more": False}
            models |= {"first_id": self.names[0], "last_id": self.names[-1]}
        else:
            models = {"object": "list", "data": [self._card(name) for name in self.names]}
        return Response(msgspec.json.encode(models), media_type=JSON)

    async def get_model(self, request: Request) -> Response:
        """GET /v1/models/{model}; as above."""
        name = self.resolve(request.path_params["model"])
        card = self._anthropic_card if speaks_anthropic(request.scope) else self._card
        return Response(msgspec.json.encode(card(name)), media_type=JSON)

    def _card(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "rillm",
            "root": self._root,
            "parent": None,
            "max_model_len": self._engine.max_model_len,
            "permission": [],
        }

    def _anthropic_card(self, name: str) -> dict[str, Any]:
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": datetime.fromtimestamp(self._created, UTC).isoformat(),
            "lifecycle": "active",
            "max_input_tokens": self._engine.max_model_len,
            "max_tokens": self._engine.max_model_len,
        }
