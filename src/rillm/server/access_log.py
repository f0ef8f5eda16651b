"""What is known of one HTTP request, and the line that is logged when it has ended."""

from __future__ import annotations

import logging
import re
import time
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
"""What callers may name a request."""
CLIENT_CLOSED_REQUEST: Final = 499
"""Nobody reads it; proxies and logs use this number for a caller that went away."""

_BARE = re.compile(r"[\w./:+-]+")

logger = logging.getLogger("rillm.requests")


@dataclass(slots=True)
class RequestRecord:
    """One request, from its first byte in to its last byte out; whoever learns more adds it."""

    method: str
    path: str
    request_id: str
    started: float = field(default_factory=time.monotonic)
    """Monotonic seconds."""
    status: int = 0
    """0 until the response begins."""
    timeout: str | None = None
    """Of the header `X-Request-Timeout`, not checked."""
    is_admitted: bool = False
    """The engine has taken all of it: no refusal follows, only tokens or a failure."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    first_token: float | None = None
    """Seconds from the start to the first token of any choice."""
    finish_reasons: list[str] = field(default_factory=list)
    aborted_by: Literal["client", "request", "server"] | None = None
    """`request`: another one asked for it."""
    is_detached: bool = False
    """The reader has gone; the stream goes on."""
    error: str | None = None
    """Type of the error the caller was told, as on the wire."""

    @property
    def outcome(self) -> str:
        """`completed`, `detached`, `aborted` or `error`."""
        if self.is_detached:
            return "detached"
        if self.aborted_by is not None or self.status == CLIENT_CLOSED_REQUEST:
            return "aborted"
        return "error" if self.error is not None or not 100 <= self.status < 400 else "completed"

    def fields(self, duration: float) -> dict[str, Any]:
        """What the log says; keys without a value are left out.

        Args:
            duration: seconds the request took.
        """
        first_token = None if self.first_token is None else round(self.first_token, 4)
        fields: dict[str, Any] = {
            "request_id": self.request_id,
            "outcome": self.outcome,
            "aborted_by": self.aborted_by,
            "error": self.error,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "prompt_tokens": self.prompt_tokens or None,
            "completion_tokens": self.completion_tokens if self.prompt_tokens else None,
            "cached_tokens": self.cached_tokens if self.prompt_tokens else None,
            "ttft_seconds": first_token,
            "duration_seconds": round(duration, 4),
            "finish_reasons": self.finish_reasons or None,
        }
        return {key: value for key, value in fields.items() if value is not None}


CURRENT: Final[ContextVar[RequestRecord | None]] = ContextVar("rillm_request", default=None)
"""The record of the request that the running task answers; None outside of one."""


def new_record(method: str, path: str, header: str | None) -> RequestRecord:
    """Begin the record of a request.

    Args:
        method: of HTTP.
        path: without query.
        header: the request's `X-Request-Id`; one that is not acceptable is not taken.
    """
    is_named = header is not None and REQUEST_ID.fullmatch(header)
    return RequestRecord(method, path, str(header) if is_named else uuid.uuid4().hex)


def log_request(record: RequestRecord, form: Literal["text", "json", "off"]) -> None:
    """Write the line of a request that has ended.

    Args:
        record: the request.
        form: `json` for one object with the time of day, `text` for key=value, `off` for nothing.
    """
    if form == "off" or not logger.isEnabledFor(logging.INFO):
        return
    fields = record.fields(time.monotonic() - record.started)
    if form == "json":
        line = msgspec.json.encode({"time": round(time.time(), 3)} | fields).decode()
    else:
        line = " ".join(f"{key}={_text(value)}" for key, value in fields.items())
    logger.info("%s", line)


def _text(value: Any) -> str:
    text = ",".join(value) if isinstance(value, list) else str(value)
    return text if _BARE.fullmatch(text) else msgspec.json.encode(text).decode()
