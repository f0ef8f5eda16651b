"""Journal: what it takes to go on with every live request when the core is gone.

An entry holds the request and the tokens delivered of each open choice. A draw depends on (seed,
choice, position) only, so prompt, delivered tokens and params say all there is to say about what
comes next. The cost is the extension of a list for each delta; the memory is bounded by what live
requests have been given.

It also keeps the record of who was there when a core died. A request that was in a step with
others when the core died is a suspect: the next core runs it alone until it has got a token. If
that core crashes too, the suspect did it. A kill or a hang may come from outside, and may hit
anybody: there it takes a second one, at the same place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from rillm.engine.messages import EngineRequest, Replay, RequestTimes, TokenDelta
from rillm.errors import EngineError, PoisonedRequestError

Sink = Callable[[TokenDelta | EngineError], None]
"""Takes each delta of one request; an error is the last thing it gets."""

_GUILTY = 2
_MOST_REFUSED = 1024
"""Requests remembered as deadly; the oldest are forgotten first."""


@dataclass(slots=True)
class _Entry:
    request: EngineRequest
    sink: Sink
    outputs: dict[int, list[int]]
    """Delivered tokens of each open choice."""
    times: RequestTimes | None = None
    unproven: set[int] = field(default_factory=set)
    """Choices that have got no token since they were in the step of a core that died."""
    guilt: int = 0


class Journal:
    """All live requests of one engine."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._refused: dict[bytes, None] = {}
        self._num_open_choices = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_open(self) -> int:
        """Requests that the core has not ended."""
        return sum(bool(entry.outputs) for entry in self._entries.values())

    @property
    def num_open_choices(self) -> int:
        """Choices that the core has not ended."""
        return self._num_open_choices

    @property
    def num_tokens(self) -> int:
        """Delivered tokens that are kept."""
        entries = self._entries.values()
        return sum(len(tokens) for entry in entries for tokens in entry.outputs.values())

    def add(self, request: EngineRequest, sink: Sink) -> None:
        """Begin with a request.

        Raises:
            PoisonedRequestError: an equal one has stopped the core.
        """
        if self._refused and _fingerprint(request) in self._refused:
            raise PoisonedRequestError(
                "an equal request has stopped the engine repeatedly; it is not tried again"
            )
        outputs: dict[int, list[int]] = {choice: [] for choice in range(request.n)}
        self._entries[request.request_id] = _Entry(request, sink, outputs)
        self._num_open_choices += request.n

    def deliver(self, delta: TokenDelta) -> None:
        """Note what the core has produced, and hand it on.

        A delta of a request that has just been removed may still be on its way: it is dropped.
        """
        entry = self._entries.get(delta.request_id)
        if entry is None:
            return
        if delta.finish_reason is not None:
            self._end(entry, delta.choice)
        elif (kept := entry.outputs.get(delta.choice)) is not None:
            kept += delta.token_ids
        if delta.times is not None:
            entry.times = delta.times
        if entry.unproven and delta.choice in entry.unproven:
            entry.unproven.remove(delta.choice)
            entry.guilt = 0
        entry.sink(delta)

    def remove(self, request_id: int) -> bool:
        """Forget a request; its sink gets nothing any more. Returns whether it was there."""
        entry = self._entries.pop(request_id, None)
        if entry is None:
            return False
        self._num_open_choices -= len(entry.outputs)
        return True

    def end_choice(self, request_id: int, choice: int) -> None:
        """Forget one choice of a request; the others go on."""
        entry = self._entries.get(request_id)
        if entry is not None:
            self._end(entry, choice)
            entry.unproven.discard(choice)

    def _end(self, entry: _Entry, choice: int) -> None:
        if entry.outputs.pop(choice, None) is not None:
            self._num_open_choices -= 1

    def fail_all(self, error: EngineError) -> None:
        """End every live request with an error."""
        entries, self._entries = self._entries, {}
        self._num_open_choices = 0
        for entry in entries.values():
            entry.sink(error)

    # ---- when a core has died ----------------------------------------------------------------

    def replays(self) -> list[Replay]:
        """Everything a new core has to go on with, in order of arrival."""
        return [
            Replay(
                request=entry.request,
                outputs=entry.outputs,
                times=entry.times,
                suspects=sorted(entry.unproven),
            )
            for entry in self._entries.values()
            if entry.outputs
        ]

    def blame(self, request_ids: Iterable[int], *, is_own_fault: bool) -> int | None:
        """Note who was there when a core died; a request that is guilty ends with an error.

        Args:
            request_ids: who was in its last step.
            is_own_fault: the core crashed; otherwise somebody outside may have killed or stopped
                it.

        Returns:
            The id of the request that has ended, if one has.
        """
        entries = (self._entries.get(request_id) for request_id in request_ids)
        present = [entry for entry in entries if entry is not None and entry.outputs]
        if len(present) != 1 or not present[0].unproven:
            for entry in present:
                entry.unproven, entry.guilt = set(entry.outputs), 0
            return None
        (entry,) = present
        entry.guilt += _GUILTY if is_own_fault else 1
        if entry.guilt < _GUILTY:
            return None
        self._refuse(entry.request)
        self.remove(entry.request.request_id)
        entry.sink(
            PoisonedRequestError("the request has stopped the engine twice; it is not tried again")
        )
        return entry.request.request_id

    def _refuse(self, request: EngineRequest) -> None:
        self._refused[_fingerprint(request)] = None
        if len(self._refused) > _MOST_REFUSED:
            del self._refused[next(iter(self._refused))]


def _fingerprint(request: EngineRequest) -> bytes:
    """Name a request by what it asks for, whoever does; a retry often has another seed."""
    params = msgspec.structs.replace(request.params, seed=0)
    same = msgspec.structs.replace(request, request_id=0, params=params, client="")
    return hashlib.blake2b(msgspec.msgpack.encode(same), digest_size=16).digest()
