"""Events that have been told, for readers that come later or again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from rillm.errors import InvalidRequestError


class EventLog:
    """The events of one stream, numbered from 0; the oldest go where there are too many.

    Attributes:
        num_bytes: of what is kept.
        is_closed: whether nothing follows.
    """

    def __init__(
        self, param: str, max_bytes: int | None = None, *, is_inclusive: bool = False
    ) -> None:
        """Begin a log.

        Args:
            param: how callers call the number that they want to read on from.
            max_bytes: the oldest events go above it; None: none goes by itself.
            is_inclusive: that number is of the first event they want, not of the last they had.
        """
        self.num_bytes = 0
        self.is_closed = False
        self._param = param
        self._max_bytes = max_bytes
        self._shift = 0 if is_inclusive else -1
        self._events: list[bytes] = []
        self._first = 0
        """The number of the oldest event that is kept."""
        self._places: dict[object, int] = {}
        """For each reader the number of the event that it takes next."""
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Events so far, those that are kept no more included."""
        return self._first + len(self._events)

    def append(self, events: list[bytes], *, is_last: bool = False) -> None:
        """Add events, and say whether more can follow."""
        self._events += events
        self.num_bytes += sum(map(len, events))
        if self._max_bytes is not None and self.num_bytes > self._max_bytes:
            self._drop_oldest(self._max_bytes * 3 // 4)
        self.is_closed = is_last
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _drop_oldest(self, max_bytes: int) -> None:
        """Drop more than has to be, so that dropping is rare."""
        num_dropped, num_bytes = 0, self.num_bytes
        while num_bytes > max_bytes and num_dropped < len(self._events) - 1:
            num_bytes -= len(self._events[num_dropped])
            num_dropped += 1
        self.drop_before(self._first + num_dropped)

    def drop_before(self, number: int) -> None:
        """Keep no event below a number."""
        num_dropped = number - self._first
        if num_dropped > 0:
            self.num_bytes -= sum(map(len, self._events[:num_dropped]))
            del self._events[:num_dropped]
            self._first = number

    def check(self, first: int) -> None:
        """Check that all events from a number on are there.

        Raises:
            InvalidRequestError: some of them are kept no more, or the number is too large.
        """
        if not self._first <= first <= len(self):
            shift = self._shift
            raise InvalidRequestError(
                f"{self._param} is {first + shift}, must be from {self._first + shift} to "
                f"{len(self) + shift}: only those events are kept",
                param=self._param,
            )

    def drop_taken(self) -> None:
        """Keep only what some reader has not taken yet."""
        self.drop_before(min(self._places.values(), default=len(self)))

    async def follow(self, first: int, tag: bytes = b"") -> AsyncGenerator[bytes, None]:
        """Tell the events from a number on, those to come included.

        Args:
            first: number of the first one; `check` says whether it is there.
            tag: of the ids that the events get, each followed by the event's number; none where
                empty.

        Raises:
            InvalidRequestError: the reader is so slow that what comes next is kept no more.
        """
        me = object()
        place = first
        try:
            while True:
                self._places[me] = place
                if place < self._first:
                    self.check(place)
                if new := self._events[place - self._first :]:
                    numbered = enumerate(new, start=place)
                    place += len(new)
                    yield b"".join(
                        [b"id: %b:%d\n%b" % (tag, number, event) for number, event in numbered]
                        if tag
                        else new
                    )
                elif self.is_closed:
                    return
                else:
                    await self._changed.wait()
        finally:
            self._places.pop(me, None)
