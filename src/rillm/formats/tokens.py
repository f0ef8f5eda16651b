"""Markers that are tokens: one character stands for each, which no text can hold.

A model that quotes `<tool_call>` writes it with ordinary tokens; one that calls a tool writes the
token. To tell them apart, the detokenizer puts a stand-in for the token, and the machine looks
for the stand-in instead of the text. Stand-ins are lone surrogates: decoded UTF-8 has none.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from rillm.formats.description import Format

_FIRST: Final = 0xDC00
_SHORTEST: Final = 3
"""Shorter tokens are ordinary text in too many tokenizers."""

T = TypeVar("T")


class TokenMarkers:
    """The tokens of one vocabulary that one format is made of.

    Attributes:
        stand_ins: a token's text to the character that stands for it.
        shown: that character to the text.
        hidden: characters of special tokens: they are no part of any text.
    """

    def __init__(self, tokens: Mapping[str, bool]) -> None:
        """Assign stand-ins.

        Args:
            tokens: the tokens' texts, and whether each is special.
        """
        texts = sorted(tokens)
        self.stand_ins = {text: chr(_FIRST + i) for i, text in enumerate(texts)}
        self.shown = {character: text for text, character in self.stand_ins.items()}
        self.hidden = frozenset(self.stand_ins[text] for text in texts if tokens[text])
        longest_first = sorted(texts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode(self, text: str) -> str:
        """Put stand-ins for all tokens in `text`."""
        return self._pattern.sub(lambda match: self.stand_ins[match[0]], text)

    def encode_all(self, description: T) -> T:
        """Put stand-ins for the tokens in all markers of a description."""
        return map_markers(description, self.encode)


def map_markers(description: T, spell: Callable[[str], str]) -> T:
    """A description with its markers spelled in another way."""
    if isinstance(description, tuple):
        return tuple(  # type: ignore[return-value]
            spell(item) if isinstance(item, str) else map_markers(item, spell)
            for item in description
        )
    if dataclasses.is_dataclass(description) and not isinstance(description, type):
        fields = dataclasses.fields(description)
        values = {each.name: map_markers(getattr(description, each.name), spell) for each in fields}
        return type(description)(**values)
    return description


NO_TOKENS: Final = TokenMarkers({})
"""For text of which nothing is known but its characters."""


def markers_of(format: Format) -> frozenset[str]:
    """All markers of a format."""
    found: set[str] = set()

    def collect(marker: str) -> str:
        found.add(marker)
        return marker

    map_markers((format.reasoning, format.calls, format.header, format.absorbed), collect)
    return frozenset(found)


def find_tokens(format: Format, added_tokens: Mapping[str, bool]) -> TokenMarkers:
    """Find which tokens of a vocabulary a format's markers are made of.

    Args:
        format: a format.
        added_tokens: texts of the tokenizer's added tokens, and whether each is special.
    """
    markers = markers_of(format)
    found = {
        text: is_special
        for text, is_special in added_tokens.items()
        if len(text) >= _SHORTEST
        and not text.isspace()
        and any(text in marker for marker in markers)
    }
    return TokenMarkers(found)
