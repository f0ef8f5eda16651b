"""What one step consists of, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from rillm.engine.messages import TokenLogprobs
from rillm.engine.sequence import Sequence


@dataclass(slots=True)
class ScheduledBatch:
    """Sequences of one step, decodes first."""

    sequences: list[Sequence] = field(default_factory=list)
    num_scheduled_tokens: list[int] = field(default_factory=list)
    num_decodes: int = 0
    """Leading sequences with exactly one scheduled token."""
    block_copies: list[tuple[int, int]] = field(default_factory=list)
    """(from, to) block ids to copy before the forward pass: copy on write."""

    def add(self, sequence: Sequence, num_tokens: int) -> None:
        """Take a sequence into the step."""
        self.sequences.append(sequence)
        self.num_scheduled_tokens.append(num_tokens)


@dataclass(slots=True)
class SampledToken:
    """What the sampler drew for one sequence; token id -1 where there was none to draw."""

    token_id: int
    logprobs: TokenLogprobs | None = None
