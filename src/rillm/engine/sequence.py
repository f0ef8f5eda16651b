"""Sequence: the engine's mutable state of one choice of one request."""

from __future__ import annotations

from dataclasses import dataclass, field

from rillm.engine.block_pool import BlockHash
from rillm.engine.grammars import Matcher
from rillm.engine.messages import (
    EngineRequest,
    PromptInfo,
    Replay,
    RequestTimes,
    TokenLogprobs,
)


@dataclass(slots=True, eq=False)
class Sequence:
    """One continuation of one prompt.

    There is no prefill phase and no decode phase: `num_computed_tokens` catches up with
    `len(token_ids)`, by as much as a step has room for, and when it has caught up the step's
    logits give the next token.
    """

    request: EngineRequest
    choice: int
    arrival: int
    """Order of arrival of the request, for scheduling."""
    token_ids: list[int]
    """Prompt and output."""
    queued_s: float
    """Monotonic clock, as all times."""
    num_forks: int = 1
    """Choices that still wait for this sequence's prefill, this one included."""
    num_computed_tokens: int = 0
    """Tokens whose K and V are in the cache."""
    block_ids: list[int] = field(default_factory=list)
    """The block table: blocks in position order."""
    block_table_version: int = 0
    """Goes up with every change of `block_ids`."""
    block_hashes: list[BlockHash] = field(default_factory=list)
    """Hashes of the full blocks of `token_ids`, as far as they were needed."""
    num_remembered_blocks: int = 0
    """Leading blocks already offered to the prefix cache."""
    num_cached_tokens: int | None = None
    """Prompt tokens the prefix cache had at first admission."""
    num_preemptions: int = 0
    scheduled_s: float = 0.0
    first_token_s: float = 0.0
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_token_id_logprobs: list[list[float]] = field(default_factory=list)
    hidden_sum: list[float] = field(default_factory=list)
    """Of the prompt's last hidden states so far, where the request pools them."""
    stop_ids: frozenset[int] = frozenset()
    """All token ids that end the sequence."""
    matcher: Matcher | None = None
    """The place in the request's grammar, once that is compiled. Preemption leaves it alone: it
    has taken in every token of the output."""

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that came with the request."""
        return len(self.request.prompt_token_ids)

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - len(self.request.prompt_token_ids)

    @property
    def num_uncomputed_tokens(self) -> int:
        """Known tokens whose K and V are not in the cache; 1 while decoding."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def has_begun(self) -> bool:
        """Whether it has run before: it was preempted, or comes from another core."""
        return self.num_cached_tokens is not None

    @property
    def takes_forced(self) -> bool:
        """Whether tokens that its grammar forces need no sampler.

        They do where their logprobs are asked for, or where another option might exclude them.
        """
        params = self.request.params
        return self.matcher is not None and not (
            params.num_logprobs is not None
            or params.logprob_token_ids is not None
            or params.allowed_token_ids
            or params.bad_words
            or params.min_tokens
        )

    @property
    def choices(self) -> range:
        """The choice, and those that wait for its prefill."""
        return range(self.choice, self.choice + self.num_forks)

    @property
    def order(self) -> tuple[int, int, int]:
        """Who goes first: priority, then arrival, then choice."""
        return (self.request.priority, self.arrival, self.choice)

    @classmethod
    def start(cls, request: EngineRequest, arrival: int, now_s: float) -> Sequence:
        """The sequence that prefills for all choices of a new request."""
        return cls(
            request=request,
            choice=0,
            arrival=arrival,
            token_ids=list(request.prompt_token_ids),
            queued_s=now_s,
            num_forks=request.n,
            stop_ids=_stop_ids(request),
        )

    @classmethod
    def resume(cls, replay: Replay, arrival: int, now_s: float) -> list[Sequence]:
        """The choices that another core has begun; their matchers `follow` what they have."""
        request, times = replay.request, replay.times
        if times is None:
            return [cls.start(request, arrival, now_s)]
        return [
            cls(
                request=request,
                choice=choice,
                arrival=arrival,
                token_ids=request.prompt_token_ids + output,
                queued_s=times.queued,
                num_cached_tokens=0,
                num_preemptions=times.num_preemptions,
                scheduled_s=times.scheduled,
                first_token_s=times.first_token,
                stop_ids=_stop_ids(request),
            )
            for choice, output in sorted(replay.outputs.items())
        ]

    def fork(self, choice: int) -> Sequence:
        """Another choice with the same tokens and the same blocks; the caller holds them."""
        return Sequence(
            request=self.request,
            choice=choice,
            arrival=self.arrival,
            token_ids=list(self.token_ids),
            queued_s=self.queued_s,
            num_computed_tokens=self.num_computed_tokens,
            block_ids=list(self.block_ids),
            block_hashes=list(self.block_hashes),
            num_remembered_blocks=self.num_remembered_blocks,
            num_cached_tokens=self.num_cached_tokens,
            scheduled_s=self.scheduled_s,
            stop_ids=self.stop_ids,
            matcher=None if self.matcher is None else self.matcher.fork(),
        )

    def follow(self, matcher: Matcher) -> None:
        """Take a matcher at the beginning of the grammar to where the output is."""
        self.matcher = matcher
        for token_id in self.token_ids[self.num_prompt_tokens :]:
            matcher.advance(token_id)

    def prompt_info(self) -> PromptInfo:
        """What its prefill has found, for the first delta."""
        params = self.request.params
        return PromptInfo(
            num_cached_tokens=self.num_cached_tokens or 0,
            logprobs=self.prompt_logprobs if params.num_prompt_logprobs is not None else None,
            token_id_logprobs=self.prompt_token_id_logprobs
            if params.prompt_logprob_token_ids is not None
            else None,
            embedding=[each / self.num_prompt_tokens for each in self.hidden_sum]
            if self.request.pools
            else None,
        )

    def times(self, now_s: float) -> RequestTimes:
        """When things happened to it; `now_s` is the time of its newest token."""
        return RequestTimes(
            queued=self.queued_s,
            scheduled=self.scheduled_s,
            first_token=self.first_token_s,
            last_token=now_s,
            num_preemptions=self.num_preemptions,
        )


def _stop_ids(request: EngineRequest) -> frozenset[int]:
    params = request.params
    eos = [] if params.eos_token_id is None else [params.eos_token_id]
    return frozenset(params.stop_token_ids + eos)
