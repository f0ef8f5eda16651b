"""Comment lines on streams that have been silent, by wall clock since the last byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

PING: Final = b": ping\n\n"
"""A comment: every client of server-sent events drops it."""


class Timers(Protocol):
    """The part of an event loop that a heartbeat needs."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        """Call back once, in `delay` seconds."""

    def create_task(self, coroutine: Coroutine[Any, Any, None], /) -> asyncio.Task[None]:
        """Run a coroutine."""


class Heartbeat:
    """One timer for a whole stream: writing moves a number, and the timer looks at it.

    Attributes:
        last_write: monotonic seconds of the last byte; the writer sets it.
        is_beating: whether a comment line is being written.
    """

    __slots__ = (
        "_beat",
        "_beating",
        "_clock",
        "_seconds",
        "_timer",
        "_timers",
        "is_beating",
        "last_write",
    )

    def __init__(
        self,
        seconds: float,
        beat: Callable[[], Awaitable[None]],
        timers: Timers,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to watch; 0 seconds never beat.

        Args:
            seconds: longest silence.
            beat: writes a comment line.
            timers: the running event loop.
            clock: monotonic seconds.
        """
        self._seconds = seconds
        self._beat = beat
        self._timers = timers
        self._clock = clock
        self.last_write = clock()
        self.is_beating = False
        self._beating: asyncio.Task[None] | None = None
        self._timer = timers.call_later(seconds, self._look) if seconds else None

    async def settle(self) -> None:
        """Wait for a beat that is just being written."""
        if self._beating is not None:
            await self._beating

    def stop(self) -> None:
        """Beat no more; a beat that waits for its reader is given up."""
        if self._timer is not None:
            self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()

    def _look(self) -> None:
        delay = self.last_write + self._seconds - self._clock()
        if delay <= 0:
            delay = self._seconds
            # A reader that takes nothing gets one beat, not a heap of them.
            if self._beating is None:
                self.is_beating = True
                self._beating = self._timers.create_task(self._write())
        self._timer = self._timers.call_later(delay, self._look)

    async def _write(self) -> None:
        try:
            await self._beat()
            self.last_write = self._clock()
        finally:
            self.is_beating = False
            self._beating = None
