"""Logprobs on the wire: the chat shape and the completions shape."""

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


def chat_logprobs(
    positions: Sequence[LogprobsDict], top_logprobs: int, vocabulary: TokenVocabulary
) -> dict[str, Any]:
    """Encode for chat: each token, its bytes, and the `top_logprobs` most probable ones.

    Args:
        positions: one dict for each generated token, the sampled token first.
        top_logprobs: most alternatives to list; -1: all that were reported.
        vocabulary: the model's tokenizer.
    """
    content = []
    for position in positions:
        entries = [_entry(token_id, each, vocabulary) for token_id, each in position.items()]
        ranked = sorted(entries, key=lambda entry: -entry["logprob"])
        top = ranked if top_logprobs == -1 else ranked[:top_logprobs]
        content.append({**entries[0], "top_logprobs": top})
    return {"content": content}


def _entry(token_id: int, logprob: Logprob, vocabulary: TokenVocabulary) -> dict[str, Any]:
    token = vocabulary.token_bytes(token_id)
    return {
        "token": token.decode(errors="replace"),
        "logprob": finite(logprob.logprob),
        "bytes": list(token),
    }


class CompletionLogprobs:
    """One choice's logprobs in the shape of completions; offsets run on from call to call."""

    def __init__(self, vocabulary: TokenVocabulary) -> None:
        self._vocabulary = vocabulary
        self._offset = 0

    def encode(
        self, token_ids: Sequence[int], positions: Sequence[LogprobsDict | None]
    ) -> dict[str, Any]:
        """Encode some positions.

        Args:
            token_ids: the tokens at these positions.
            positions: what was reported for each, or None where nothing predicts it.
        """
        tokens: list[str] = []
        offsets: list[int] = []
        chosen: list[float | None] = []
        top: list[dict[str, float] | None] = []
        for token_id, position in zip(token_ids, positions, strict=True):
            token = self._text(token_id)
            tokens.append(token)
            offsets.append(self._offset)
            self._offset += len(token)
            chosen.append(None if position is None else finite(position[token_id].logprob))
            top.append(
                None
                if position is None
                else {self._text(other): finite(each.logprob) for other, each in position.items()}
            )
        return {
            "text_offset": offsets,
            "token_logprobs": chosen,
            "tokens": tokens,
            "top_logprobs": top,
        }

    def _text(self, token_id: int) -> str:
        return self._vocabulary.token_bytes(token_id).decode(errors="replace")


def finite(logprob: float) -> float:
    """A logprob as JSON can have it."""
    return logprob if math.isfinite(logprob) else LOWEST
