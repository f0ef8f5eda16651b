"""Paths that are not for callers of the model: probes, metrics, documentation, the playground."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

PLAYGROUND_PREFIX: Final = "/playground/"
"""Of the files that the page at `/` is made of."""
PROBE_PATHS: Final = frozenset({"/health", "/ready", "/ping", "/version", "/metrics", "/load"})
"""Asked over and over by machines."""
OPEN_PATHS: Final = PROBE_PATHS | {"/", "/docs", "/openapi.json"}


def is_open(path: str) -> bool:
    """Whether a path within the application is answered without an API key."""
    return path in OPEN_PATHS or path.startswith(PLAYGROUND_PREFIX)


def is_quiet(path: str) -> bool:
    """Whether requests for a path are neither logged nor counted."""
    return path in PROBE_PATHS or path.startswith(PLAYGROUND_PREFIX)


def route_path(scope: Scope) -> str:
    """The path within the application, without the root path a proxy shows it under."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if not root or not (path == root or path.startswith(root + "/")):
        return path
    return path.removeprefix(root) or "/"
