"""API keys: who may ask."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from rillm.admission import CLIENT
from rillm.server.errors import error_response
from rillm.server.paths import is_open, route_path

API_KEY_VARIABLE: Final = "RILLM_API_KEY"
"""Environment variable with one more key: what is on a command line, others on the machine see."""


class ApiKeys:
    """Lets through requests that show one of the keys; answers the others with 401.

    A key is shown as `Authorization: Bearer KEY`, or as `X-Api-Key: KEY` as Anthropic's clients
    do; where both are there, one that is right will do. Probes, metrics, documentation and the
    playground's page need none, and neither does a browser's preflight.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or is_open(route_path(scope)) or scope["method"] == "OPTIONS":
            await self._app(scope, receive, send)
            return
        if (number := self._shown_key(scope)) is not None:
            # Callers share the engine fairly; the name says which key, and nothing of it.
            client = CLIENT.set(f"key {number}")
            try:
                await self._app(scope, receive, send)
            finally:
                CLIENT.reset(client)
            return
        error = HTTPException(
            401,
            "Unauthorized: send a valid API key as 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error_response(Request(scope, receive), error)(scope, receive, send)

    def _shown_key(self, scope: Scope) -> int | None:
        """Which of the keys a request shows; None: none of them."""
        headers = Headers(scope=scope)
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        shown = [bearer if kind.lower() == "bearer" else "", headers.get("x-api-key", "")]
        digests = [_digest(each.strip().encode("latin-1")) for each in shown]
        # Every key is compared, whole: the time taken says nothing about any of them.
        matches = [hmac.compare_digest(each, known) for each in digests for known in self._digests]
        return matches.index(True) % len(self._digests) if sum(matches) else None


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
