"""The text of a token that could have come next, for logprobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rillm.text.tokenizer import Tokenizer

_NUM_CONTEXT_TOKENS: Final = 4
"""A character has at most four bytes, so no earlier token can hold its start."""


def decode_candidate(tokenizer: Tokenizer, previous_ids: Sequence[int], token_id: int) -> str:
    """Give the text of one candidate token.

    A token that is a part of a character is read after the tokens before it: the one that
    completes the character has its text, the earlier ones have none.

    Args:
        tokenizer: the model's.
        previous_ids: token ids before it, prompt included; the last four matter.
        token_id: the candidate.

    Returns:
        The text, special tokens written out.
    """
    try:
        return tokenizer.token_bytes(token_id).decode()
    except UnicodeDecodeError:
        context = previous_ids[-_NUM_CONTEXT_TOKENS:]
        detokenizer = tokenizer.detokenizer(skip_special_tokens=False, prompt_token_ids=context)
        return detokenizer.push([token_id])
