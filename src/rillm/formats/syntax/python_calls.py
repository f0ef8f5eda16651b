"""Calls written as Python: `[tide(port='Brest', days=2), moon()]`, or one call a line.

Arguments are keyword arguments whose values are literals. They become JSON as they arrive: a
string streams, with its escapes decoded; a number or a word waits for its end, since `1` may go
on as `12`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rillm.formats.source import Source, Steps
from rillm.formats.syntax.base import CallParser, CallSyntax, Context
from rillm.formats.syntax.python_literals import WORD, PythonLiterals

_NAME: Final = re.compile(r"[^\W\d][\w.-]*")
_MAX_NAME: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCalls(CallSyntax):
    """A list of calls, or calls without its brackets."""

    streams: ClassVar[str] = "strings; other values when they end"
    needs_brackets: bool = True
    """Whether calls that are not written as a list are text."""
    repairs_quotes: bool = False
    """Whether a quotation mark that no end of the value follows is a part of the string."""

    def parser(self, stops: Sequence[str]) -> CallParser:
        """See `CallSyntax`."""
        return _PythonParser(self)


class _PythonParser:
    def __init__(self, syntax: PythonCalls) -> None:
        self._syntax = syntax

    def parse(self, context: Context, lead: str, is_bare: bool) -> Steps[int | None]:
        source = context.source
        is_list = bool((yield from source.accept_one("[")))
        if self._syntax.needs_brackets and not is_list:
            return None
        num_calls = 0
        while True:
            call = _Call(context, self._syntax)
            is_call = yield from call.parse(is_bare and not (is_list and num_calls))
            if not call.has_begun:
                return self._give_back(context, num_calls, is_bare)
            num_calls += 1
            if not is_call:
                context.sink.cut()
                return num_calls
            # What is no further call is text again, from the end of this one on.
            source.keep_raw()
            separator = yield from source.accept_one("," if is_list else ",;")
            yield from source.skip_space()
            if is_list and (yield from source.accept_one("]")):
                return num_calls
            if is_list and not separator:
                return self._give_back(context, num_calls, is_bare)

    def _give_back(self, context: Context, num_calls: int, is_bare: bool) -> int | None:
        """Show what came after the last call, unless that is for the machine to do."""
        if num_calls == 0:
            return None
        raw = context.source.drop_raw()
        # In a frame, whitespace at the end belongs to the marker.
        if is_bare or not raw.isspace():
            context.sink.raw(raw)
        return num_calls


class _Call:
    """One call, which begins when its first argument, or that it has none, is certain."""

    def __init__(self, context: Context, syntax: PythonCalls) -> None:
        self._context = context
        self._source: Source = context.source
        self._sink = context.sink
        self._values = PythonLiterals(context, repairs_quotes=syntax.repairs_quotes)
        self._name = ""
        self._is_shown = False
        """Whether some of the argument that is being read was emitted."""
        self.has_begun = False

    def parse(self, must_be_offered: bool) -> Steps[bool]:
        """Parse it; returns whether it is complete."""
        source = self._source
        name = yield from self._read_name(must_be_offered)
        if name is None or (yield from source.next_character()) != "(":
            return False
        source.take(source.position + 1)
        self._name = name
        prefix = "{"
        while not (yield from source.accept_one(")")):
            self._is_shown = False
            if self.has_begun:
                source.keep_raw()
            key = yield from self._read_key()
            if key is None:
                return self._fail()
            is_whole = yield from self._values.value(f'{prefix}"{key}": ', self._emit, 0)
            if not is_whole or not (yield from self._values.goes_on(")")):
                return self._fail()
            prefix = ", "
        self._begin()
        self._sink.last_argument("{}" if prefix == "{" else "}")
        self._sink.complete()
        return True

    def _fail(self) -> bool:
        """End the call where it cannot go on; an argument that is none is text."""
        source = self._source
        if source.ended and source.position == len(source.text):
            self._begin()
        elif self.has_begun and not self._is_shown:
            self._sink.cut()
            self._sink.raw(source.drop_raw())
        return False

    def _read_name(self, must_be_offered: bool) -> Steps[str | None]:
        """Read the function's name; None as soon as no name can come of it."""
        source = self._source
        names = self._context.functions if must_be_offered else {}
        while True:
            match = _NAME.match(source.text, source.position)
            name = "" if match is None else match[0]
            end = source.position + len(name)
            if end < len(source.text) or source.ended:
                return source.take(end) if name and (not names or name in names) else None
            if len(name) > _MAX_NAME or not any(each.startswith(name) for each in names or [name]):
                return None
            yield

    def _read_key(self) -> Steps[str | None]:
        """Read `key=`."""
        source = self._source
        key, _ = yield from source.word(WORD)
        if key.isidentifier() and (yield from source.accept_one("=")):
            return key
        return None

    def _begin(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            self._sink.begin(self._name)

    def _emit(self, text: str) -> None:
        self._begin()
        self._is_shown = True
        self._sink.arguments(text)
