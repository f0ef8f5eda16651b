"""Logprobs on the wire: the chat shape and the completions shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from rillm.outputs import Logprob, LogprobsDict, PromptLogprobs

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
) -> dict[str, Any]:
    """Encode for chat: each token, its bytes, and the `top_logprobs` most probable ones.

    Args:
        positions: one dict for each generated token, the sampled token first.
        top_logprobs: most alternatives to list; -1: all that were reported.
        vocabulary: the model's tokenizer.
        as_ids: name tokens by their ids.
    """
    content = []
    for position in positions:
        entries = [_entry(*item, vocabulary, as_ids) for item in position.items()]
        ranked = sorted(entries, key=lambda entry: -entry["logprob"])
        top = ranked if top_logprobs == -1 else ranked[:top_logprobs]
        content.append({**entries[0], "top_logprobs": top})
    return {"content": content}


def _entry(
    token_id: int, logprob: Logprob, vocabulary: TokenVocabulary, as_id: bool
) -> dict[str, Any]:
    token = vocabulary.token_bytes(token_id)
    return {
        "token": token_name(token_id, token, as_id=as_id),
        "logprob": finite(logprob.logprob),
        "bytes": list(token),
    }


class CompletionLogprobs:
    """One choice's logprobs in the shape of completions; offsets run on from call to call."""

    def __init__(self, vocabulary: TokenVocabulary, *, as_ids: bool = False) -> None:
        self._vocabulary = vocabulary
        self._as_ids = as_ids
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
            tokens.append(self._name(token_id))
            offsets.append(self._offset)
            self._offset += len(self._vocabulary.token_bytes(token_id).decode(errors="replace"))
            chosen.append(None if position is None else finite(position[token_id].logprob))
            top.append(
                None
                if position is None
                else {self._name(other): finite(each.logprob) for other, each in position.items()}
            )
        return {
            "text_offset": offsets,
            "token_logprobs": chosen,
            "tokens": tokens,
            "top_logprobs": top,
        }

    def _name(self, token_id: int) -> str:
        token = self._vocabulary.token_bytes(token_id)
        return token_name(token_id, token, as_id=self._as_ids)


def prompt_logprobs_object(positions: PromptLogprobs | None) -> list[dict[str, Any] | None] | None:
    """Encode a prompt's logprobs: for each token a dict by token id, null for the first."""
    if positions is None:
        return None
    return [
        None
        if position is None
        else {
            str(token_id): {
                "logprob": finite(found.logprob),
                "rank": found.rank,
                "decoded_token": found.decoded_token,
            }
            for token_id, found in position.items()
        }
        for position in positions
    ]


def finite(logprob: float) -> float:
    """A logprob as JSON can have it."""
    return logprob if math.isfinite(logprob) else LOWEST
