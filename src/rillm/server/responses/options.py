"""What an operator can choose about responses that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rillm.errors import ConfigError

MEMORY: Final = "memory"


@dataclass(frozen=True, kw_only=True)
class ResponseOptions:
    """Settings of the store. The string under a field is its help text."""

    response_store: str = MEMORY
    """Where responses of /v1/responses are kept: `memory`, or the path of an SQLite file that no
    other server uses."""
    response_store_count: int = 10_000
    """Most responses to keep; the oldest go first."""
    response_store_bytes: int = 256 * 2**20
    """Most bytes of responses to keep; each holds its whole conversation."""
    response_store_seconds: float = 30 * 86400.0
    """Longest time to keep a response."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: one is out of its range.
        """
        for name in ("response_store_count", "response_store_bytes", "response_store_seconds"):
            # Written so that NaN fails, too.
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, must be above 0")
        if not self.response_store:
            raise ConfigError("response_store is empty, must be 'memory' or a path")
