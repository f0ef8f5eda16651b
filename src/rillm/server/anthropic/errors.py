"""Errors in Anthropic's shape, and which requests are answered in it.

Source: Anthropic's API reference (errors).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from starlette.types import Scope

from rillm.server.access_log import CURRENT
from rillm.server.paths import route_path

_MESSAGES: Final = "/v1/messages"
_MODELS: Final = "/v1/models"
_VERSION_HEADER: Final = b"anthropic-version"

OVERLOADED: Final = 529
"""Anthropic's own number for 503; its clients know no other."""

ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}
"""By HTTP status; others below 500 are the request's fault, the rest ours."""


class AnthropicErrorDetail(msgspec.Struct, frozen=True):
    """The object under `error`."""

    type: str
    message: str


class AnthropicErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a refusal to Anthropic's clients, and the last event of a stream that failed."""

    type: Literal["error"] = "error"
    error: AnthropicErrorDetail
    request_id: str | None
    """As in the header `request-id`."""


def speaks_anthropic(scope: Scope) -> bool:
    """Whether a request is one of Anthropic's API.

    All of `/v1/messages` is; the list of models is where the header `anthropic-version` says so.
    """
    path = route_path(scope)
    if path == _MESSAGES or path.startswith(_MESSAGES + "/"):
        return True
    if path != _MODELS and not path.startswith(_MODELS + "/"):
        return False
    return any(name == _VERSION_HEADER for name, _ in scope["headers"])


def anthropic_status(status: int) -> int:
    """The status under which Anthropic's clients know what HTTP calls `status`."""
    return OVERLOADED if status == 503 else status


def anthropic_error(status: int, message: str) -> AnthropicErrorBody:
    """Describe an error; the request's record gets its type.

    Args:
        status: of HTTP, or the one it would have had before the stream began.
        message: for the caller.
    """
    status = anthropic_status(status)
    kind = ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    record = CURRENT.get()
    if record is not None:
        record.error = kind
    return AnthropicErrorBody(
        error=AnthropicErrorDetail(kind, message),
        request_id=None if record is None else record.request_id,
    )
