"""Paths that are not for callers of the model: probes, metrics, documentation."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

PROBE_PATHS: Final = frozenset({"/health", "/ready", "/ping", "/version", "/metrics", "/load"})
"""Asked over and over by machines: neither logged nor counted."""
OPEN_PATHS: Final = PROBE_PATHS | {"/docs", "/openapi.json"}
"""Answered without an API key."""


def route_path(scope: Scope) -> str:
    """The path within the application, without the root path a proxy shows it under."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(root + "/") else path
