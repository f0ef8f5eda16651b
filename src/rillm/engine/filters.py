"""From logits to a drawn token: min-p, top-k, top-p and the inverse of the distribution.

Pure functions of tensors; every row depends on its own values only, so a sequence draws the
same token alone and in any batch. Shapes: S rows to sample, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch

_FIRST_CANDIDATES = 256
"""Tokens looked at before a whole sort: nearly always enough for top-p, and far cheaper."""


def most_probable(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the best token of each row, the first of equal ones.

    Args:
        logits: [L, V] float32.

    Returns:
        [L] int64, the tokens, and [L] bool, whether their logits are finite: not where a row holds
        NaN, or excludes every token.
    """
    if logits.device.type != "cpu":
        best, tokens = logits.max(dim=-1)
        return tokens, best.isfinite()
    # torch finds a greatest value quickly, but its place ten times more slowly than numpy does.
    values = logits.numpy()
    places = values.argmax(axis=-1)
    is_finite = np.isfinite(values[np.arange(len(values)), places])
    return torch.from_numpy(places), torch.from_numpy(is_finite)


def apply_min_p(logits: torch.Tensor, min_p: torch.Tensor) -> None:
    """Drop tokens less probable than `min_p` times the most probable one.

    Args:
        logits: [S, V] float32, changed in place.
        min_p: [S, 1] float32; 0 drops nothing.
    """
    floor = logits.amax(dim=-1, keepdim=True) + min_p.log()
    logits.masked_fill_(logits < floor, -torch.inf)


def apply_top_k_top_p(logits: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> None:
    """Keep the `top_k` most probable tokens, and of these the smallest set of mass `top_p`.

    Tokens exactly as probable as the last kept one are kept too.

    Args:
        logits: [S, V] float32, changed in place.
        top_k: [S, 1] int64, from 1 to V (V keeps all).
        top_p: [S, 1] float32 in (0, 1].
    """
    vocab_size = logits.shape[-1]
    if vocab_size <= 4 * _FIRST_CANDIDATES:
        threshold, _ = _threshold(logits, top_k, top_p, vocab_size)
    else:
        threshold, is_decided = _threshold(logits, top_k, top_p, _FIRST_CANDIDATES)
        rest = (~is_decided).nonzero().squeeze(1)
        if len(rest):
            threshold[rest], _ = _threshold(logits[rest], top_k[rest], top_p[rest], vocab_size)
    logits.masked_fill_(logits < threshold, -torch.inf)


def _threshold(
    logits: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the least logit each row keeps, from its `width` best tokens.

    Returns:
        [S, 1] float32 thresholds, and [S] bool: whether `width` tokens were enough to tell.
    """
    vocab_size = logits.shape[-1]
    best, ids = logits.topk(width, dim=-1)
    in_k = torch.arange(width, device=logits.device) < top_k
    # Softmax and cumulative sums go row by row; a plain sum rounds differently with the number
    # of rows, and with it the set of tokens would depend on the batch.
    probs = torch.softmax(logits, dim=-1).gather(1, ids) * in_k
    mass = probs.cumsum(dim=-1, dtype=torch.float64)
    # The mass outside `width` counts only where no top-k has cut it off.
    total = mass[:, -1:].masked_fill(top_k >= vocab_size, 1.0)
    keep = in_k & ((mass - probs < top_p * total) | (top_p >= 1))
    keep[:, 0] = True
    last = keep.sum(dim=-1, keepdim=True) - 1
    # A row that keeps everything needs no threshold at all.
    keeps_all = (top_k >= vocab_size) & (top_p >= 1)
    threshold = best.gather(1, last).masked_fill(keeps_all, -torch.inf)
    is_decided = keeps_all | (top_k <= width) | ((top_k >= vocab_size) & (last < width - 1))
    return threshold, is_decided.squeeze(1)


def draw(logits: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    Args:
        logits: [S, V] float32, at the temperature, dropped tokens at -inf.
        uniforms: [S] float64 in [0, 1), with 53 bits; the only source of randomness.

    Returns:
        [S] int64 token ids, never one of probability 0.
    """
    mass = torch.softmax(logits, dim=-1).cumsum(dim=-1, dtype=torch.float64)
    # Less than the total, which is close to 1: a uniform is at most 1 - 2**-53.
    target = uniforms.unsqueeze(1) * mass[:, -1:]
    # Rows of NaN find no place at all; their token is refused later, but must be a token.
    drawn = torch.searchsorted(mass, target, right=True).squeeze(1)
    return drawn.clamp_(max=logits.shape[-1] - 1)
