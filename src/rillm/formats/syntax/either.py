"""Calls that one model writes in two ways: as JSON, or as tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rillm.formats.source import Steps
from rillm.formats.syntax.base import CallParser, CallSyntax, Context
from rillm.formats.syntax.json_calls import JsonCall
from rillm.formats.syntax.tagged import Tagged


@dataclass(frozen=True, slots=True, kw_only=True)
class Either(CallSyntax):
    """An opening brace tells the two apart."""

    streams: ClassVar[str] = "strings; other values when they end; JSON as it comes"
    json: JsonCall = JsonCall()
    tags: Tagged

    def leads(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return self.tags.leads()

    def parser(self, stops: Sequence[str]) -> CallParser:
        """See `CallSyntax`."""
        return _EitherParser(self, stops)


class _EitherParser:
    def __init__(self, syntax: Either, stops: Sequence[str]) -> None:
        self._json = syntax.json.parser(stops)
        self._tags = syntax.tags.parser(stops)

    def parse(self, context: Context, lead: str, is_bare: bool) -> Steps[int | None]:
        is_json = not lead and (yield from context.source.skip_space()) == "{"
        parser = self._json if is_json else self._tags
        return (yield from parser.parse(context, lead, is_bare))
