"""Keeps special tokens written in a message from acting as special tokens.

A user who types `<|im_end|>` means these ten characters, not the end of a turn. The occurrences
are wrapped in private-use characters before the template runs; afterwards the prompt is cut at
them, and what they wrap is encoded as ordinary text.

Source: the idea is that of `sanitize_control_tokens` in transformers 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from rillm.errors import InvalidRequestError

_START: Final = "\U000ff002"
_END: Final = "\U000ff003"


class SpecialText:
    """Marks special tokens in a request's strings, and encodes marked text."""

    def __init__(self, special_tokens: Mapping[int, str]) -> None:
        """Prepare for a vocabulary.

        Args:
            special_tokens: ids and texts of the tokens that must not act.
        """
        self._special_ids = frozenset(special_tokens)
        longest_first = sorted(special_tokens.values(), key=len, reverse=True)
        tokens = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._token = re.compile(tokens)
        self._marked = re.compile(f"{_START}({tokens}){_END}|[{_START}{_END}]")

    def mark(self, value: Any) -> Any:
        """Wrap every occurrence in the strings of a value, keys included.

        Args:
            value: dicts, lists and scalars. Marks already in it are dropped: they are forged.

        Returns:
            A copy with marks.
        """
        if isinstance(value, str):
            value = value.replace(_START, "").replace(_END, "")
            return self._token.sub(lambda match: f"{_START}{match[0]}{_END}", value)
        if isinstance(value, dict):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mark(item) for item in value]
        return value

    def encode(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Encode a prompt with marks.

        Args:
            text: rendered from marked values.
            encode: the tokenizer's, without the tokens it would put around a whole text.

        Returns:
            Token ids of the text without the marks. Text without marks is encoded as one piece.
        """
        pieces = self._marked.split(text)
        token_ids = encode(pieces[0])
        newline_ids = encode("\n")

        def encode_inside(piece: str) -> list[int]:
            # SentencePiece puts a space before a text; only the newline gets it here.
            with_newline = encode("\n" + piece)
            if with_newline[: len(newline_ids)] == newline_ids:
                return with_newline[len(newline_ids) :]
            return encode(piece)

        for i, piece in enumerate(pieces[1:], start=1):
            # A mark that the template tore from its partner leaves None in place of a token.
            if piece:
                token_ids += (
                    self._encode_literally(piece, encode_inside) if i % 2 else encode_inside(piece)
                )
        return token_ids

    def _encode_literally(self, token: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Encode a special token's text in two parts, so that it is not found as a whole."""
        for cut in range(1, len(token)):
            token_ids = encode(token[:cut]) + encode(token[cut:])
            if self._special_ids.isdisjoint(token_ids):
                return token_ids
        raise InvalidRequestError(
            f"the text {token!r} is a special token and cannot be encoded as text",
            param="messages",
        )
