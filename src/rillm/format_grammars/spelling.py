"""How the markers of a format are written in one vocabulary: as tokens, or as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from rillm.format_grammars.lark import ANY, Lark, any_of, literal, optional, sequence, without
from rillm.formats.tokens import NO_TOKENS, TokenMarkers

_PIECES: Final = re.compile("[\ud800-\udfff]|[^\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class Spelling:
    """The markers that are tokens, and the ids of these."""

    tokens: TokenMarkers = NO_TOKENS
    token_ids: Mapping[str, int] = field(default_factory=dict)
    """Texts of tokens to their ids."""
    end_ids: frozenset[int] = frozenset()
    """Tokens that end an output."""

    def is_text(self, marker: str) -> bool:
        """Whether no part of a marker is a token."""
        return self.tokens.encode(marker) == marker

    def mark(self, marker: str) -> str:
        """Exactly this marker."""
        pieces = _PIECES.findall(self.tokens.encode(marker))
        return sequence(*(self._reference(each) or literal(each) for each in pieces))

    def one_of(self, markers: Iterable[str]) -> str:
        """One of several markers."""
        return any_of(map(self.mark, markers))

    def last(self, markers: Iterable[str]) -> str:
        """One of several markers, or the end of the output if one of them is what ends outputs."""
        markers = tuple(markers)
        is_end = any(self.token_ids.get(marker) in self.end_ids for marker in markers)
        return optional(self.one_of(markers)) if is_end else self.one_of(markers)

    def literals(self, markers: Iterable[str]) -> set[str]:
        """Texts without which no text holds one of the markers."""
        found: set[str] = set()
        for marker in markers:
            stand_ins = [self.tokens.shown.get(each) for each in self.tokens.encode(marker)]
            shown = {each for each in stand_ins if each is not None}
            found |= shown or {marker}
        return found

    def free(self, markers: Iterable[str]) -> str:
        """The regular expression of texts without any of the markers."""
        return without(self.literals(markers))

    def until(
        self,
        lark: Lark,
        hint: str,
        ends: Iterable[str],
        excluded: Iterable[str] = (),
        body: str = ANY,
    ) -> str:
        """Text, and the marker that ends it.

        Args:
            lark: gets the rules.
            hint: for their names.
            ends: markers, of which the first ends the text.
            excluded: other markers, which the text cannot hold.
            body: a regular expression that the text fits.
        """
        ends = tuple(ends)
        free = self.free((*ends, *excluded))
        text = free if body == ANY else f"({body} & {free})"
        as_text = [each for each in ends if self.is_text(each)]
        as_token = [each for each in ends if not self.is_text(each)]
        found = []
        if as_text:
            found.append(lark.lazy(hint, sequence(text, any_of(map(literal, as_text)))))
        if as_token:
            found.append(sequence(lark.terminal(hint, text), self.one_of(as_token)))
        return any_of(found)

    def _reference(self, stand_in: str) -> str:
        shown = self.tokens.shown.get(stand_in)
        return "" if shown is None else f"<[{self.token_ids[shown]}]>"
