"""Until when a request has to be answered, if its caller says so."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from rillm.errors import DeadlineError, InvalidRequestError, RillmError
from rillm.server.access_log import RequestRecord

TIMEOUT_HEADER: Final = "X-Request-Timeout"
MAX_TIMEOUT_S: Final = 86400

T = TypeVar("T")

_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")


class Deadline:
    """The end of the time that a request may take, from its first byte in."""

    def __init__(self, record: RequestRecord | None) -> None:
        """Read what the caller has said.

        Args:
            record: the request's; None where no caller waits.

        Raises:
            InvalidRequestError: the header is no number of seconds, or out of range.
        """
        self._ends_s: float | None = None
        self._timeout = header = None if record is None else record.timeout
        if record is None or header is None:
            return
        timeout_s = float(header) if _SECONDS.fullmatch(header) else 0.0
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise InvalidRequestError(
                f"{TIMEOUT_HEADER} is {header!r}, must be a number of seconds above 0 and at most "
                f"{MAX_TIMEOUT_S}",
                param=TIMEOUT_HEADER,
            )
        self._ends_s = record.started + timeout_s

    async def wait_for(self, work: Awaitable[T]) -> T:
        """Await something that belongs to the request.

        Raises:
            DeadlineError: it was not done in time, and has been cancelled.
        """
        if self._ends_s is None:
            return await work
        try:
            async with asyncio.timeout(self._ends_s - time.monotonic()):
                return await work
        except TimeoutError:
            raise self._error() from None

    def watch(self, fail: Callable[[RillmError], None]) -> Callable[[], None]:
        """Call back when the time is over.

        Returns:
            Calls that off.
        """
        if self._ends_s is None:
            return _nothing
        delay = self._ends_s - time.monotonic()
        return asyncio.get_running_loop().call_later(delay, lambda: fail(self._error())).cancel

    def _error(self) -> DeadlineError:
        return DeadlineError(f"the request was not done within its {self._timeout} seconds")


def _nothing() -> None:
    """There is no timer."""
