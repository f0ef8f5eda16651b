"""The bytes of each token, for decoders that only concatenate bytes.

Owns one fact about a tokenizer: which bytes (or which whole characters) a token id stands for.
Knows no stream: what is left over between tokens is the detokenizer's business.

Source: the `decoder` section of tokenizer.json as the `tokenizers` library defines it; the
byte-level alphabet is the one of GPT-2 (`bytes_to_unicode` in openai/gpt-2 `src/encoder.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import tokenizers

MAX_TOKEN_ID: Final = (1 << 32) - 1
"""What the `tokenizers` library takes as an id; it raises above."""


def _byte_level_alphabet() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    shifted = {chr(0x100 + i): byte for i, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | shifted


_BYTE_OF_CHARACTER: Final[Mapping[str, int]] = MappingProxyType(_byte_level_alphabet())


@dataclass(frozen=True, slots=True)
class ByteRule:
    """How a decoder turns tokens into bytes, one token at a time."""

    to_bytes: Callable[[str], bytes]
    """The token's name in the vocabulary to its bytes."""
    strips_first_space: bool
    """Whether one space at the very start of a text is dropped."""


def find_byte_rule(decoder: Mapping[str, Any] | None) -> ByteRule | None:
    """Recognise a decoder that maps each token to bytes on its own.

    Args:
        decoder: the `decoder` section of tokenizer.json.

    Returns:
        The rule, or None for any other kind of decoder.
    """
    if decoder is None:
        return None
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [step["type"] for step in steps]
    if kinds in (["ByteLevel"], ["ByteLevel", "Fuse"]):
        return ByteRule(_byte_level_bytes, strips_first_space=False)
    if kinds[:3] != ["Replace", "ByteFallback", "Fuse"] or "String" not in steps[0]["pattern"]:
        return None
    to_bytes = _fallback_bytes(steps[0]["pattern"]["String"], steps[0]["content"])
    if not steps[3:]:
        return ByteRule(to_bytes, strips_first_space=False)
    if steps[3:] == [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]:
        return ByteRule(to_bytes, strips_first_space=True)
    return None


def _byte_level_bytes(token: str) -> bytes:
    try:
        return bytes([_BYTE_OF_CHARACTER[character] for character in token])
    except KeyError:
        # Added tokens are not written in the alphabet: a space, for one, is not in it.
        return token.encode()


def _fallback_bytes(pattern: str, content: str) -> Callable[[str], bytes]:
    def to_bytes(token: str) -> bytes:
        token = token.replace(pattern, content)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            with contextlib.suppress(ValueError):
                return bytes([int(token[3:5], 16)])
        return token.encode()

    return to_bytes


class PieceTable(dict[int, str | bytes]):
    """Token id to what it adds to a text, worked out at the first use of each id.

    A `str` where the token is whole characters, `bytes` where it is a part of one (or no UTF-8
    at all), an empty string for ids that are hidden or not in the vocabulary: models pad their
    vocabularies, so such ids can be sampled.

    The class is a `dict` because `__missing__` keeps the hit, the hot path, free of Python code.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        to_bytes: Callable[[str], bytes],
        hidden_ids: Collection[int],
    ) -> None:
        super().__init__()
        self._token_text = backend.id_to_token
        self._to_bytes = to_bytes
        self._hidden_ids = hidden_ids

    def __missing__(self, token_id: int) -> str | bytes:
        token = self._token_text(token_id) if 0 <= token_id <= MAX_TOKEN_ID else None
        if token is None:
            # Not stored, so that ids out of range cannot make the table grow without bound.
            return ""
        piece: str | bytes = ""
        if token_id not in self._hidden_ids:
            piece = self._to_bytes(token)
            with contextlib.suppress(UnicodeDecodeError):
                piece = piece.decode()
        self[token_id] = piece
        return piece
