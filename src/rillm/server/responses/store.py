"""Where responses are kept: one interface, bounded in number, bytes and age.

A record is opaque here. It holds the whole conversation, so that no other record is needed to go
on from it, and any may be dropped.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoreBounds:
    """What a store may hold; the oldest records go first."""

    max_count: int
    max_bytes: int
    max_age: float
    """Seconds since the record was last written."""


class ResponseStore(Protocol):
    """Records by the ids of responses."""

    async def put(self, id: str, record: bytes) -> None:
        """Keep a record in place of any other of this id; one larger than the store is not kept."""

    async def get(self, id: str) -> bytes | None:
        """The record; None where there is none, or none any more."""

    async def delete(self, id: str) -> bool:
        """Forget a record; returns whether there was one."""


class MemoryStore:
    """Keeps records as long as the process runs."""

    def __init__(self, bounds: StoreBounds, clock: Callable[[], float] = time.time) -> None:
        """Make an empty store.

        Args:
            bounds: of what is kept.
            clock: seconds.
        """
        self._bounds = bounds
        self._clock = clock
        self._records: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._num_bytes = 0

    async def put(self, id: str, record: bytes) -> None:
        """Keep a record."""
        self._remove(id)
        if len(record) > self._bounds.max_bytes:
            return
        self._records[id] = (self._clock(), record)
        self._num_bytes += len(record)
        while (
            len(self._records) > self._bounds.max_count or self._num_bytes > self._bounds.max_bytes
        ):
            self._remove(next(iter(self._records)))
        self._expire()

    async def get(self, id: str) -> bytes | None:
        """The record, if it is kept."""
        self._expire()
        found = self._records.get(id)
        return None if found is None else found[1]

    async def delete(self, id: str) -> bool:
        """Forget a record."""
        self._expire()
        return self._remove(id)

    def _expire(self) -> None:
        oldest = self._clock() - self._bounds.max_age
        while self._records:
            id, (written, _) = next(iter(self._records.items()))
            if written >= oldest:
                break
            self._remove(id)

    def _remove(self, id: str) -> bool:
        found = self._records.pop(id, None)
        if found is None:
            return False
        self._num_bytes -= len(found[1])
        return True
