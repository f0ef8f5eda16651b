"""Log probabilities of sampled and of prompt tokens, as they leave the engine.

They are the model's own: before penalties, bias, temperature and filters.
"""

from __future__ import annotations

import torch

from rillm.engine.messages import TokenLogprobs


def top_logprobs(
    logits: torch.Tensor, token_ids: torch.Tensor, counts: list[int]
) -> list[TokenLogprobs]:
    """Report given tokens and the best alternatives at L positions.

    Args:
        logits: [L, V] float32.
        token_ids: [L] int64, the tokens that stand there.
        counts: L numbers of alternatives, from 0 to V.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    own = logprobs.gather(1, token_ids.unsqueeze(1))
    ranks = ((logprobs > own).sum(dim=-1) + 1).tolist()
    best = logprobs.topk(max(counts), dim=-1)
    columns = zip(
        token_ids.tolist(),
        own.squeeze(1).tolist(),
        ranks,
        best.indices.tolist(),
        best.values.tolist(),
        counts,
        strict=True,
    )
    return [
        TokenLogprobs([token_id, *ids[:count]], [logprob, *values[:count]], rank)
        for token_id, logprob, rank, ids, values, count in columns
    ]


def chosen_logprobs(logits: torch.Tensor, token_id: int, candidates: list[int]) -> TokenLogprobs:
    """Report a token and the given candidates at one position.

    Args:
        logits: [V] float32.
        token_id: the token that stands there.
        candidates: other token ids to report.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    ids = [token_id, *candidates]
    values = logprobs[torch.tensor(ids, device=logits.device)].tolist()
    rank = int((logprobs > logprobs[token_id]).sum()) + 1
    return TokenLogprobs(ids, values, rank)
