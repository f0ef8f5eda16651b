"""Sampler: logits to tokens, for a whole batch at once.

Order: grammar, whitelist, bad words, bias, min tokens, penalties; then greedy rows take the best
token, and the others go through temperature, min-p, top-k, top-p and one counter-based draw. A
row's token depends on its own logits and options only.
"""

from __future__ import annotations

import torch

from rillm.engine.filters import apply_min_p, apply_top_k_top_p, draw, most_probable
from rillm.engine.logprobs import chosen_logprobs, top_logprobs
from rillm.engine.messages import TokenLogprobs
from rillm.engine.sampling_batch import Row, SamplingBatch
from rillm.engine.scheduled_batch import SampledToken
from rillm.engine.token_masks import TokenMasks


class Sampler:
    """Draws the next token of each row.

    Args:
        vocab_size: V, the model's.
        device: of the logits.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._batch = SamplingBatch([], vocab_size, device)
        self._masks = TokenMasks(vocab_size)

    def sample(self, logits: torch.Tensor, rows: list[Row]) -> list[SampledToken]:
        """Draw one token a row. Waits for the device once, at the end.

        Args:
            logits: [L, V] float32. Overwritten.
            rows: L rows, in the same order.

        Returns:
            L tokens, with logprobs where the row asks for them; token id -1 for a row
            whose logits are not finite, or exclude every token.
        """
        if rows != self._batch.rows:
            self._batch = SamplingBatch(rows, self._vocab_size, self._device)
        batch = self._batch
        original = logits.clone() if batch.with_logprobs else logits
        self._edit(logits, batch)
        greedy, has_choice = most_probable(logits)
        tokens = self._pick(logits, greedy, batch)
        # Lists: after a forward pass, which leaves no code in the caches, an operator costs more.
        choices = zip(tokens.tolist(), has_choice.tolist(), strict=True)
        sampled = [SampledToken(token_id if is_one else -1) for token_id, is_one in choices]
        if batch.with_logprobs:
            for row, logprobs in _report(original, tokens, batch):
                sampled[row].logprobs = logprobs
        return sampled

    def _edit(self, logits: torch.Tensor, batch: SamplingBatch) -> None:
        if batch.with_grammar:
            sequences = [sequence for sequence, _ in batch.rows]
            self._masks.apply(logits, sequences, batch.with_grammar)
        if batch.allowed is not None:
            logits.masked_fill_(batch.allowed, -torch.inf)
        for row in batch.with_bad_words:
            banned = _completions_of_bad_words(batch.rows[row])
            if banned:
                logits[row, banned] = -torch.inf
        if batch.bias is not None:
            batch.bias.apply(logits)
        for row in batch.with_min_tokens:
            sequence = batch.rows[row][0]
            is_complete = sequence.matcher is not None and sequence.matcher.is_complete
            if sequence.num_output_tokens < sequence.request.params.min_tokens and not is_complete:
                logits[row, list(sequence.stop_ids)] = -torch.inf
        if batch.penalties is not None:
            batch.penalties.apply(logits)

    def _pick(
        self, logits: torch.Tensor, greedy: torch.Tensor, batch: SamplingBatch
    ) -> torch.Tensor:
        """Choose token ids, [L] int64; `greedy` are the most probable ones."""
        if not batch.sampled:
            return greedy
        is_mixed = len(batch.sampled) < len(batch.rows)
        chosen = logits[batch.sampled_rows] if is_mixed else logits
        chosen = chosen.div_(batch.temperature)
        if batch.min_p is not None:
            apply_min_p(chosen, batch.min_p)
        if batch.filters:
            apply_top_k_top_p(chosen, batch.top_k, batch.top_p)
        drawn = draw(chosen, batch.uniforms())
        if not is_mixed:
            return drawn
        return greedy.index_copy_(0, batch.sampled_rows, drawn)


def _completions_of_bad_words(row: Row) -> list[int]:
    """Token ids that would complete a bad word at the end of the sequence."""
    sequence = row[0]
    output = sequence.token_ids[sequence.num_prompt_tokens :]
    return [
        word[-1]
        for word in sequence.request.params.bad_words or []
        if len(word) == 1 or output[1 - len(word) :] == word[:-1]
    ]


def _report(
    logits: torch.Tensor, tokens: torch.Tensor, batch: SamplingBatch
) -> list[tuple[int, TokenLogprobs]]:
    """Logprobs of the rows that ask for them, as (row, logprobs)."""
    reports = []
    params = [sequence.request.params for sequence, _ in batch.rows]
    best = [i for i in batch.with_logprobs if params[i].logprob_token_ids is None]
    if best:
        counts = [params[i].num_logprobs or 0 for i in best]
        reports += list(zip(best, top_logprobs(logits[best], tokens[best], counts), strict=True))
    for i in batch.with_logprobs:
        candidates = params[i].logprob_token_ids
        if candidates is not None:
            reports.append((i, chosen_logprobs(logits[i], int(tokens[i]), candidates)))
    return reports
