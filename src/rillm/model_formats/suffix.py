"""Markers that each checkpoint spells with a suffix of its own, as in `<think:6124c78e>`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from rillm.formats.description import Format
from rillm.formats.tokens import map_markers


def resolve(format: Format, added_tokens: Iterable[str]) -> Format:
    """Spell a format's markers as one vocabulary does.

    Args:
        format: a format; one without `suffix` comes back as it is.
        added_tokens: texts of the tokenizer's added tokens.
    """
    if not format.suffix:
        return format
    tokens = frozenset(added_tokens)

    @cache
    def spell(marker: str) -> str:
        spelling = f"{re.escape(marker[:-1])}{format.suffix}{re.escape(marker[-1:])}"
        return min(filter(re.compile(spelling).fullmatch, tokens), default=marker)

    return replace(
        format,
        reasoning=map_markers(format.reasoning, spell),
        calls=map_markers(format.calls, spell),
        absorbed=map_markers(format.absorbed, spell),
        turn=map_markers(format.turn, spell),
        suffix="",
    )
