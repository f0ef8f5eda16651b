"""Responses that go on without their callers, and the logs of their events.

A run is a task of its own: whoever reads its log may come, leave and come again.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from rillm.errors import CapacityError
from rillm.server.access_log import CURRENT
from rillm.server.event_log import EventLog
from rillm.server.responses.encoder import ResponseEncoder
from rillm.server.sse import described
from rillm.streams import ChoiceDelta, EventStream

MAX_LIVE: Final = 1024
"""Background responses that may wait or run at a time: no connection holds them back."""
MAX_LOG_BYTES: Final = 8 * 2**20
"""Bytes of events that are kept of one response."""
MAX_KEPT_BYTES: Final = 64 * 2**20
"""Bytes of events that are kept of all responses that have ended."""

Keep = Callable[[dict[str, Any]], Awaitable[None]]
"""Puts a response into the store."""


class BackgroundRun:
    """One response, and the task that makes it.

    Attributes:
        log: its events.
    """

    def __init__(self, stream: EventStream, encoder: ResponseEncoder, keep: Keep) -> None:
        """Begin.

        Args:
            stream: not read yet.
            encoder: of that stream.
            keep: puts the response into the store, when it has ended.
        """
        self.log = EventLog("starting_after", MAX_LOG_BYTES)
        self.log.append(encoder.queue())
        self._stream = stream
        self._encoder = encoder
        self._keep = keep
        self._is_cancelled = self._is_ending = False
        # The record of the request that began it is written when that has been answered.
        context = contextvars.copy_context()
        context.run(CURRENT.set, None)
        self._task = asyncio.get_running_loop().create_task(self._run(), context=context)

    @property
    def response(self) -> dict[str, Any]:
        """The response object as it is now."""
        return self._encoder.response

    def on_end(self, call: Callable[[], None]) -> None:
        """Call back when it has ended."""
        self._task.add_done_callback(lambda _: call())

    async def cancel(self) -> None:
        """End it, and wait until it has ended."""
        # A task that has not begun would end without a word.
        await asyncio.sleep(0)
        if not self._is_ending:
            self._is_cancelled = True
            self._task.cancel()
        await asyncio.wait([self._task])

    def _take(self, deltas: Sequence[ChoiceDelta]) -> None:
        if events := self._encoder.events(deltas):
            self.log.append(events)

    async def _run(self) -> None:
        try:
            await self._stream.read_to_end(self._take)
            last = self._encoder.finish()
        except asyncio.CancelledError:
            if not self._is_cancelled:
                raise
            last = self._encoder.cancel()
        except Exception as error:  # noqa: BLE001 - it has no caller left to raise to
            last = self._encoder.failure(described(error))
        self._is_ending = True
        await self._keep(self._encoder.response)
        self.log.append(last, is_last=True)


class BackgroundRuns:
    """All runs by their responses' ids; of those that have ended, the newest logs are kept."""

    def __init__(self) -> None:
        self._live: dict[str, BackgroundRun] = {}
        self._ended: OrderedDict[str, EventLog] = OrderedDict()

    def check_room(self) -> None:
        """Check that one more may begin.

        Raises:
            CapacityError: there are too many.
        """
        if len(self._live) >= MAX_LIVE:
            raise CapacityError(f"{MAX_LIVE} background responses are waiting or running")

    def add(self, id: str, run: BackgroundRun) -> None:
        """Keep a run that has just begun."""
        self._live[id] = run
        run.on_end(lambda: self._end(id))

    def live(self, id: str) -> BackgroundRun | None:
        """The run of a response that has not ended."""
        return self._live.get(id)

    def log(self, id: str) -> EventLog | None:
        """The events of a response; None where they are not kept."""
        run = self._live.get(id)
        return self._ended.get(id) if run is None else run.log

    async def remove(self, id: str) -> None:
        """End a run and forget its events."""
        if (run := self._live.get(id)) is not None:
            await run.cancel()
        self._ended.pop(id, None)

    def _end(self, id: str) -> None:
        self._ended[id] = self._live.pop(id).log
        num_bytes = sum(log.num_bytes for log in self._ended.values())
        while num_bytes > MAX_KEPT_BYTES:
            _, oldest = self._ended.popitem(last=False)
            num_bytes -= oldest.num_bytes
