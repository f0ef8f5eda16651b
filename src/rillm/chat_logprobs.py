"""Logprobs in the shape of chat: each token, its bytes, and the most probable ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from rillm.outputs import Logprob, LogprobsDict

LOWEST = -9999.0
"""JSON has no infinity: what a token outside the allowed ones gets."""


class TokenVocabulary(Protocol):
    """The part of the tokenizer that names single tokens."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token adds to the text; not always a whole character."""


def token_name(token_id: int, token: bytes, *, as_id: bool) -> str:
    """What a token is called: its text, or its id where texts of pieces would be the same."""
    return f"token_id:{token_id}" if as_id else token.decode(errors="replace")


def chat_logprobs(
    positions: Sequence[LogprobsDict],
    top_logprobs: int,
    vocabulary: TokenVocabulary,
    *,
    as_ids: bool = False,
    with_ids: bool = False,
) -> dict[str, Any]:
    """Encode for chat: each token, its bytes, and the `top_logprobs` most probable ones.

    Args:
        positions: one dict for each generated token, the sampled token first.
        top_logprobs: most alternatives to list; -1: all that were reported.
        vocabulary: the model's tokenizer.
        as_ids: name tokens by their ids.
        with_ids: say each token's id as well.
    """
    content = []
    for position in positions:
        entries = [_entry(*item, vocabulary, as_ids, with_ids) for item in position.items()]
        ranked = sorted(entries, key=lambda entry: -entry["logprob"])
        top = ranked if top_logprobs == -1 else ranked[:top_logprobs]
        content.append({**entries[0], "top_logprobs": top})
    return {"content": content}


def _entry(
    token_id: int, logprob: Logprob, vocabulary: TokenVocabulary, as_id: bool, with_id: bool
) -> dict[str, Any]:
    token = vocabulary.token_bytes(token_id)
    return {
        **({"id": token_id} if with_id else {}),
        "token": token_name(token_id, token, as_id=as_id),
        "logprob": finite(logprob.logprob),
        "bytes": list(token),
    }


def finite(logprob: float) -> float:
    """A logprob as JSON can have it."""
    return logprob if math.isfinite(logprob) else LOWEST
