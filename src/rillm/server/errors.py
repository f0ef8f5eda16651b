"""Errors on the wire: one table from class to status, one shape for the bodies of an API."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from rillm.errors import (
    CapacityError,
    DeadlineError,
    EngineDeadError,
    EngineError,
    InvalidRequestError,
    ItemNotFoundError,
    ModelNotFoundError,
    PoisonedRequestError,
    RateLimitError,
    RequestError,
    ShuttingDownError,
)
from rillm.server.access_log import CLIENT_CLOSED_REQUEST, CURRENT
from rillm.server.anthropic.errors import anthropic_error, anthropic_status, speaks_anthropic

JSON = "application/json"
_MAX_TEXT = 1000


class MalformedBodyError(InvalidRequestError):
    """The body is not JSON, or a field has the wrong JSON type."""


_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (MalformedBodyError, 400, "Bad Request"),
    (ModelNotFoundError, 404, "NotFoundError"),
    (ItemNotFoundError, 404, "NotFoundError"),
    (RequestError, 400, "BadRequestError"),
    (RateLimitError, 429, "RateLimitError"),
    (CapacityError, 503, "ServiceUnavailableError"),
    (DeadlineError, 504, "DeadlineExceededError"),
    (ClientDisconnect, CLIENT_CLOSED_REQUEST, "ClientClosedRequest"),
)
"""First match wins; what is not listed is our fault: 500."""

_PUBLIC_TEXT: tuple[tuple[type[Exception], str], ...] = (
    (EngineDeadError, "The engine has stopped. Please try again later."),
    (PoisonedRequestError, "This request stops the engine. It is not tried again."),
    (Exception, "Internal server error"),
)
"""What a caller is told of a 500: the cause is for the log."""


class ErrorDetail(msgspec.Struct, frozen=True):
    """The object under `error`."""

    message: str
    type: str
    param: str | None
    code: int
    """The HTTP status."""


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of a refusal, and the last data of a stream that failed."""

    error: ErrorDetail


def error_body(error: Exception) -> ErrorBody:
    """Describe `error` as the wire does.

    Args:
        error: of any class; what is not in the table becomes a 500 with a fixed text.
    """
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        return ErrorBody(ErrorDetail(error.detail, phrase, None, error.status_code))
    for kind, status, name in _STATUS:
        if isinstance(error, kind):
            param = error.param if isinstance(error, RequestError) else None
            param = param and _bounded(param)
            return ErrorBody(ErrorDetail(_bounded(str(error)), name, param, status))
    message = next(text for kind, text in _PUBLIC_TEXT if isinstance(error, kind))
    return ErrorBody(ErrorDetail(message, "InternalServerError", None, 500))


def _bounded(text: str) -> str:
    """A text that quotes a request, but not all of a long one."""
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."


def error_response(request: Request, error: Exception) -> Response:
    """Answer a request that failed before its response began; a Starlette handler."""
    body = error_body(error)
    if (record := CURRENT.get()) is not None:
        record.error = body.error.type
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if isinstance(error, CapacityError):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, DeadlineError):
        # OpenAI's and Anthropic's clients ask again after a 504, unless they are told not to.
        headers["X-Should-Retry"] = "false"
    if isinstance(error, ShuttingDownError):
        # Whoever comes again by the same connection would meet the same server.
        headers["Connection"] = "close"
    shown, status = msgspec.json.encode(body), body.error.code
    if speaks_anthropic(request.scope):
        shown = msgspec.json.encode(anthropic_error(status, body.error.message))
        status = anthropic_status(status)
    return Response(shown, status, headers=headers, media_type=JSON)


HANDLED: tuple[type[Exception], ...] = (
    RequestError,
    CapacityError,
    DeadlineError,
    EngineError,
    ClientDisconnect,
    HTTPException,
)
"""Answered without a traceback; anything else is logged by the server as well."""
