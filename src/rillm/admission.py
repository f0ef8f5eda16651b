"""How many requests may wait for an engine, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from rillm.errors import CapacityError, ConfigError

CLIENT: Final[ContextVar[str]] = ContextVar("rillm_client", default="")
"""Whose requests the running task makes, of those between whom the engine is shared fairly. Any
name; a face sets it, and has few of them."""


class Admission:
    """Lets requests in while there is room for them, to run or to wait.

    Args:
        max_running: choices that an engine runs at a time.
        max_waiting: choices that may wait beyond them.

    Raises:
        ConfigError: `max_waiting` is negative.
    """

    def __init__(self, max_running: int, max_waiting: int) -> None:
        if max_waiting < 0:
            raise ConfigError(f"max_waiting_requests is {max_waiting}, must be at least 0")
        self._limit = max_running + max_waiting
        self._num_entering = 0

    @contextmanager
    def enter(self, num_open: int) -> Iterator[None]:
        """Let a request in; it counts here as one until the engine counts its choices.

        Args:
            num_open: choices that the engine has and has not ended.

        Raises:
            CapacityError: there is no room.
        """
        if num_open + self._num_entering >= self._limit:
            raise CapacityError(
                f"{self._limit} requests run and wait, which is the most that this server takes; "
                "please try again later"
            )
        self._num_entering += 1
        try:
            yield
        finally:
            self._num_entering -= 1
