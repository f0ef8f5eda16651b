"""Settings of the backend's process. The string under a field is its help text."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rillm.errors import ConfigError

TOKEN_VARIABLE = "LOCALAI_GRPC_AUTH_TOKEN"
WATCH_VARIABLE = "LOCALAI_BACKEND_PARENT_WATCH"
INTERVAL_VARIABLE = "LOCALAI_BACKEND_PARENT_WATCH_INTERVAL"

_OFF = ("false", "0", "no", "off")
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_WATCH_INTERVAL_S = 2.0


@dataclass(frozen=True, kw_only=True)
class BackendConfig:
    """Where to listen, and when to stop."""

    addr: str = "127.0.0.1:50051"
    """HOST:PORT to listen on, without TLS; port 0 picks a free one."""
    exit_with_parent: bool = False
    """Stop when the process that started this one is gone; for backends that LocalAI starts."""


def auth_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The token that callers have to show; None where they need none."""
    return environment.get(TOKEN_VARIABLE) or None


def watch_interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two looks at the parent; None where the watch is switched off.

    Raises:
        ConfigError: the interval is not a duration.
    """
    if environment.get(WATCH_VARIABLE, "").strip().lower() in _OFF:
        return None
    text = environment.get(INTERVAL_VARIABLE, "").strip()
    if not text:
        return _WATCH_INTERVAL_S
    found = _DURATION.fullmatch(text)
    seconds = float(found["number"]) * _UNIT_S[found["unit"] or "s"] if found else 0.0
    if not seconds:
        raise ConfigError(f"{INTERVAL_VARIABLE} is {text!r}, must be a duration such as 2s or 0.5")
    return seconds
