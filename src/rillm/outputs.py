"""What a stream yields: RequestOutput, one CompletionOutput for each choice that changed."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, overload

import msgspec


@dataclass(slots=True)
class Logprob:
    """One token's log probability at one position."""

    logprob: float
    """Natural logarithm, after no sampling option (the model's own distribution)."""
    rank: int | None = None
    """1 for the most probable token of the vocabulary."""
    decoded_token: str | None = None
    """The token's text; may be empty for a token that is a part of a character."""


LogprobsDict = dict[int, Logprob]
"""Token id to logprob: the sampled token first, then ranks 1 to k."""


class FlatLogprobs(Sequence[LogprobsDict]):
    """Logprobs of many positions in flat lists; indexing builds a position's dict.

    Far fewer objects than one dict for each token, for callers that keep many of them.
    """

    def __init__(self) -> None:
        self.start_indices: list[int] = []
        self.end_indices: list[int] = []
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.ranks: list[int | None] = []
        self.decoded_tokens: list[str | None] = []

    def append(self, position: LogprobsDict) -> None:
        """Add one position."""
        self.start_indices.append(len(self.token_ids))
        for token_id, logprob in position.items():
            self.token_ids.append(token_id)
            self.logprobs.append(logprob.logprob)
            self.ranks.append(logprob.rank)
            self.decoded_tokens.append(logprob.decoded_token)
        self.end_indices.append(len(self.token_ids))

    def extend(self, positions: Sequence[LogprobsDict]) -> None:
        """Add several positions."""
        for position in positions:
            self.append(position)

    def __len__(self) -> int:
        return len(self.start_indices)

    @overload
    def __getitem__(self, index: int) -> LogprobsDict: ...
    @overload
    def __getitem__(self, index: slice) -> FlatLogprobs: ...
    def __getitem__(self, index: int | slice) -> LogprobsDict | FlatLogprobs:
        if isinstance(index, slice):
            part = FlatLogprobs()
            for i in range(*index.indices(len(self))):
                part.append(self[i])
            return part
        at = slice(self.start_indices[index], self.end_indices[index])
        columns = (self.logprobs[at], self.ranks[at], self.decoded_tokens[at])
        return {
            token_id: Logprob(logprob, rank, text)
            for token_id, logprob, rank, text in zip(self.token_ids[at], *columns, strict=True)
        }

    def __iter__(self) -> Iterator[LogprobsDict]:
        return (self[i] for i in range(len(self)))


SampleLogprobs = list[LogprobsDict] | FlatLogprobs
PromptLogprobs = list[LogprobsDict | None]
"""One entry for each prompt token; the first is None, since nothing predicts it."""


@dataclass(slots=True)
class RequestStateStats:
    """When things happened to a request."""

    arrival_time: float = 0.0
    """Wall clock, seconds since the epoch."""
    queued_ts: float = 0.0
    """Monotonic clock of the engine core, seconds, as all below."""
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    num_generation_tokens: int = 0
    num_preemptions: int = 0
    first_token_latency: float = 0.0
    """Seconds from the call to the first token."""


class CompletionOutput(msgspec.Struct):
    """One choice: all of it, or what is new in it, by the request's output kind."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    """Sum of the sampled tokens' logprobs; None when logprobs were not asked for."""
    logprobs: SampleLogprobs | None = None
    finish_reason: str | None = None
    """None while it goes on, else `stop`, `length`, `abort` or `repetition`."""
    stop_reason: int | str | None = None
    """The stop token id or stop string that matched; None for end of sequence and length.

    `repetition_detected` with finish reason `repetition`.
    """
    text_ends: list[int] | None = None
    """Length of `text` after each of the tokens that have text; None where nobody asked."""

    def finished(self) -> bool:
        """Whether this choice is complete."""
        return self.finish_reason is not None

    def pieces(self) -> list[tuple[str, list[int]]]:
        """Text and tokens as they came, token by token, where that is known."""
        ends = self.text_ends
        if not ends or len(self.token_ids) == 1:
            return [(self.text, self.token_ids)]
        starts = [0, *ends[:-1]]
        pieces = [
            (self.text[start:end], [token_id])
            for start, end, token_id in zip(starts, ends, self.token_ids, strict=False)
        ]
        # What was released at the end, and a stop token, which has no text.
        pieces.append((self.text[ends[-1] :], self.token_ids[len(ends) :]))
        return pieces


class RequestOutput(msgspec.Struct):
    """What one request has produced."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    """True only on the output that ends the last choice."""
    prompt_logprobs: PromptLogprobs | None = None
    prompt_token_id_logprobs: list[list[float]] | None = None
    """Logprobs of `prompt_logprob_token_ids`, a row for each scored position."""
    num_cached_tokens: int | None = None
    """Prompt tokens found in the prefix cache."""
    metrics: RequestStateStats | None = None
    kv_transfer_params: dict[str, Any] | None = None

    def add(self, later: RequestOutput, aggregate: bool) -> None:
        """Merge a later output of the same request into this one.

        Args:
            later: the output that came after this one.
            aggregate: True for deltas (text, ids and logprobs are appended); False when the
                later output replaces what it repeats.
        """
        self.finished |= later.finished
        self.metrics = later.metrics or self.metrics
        if later.num_cached_tokens is not None:
            self.num_cached_tokens = later.num_cached_tokens
        self.prompt_logprobs = later.prompt_logprobs or self.prompt_logprobs
        for new in later.outputs:
            indices = [completion.index for completion in self.outputs]
            at = indices.index(new.index) if new.index in indices else None
            if at is None:
                insort(self.outputs, new, key=attrgetter("index"))
            elif not aggregate:
                self.outputs[at] = new
            else:
                _append(self.outputs[at], new)


def _append(old: CompletionOutput, new: CompletionOutput) -> None:
    old.text += new.text
    old.token_ids = old.token_ids + new.token_ids
    if new.logprobs:
        if old.logprobs is None:
            old.logprobs = new.logprobs
        else:
            old.logprobs.extend(new.logprobs)
    old.cumulative_logprob = new.cumulative_logprob
    old.finish_reason = new.finish_reason
    old.stop_reason = new.stop_reason
