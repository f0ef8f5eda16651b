"""Logprobs on the wire: the completions shape, and those of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rillm.chat_logprobs import TokenVocabulary, finite, token_name
from rillm.outputs import LogprobsDict, PromptLogprobs


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
