"""WaitingQueue: who runs next, fairly between clients.

Each client has a counter of what it was served: tokens of prompts computed, and tokens generated,
which weigh more. Among requests of equal priority the one of the client with the least counter
goes first. Whoever comes after a pause begins at the least counter of those that wait: a pause
earns nothing. So clients that always have something waiting get equal shares, however many
requests each of them sends, and nobody is passed over for ever.

With a single client this is the order of arrival.

Source: the virtual token counter of Sheng et al. 2024 (Fairness in Serving Large Language Models,
OSDI).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

from rillm.engine.sequence import Sequence

OUTPUT_WEIGHT: Final = 2
"""Of a generated token; one of a prompt weighs 1."""
MAX_IDLE_CLIENTS: Final = 1024
"""Clients without a waiting request whose counters are kept."""

_by_order = attrgetter("order")


@dataclass(slots=True, eq=False)
class _Client:
    served: int = 0
    """Weighted tokens."""
    waiting: list[Sequence] = field(default_factory=list)
    """In order of priority and arrival."""


class WaitingQueue:
    """The sequences that wait, new ones and preempted ones."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        self._waiting: dict[str, _Client] = {}
        """Those of them that have a waiting sequence."""
        self._floor = 0
        """The counter of the last client that had one."""

    def __len__(self) -> int:
        return sum(len(client.waiting) for client in self._waiting.values())

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        for client in self._waiting.values():
            yield from client.waiting

    def __contains__(self, sequence: Sequence) -> bool:
        client = self._waiting.get(sequence.request.client)
        return client is not None and sequence in client.waiting

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait."""
        name = sequence.request.client
        client = self._clients.get(name)
        if client is None:
            if len(self._clients) - len(self._waiting) >= MAX_IDLE_CLIENTS:
                self._forget_some()
            client = self._clients[name] = _Client()
        if not client.waiting:
            if not sequence.has_begun:
                client.served = max(client.served, self._least())
            self._waiting[name] = client
        insort(client.waiting, sequence, key=_by_order)

    def remove(self, sequence: Sequence) -> None:
        """Take out a sequence that waits: it is to run, or was aborted."""
        client = self._waiting[sequence.request.client]
        client.waiting.remove(sequence)
        if not client.waiting:
            del self._waiting[sequence.request.client]
            self._floor = client.served

    def first(self) -> Sequence:
        """Who is to run next; there must be somebody.

        Within a priority, what has begun and was preempted goes on before anything new begins.
        """
        return min(self._waiting.values(), key=_claim).waiting[0]

    def charge(self, name: str, num_tokens: int) -> None:
        """Count weighted tokens that a client has been served."""
        client = self._clients.get(name)
        if client is not None:
            client.served += num_tokens

    def _least(self) -> int:
        counters = (client.served for client in self._waiting.values())
        return min(counters, default=self._floor)

    def _forget_some(self) -> None:
        """Forget the clients that lose least by it: they begin at the least counter anyway."""
        idle = [name for name in self._clients if name not in self._waiting]
        idle.sort(key=lambda name: self._clients[name].served)
        for name in idle[: len(idle) // 2 + 1]:
            del self._clients[name]


def _claim(client: _Client) -> tuple[int, bool, int, int]:
    head = client.waiting[0]
    return head.request.priority, not head.has_begun, client.served, head.arrival
