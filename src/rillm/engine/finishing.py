"""How a choice goes on and ends: the one place that decides it, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterable

from rillm.engine.messages import EngineRequest, FinishReason, TokenDelta
from rillm.engine.repetition import ends_in_repetition
from rillm.engine.scheduled_batch import SampledToken
from rillm.engine.sequence import Sequence


def failures(request: EngineRequest, error: str, choices: Iterable[int]) -> list[TokenDelta]:
    """The ends of choices of a request that cannot go on."""
    return [TokenDelta(request.request_id, each, [], "error", error=error) for each in choices]


def advance(sequence: Sequence, token: SampledToken, now_s: float) -> TokenDelta:
    """Add a sampled token to its sequence, and those that its grammar leaves no choice about.

    The latter cost no step of their own: they are computed with the next one.

    Returns:
        What has been added, and whether the sequence has ended.
    """
    is_first = sequence.num_output_tokens == 0
    delta = TokenDelta(sequence.request.request_id, sequence.choice, [])
    last_id = token.token_id
    reason = _take(sequence, last_id, delta)
    if token.logprobs is not None and delta.token_ids:
        delta.logprobs = [token.logprobs]
    if reason is None and sequence.matcher is not None and sequence.takes_forced:
        for last_id in sequence.matcher.forced():
            reason = _take(sequence, last_id, delta)
            if reason is not None:
                break
    if is_first:
        sequence.first_token_s = now_s
        delta.times = sequence.times(now_s)
        if sequence.choice == 0:
            delta.prompt = sequence.prompt_info()
    if reason is not None:
        delta.finish_reason = reason
        delta.times = sequence.times(now_s)
        is_stop_token = reason == "stop" and last_id in sequence.stop_ids
        if is_stop_token and last_id != sequence.request.params.eos_token_id:
            delta.stop_token_id = last_id
        if reason == "error":
            delta.token_ids, delta.logprobs = [], None
            delta.error = failure(sequence)
    return delta


def _take(sequence: Sequence, token_id: int, delta: TokenDelta) -> FinishReason | None:
    """Add one token, if there is one; returns why it is the last."""
    if token_id >= 0:
        sequence.token_ids.append(token_id)
        delta.token_ids.append(token_id)
        if sequence.matcher is not None:
            sequence.matcher.advance(token_id)
    return finish_reason(sequence, token_id)


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
