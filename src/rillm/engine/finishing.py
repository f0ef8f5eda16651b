"""How a choice ends: the one place that decides it, and what is said when it cannot go on."""

from __future__ import annotations

from collections.abc import Iterable

from rillm.engine.messages import EngineRequest, FinishReason, TokenDelta
from rillm.engine.repetition import ends_in_repetition
from rillm.engine.sequence import Sequence


def failures(request: EngineRequest, error: str, choices: Iterable[int]) -> list[TokenDelta]:
    """The ends of choices of a request that cannot go on."""
    return [TokenDelta(request.request_id, each, [], "error", error=error) for each in choices]


def finish_reason(sequence: Sequence, token_id: int) -> FinishReason | None:
    """Decide whether the token just appended ends its sequence.

    A stop token on the last allowed position is a stop. Below `min_tokens` the sampler never
    draws one, unless a grammar allows nothing else.
    """
    params = sequence.request.params
    matcher = sequence.matcher
    if token_id < 0:
        return "error"
    if matcher is not None and token_id in matcher.ends:
        return "stop"
    if token_id in sequence.stop_ids and sequence.num_output_tokens > params.min_tokens:
        return "stop"
    if matcher is not None and matcher.error is not None:
        return "error"
    if sequence.num_output_tokens >= params.max_tokens:
        return "length"
    if params.repetition_detection is not None:
        output = sequence.token_ids[sequence.num_prompt_tokens :]
        if len(output) > params.min_tokens and ends_in_repetition(
            output, *params.repetition_detection
        ):
            return "repetition"
    return None


def failure(sequence: Sequence) -> str:
    """Why a sequence cannot go on."""
    if sequence.matcher is not None:
        return sequence.matcher.error or "no token fits both the grammar and the other options"
    return "no token can be sampled: logits are not finite or exclude every token"
