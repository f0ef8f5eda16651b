"""Calls with the name outside: a header that holds it, then the arguments as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rillm.formats.json_text import json_value
from rillm.formats.source import Markers, Steps
from rillm.formats.syntax.base import CallParser, CallSyntax, Context
from rillm.formats.syntax.json_calls import JsonArray

# Stand-ins of token markers, too, are no part of a name.
_NAME: Final = re.compile("[^\\s<>{}\\[\\]`\"'\ud800-\udfff]+")
_ID: Final = re.compile("[^\\s<>{}\\[\\]\ud800-\udfff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderJson(CallSyntax):
    """`prefix NAME name_end JSON`; the frame around it ends the call."""

    streams: ClassVar[str] = "the arguments, as they come"
    prefix: tuple[str, ...] = ()
    """What may stand before the name, such as the type of the call."""
    name_end: tuple[str, ...]
    """Markers after the name. An opening brace, written here, belongs to the arguments."""
    id_mark: tuple[str, ...] = ()
    """A marker between the name and an id that the model gives."""
    header: str = r"(?P<name>.+)"
    """What the text before `name_end` looks like: a regular expression with the group `name`,
    and `id` where the header is the call's id."""
    arguments_open: tuple[str, ...] = ()
    """What may stand before the arguments."""
    arguments_close: tuple[str, ...] = ()
    """What may stand after the arguments, such as the end of a fence."""
    json: JsonArray | None = None
    """How a call is written where JSON stands in place of a header."""

    def parser(self, stops: Sequence[str]) -> CallParser:
        """See `CallSyntax`."""
        return _HeaderParser(self, stops)


class _HeaderParser:
    def __init__(self, syntax: HeaderJson, stops: Sequence[str]) -> None:
        self._prefix = Markers(syntax.prefix)
        self._header = re.compile(syntax.header)
        self._name_end = Markers((*syntax.name_end, *syntax.id_mark))
        self._id_marks = frozenset(syntax.id_mark)
        self._arguments_open = Markers(syntax.arguments_open)
        self._arguments_close = Markers(syntax.arguments_close)
        self._stops = Markers((*stops, *syntax.arguments_close))
        self._json = None if syntax.json is None else syntax.json.parser(stops)

    def parse(self, context: Context, lead: str, is_bare: bool) -> Steps[int | None]:
        source, sink = context.source, context.sink
        yield from source.accept_after_space(self._prefix)
        first = yield from source.skip_space()
        if self._json is not None and first in ("[", "{"):
            return (yield from self._json.parse(context, lead, is_bare))
        header, marker = yield from self._part(context, _NAME)
        call_id = None
        if marker in self._id_marks:
            call_id, marker = yield from self._part(context, _ID)
        match = self._header.fullmatch(header)
        if marker is None or match is None or (is_bare and not context.offers(match["name"])):
            return None
        sink.begin(match["name"], call_id or match.groupdict().get("id"))
        if marker == "{":
            source.give_back(marker)
        else:
            yield from source.accept_after_space(self._arguments_open)
        yield from pass_arguments(context, self._stops)
        if self._arguments_close.literals:
            yield from source.accept_after_space(self._arguments_close)
        return 1

    def _part(self, context: Context, pattern: re.Pattern[str]) -> Steps[tuple[str, str | None]]:
        """Read one word of the header, and the marker after it; None where another text follows.

        Only what can be a word is read, so that prose after a quoted marker is not held back.
        """
        source = context.source
        yield from source.skip_space()
        word, _ = yield from source.word(pattern)
        return word, (yield from source.accept_after_space(self._name_end))


def pass_arguments(context: Context, stops: Markers) -> Steps[None]:
    """Pass arguments through: JSON, or whatever stands there instead, up to a marker."""
    source, sink = context.source, context.sink
    character = yield from source.skip_space()
    if character == "{":
        if (yield from json_value(source, sink.arguments, sink.last_argument)):
            sink.complete()
            return
    elif not character and source.is_cut:
        return
    # No JSON: it belongs to the call all the same, as far as its frame goes.
    marker = yield from source.until(stops, sink.all_but_last)
    if marker is not None:
        source.give_back(marker)
    if marker is not None or not source.is_cut:
        sink.complete()
