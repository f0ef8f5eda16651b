"""Calls in the notation of Gemma: `call:tide{port:<|"|>Brest<|"|>,days:2,tags:[1,2]}`.

Strings stand between marks of their own; all other values are bare, and the schema types them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from rillm.formats import schema as schemas
from rillm.formats.json_text import json_string, quote
from rillm.formats.sink import Sink
from rillm.formats.source import Markers, Source, Steps
from rillm.formats.syntax.base import CallParser, CallSyntax, Context, Schema
from rillm.formats.values import StringValue

_NAME: Final = re.compile(r"[\w.-]+")
_CLOSER: Final = {"{": "}", "(": ")", "[": "]"}
_MAX_DEPTH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BraceCall(CallSyntax):
    """`prefix NAME {KEY:VALUE,...}`."""

    streams: ClassVar[str] = "strings; other values when they end"
    prefix: tuple[str, ...] = ()
    """Before the name."""
    quote: tuple[str, ...]
    """Opens and closes a string."""
    strings: Literal["text", "json"] = "text"
    """What a string of no declared type is: text, or JSON if it decodes."""

    def parser(self, stops: Sequence[str]) -> CallParser:
        """See `CallSyntax`."""
        return _BraceParser(self, stops)


class _BraceParser:
    def __init__(self, syntax: BraceCall, stops: Sequence[str]) -> None:
        self.strings = syntax.strings
        self._prefix = Markers(syntax.prefix)
        self.quote = Markers(syntax.quote)
        self.stop = Markers(stops)
        self.after_key = Markers((":", ",", "{", "[", "}", "]", *stops))
        self.after_value = {
            opener: Markers((",", "]", "}", _CLOSER[opener], *stops)) for opener in "{("
        }

    def parse(self, context: Context, lead: str, is_bare: bool) -> Steps[int | None]:
        source, sink = context.source, context.sink
        prefix = yield from source.accept_after_space(self._prefix)
        if prefix is None and self._prefix.literals:
            return None
        name, opener = yield from source.word(_NAME)
        if not name or opener not in self.after_value or (is_bare and not context.offers(name)):
            return None
        source.take(source.position + 1)
        sink.begin(name)
        values = _Values(self, context, self.after_value[opener])
        if (yield from values.container(context.functions.get(name), opener, 0)):
            sink.last_argument("}")
            sink.complete()
        return 1


class _Values:
    """The values of one call."""

    def __init__(self, parser: _BraceParser, context: Context, after_value: Markers) -> None:
        self._parser = parser
        self._source: Source = context.source
        self._sink: Sink = context.sink
        self._after_value = after_value

    def container(self, schema: Schema | None, opener: str, depth: int) -> Steps[bool]:
        """Convert what is left of an object or array, but for the bracket that ends it.

        Returns:
            Whether it is whole.
        """
        is_array = opener == "["
        inner = schemas.items_schema(schema) if is_array else None
        prefix = "[" if is_array else "{"
        while not (yield from self._ends(_CLOSER[opener])):
            if not (yield from self._source.next_character()):
                return False
            key = "" if is_array else (yield from self._key())
            if key is None:
                return False
            if not is_array:
                inner = schemas.property_schema(schema, key)
                key = f'"{quote(self._sink.spell(key))}": '
            self._sink.arguments(prefix + key)
            prefix = ", "
            if not (yield from self._value(inner, depth)):
                return False
        if prefix != ", ":
            self._sink.arguments(prefix)
        return True

    def _ends(self, closer: str) -> Steps[bool]:
        """Whether a container ends here: what is open where the frame ends, ends there too."""
        while (yield from self._source.accept_one(",")):
            pass
        if (yield from self._source.accept_one(closer)):
            return True
        stop = yield from self._source.accept(self._parser.stop)
        if stop is not None:
            self._source.give_back(stop)
        return stop is not None

    def _key(self) -> Steps[str | None]:
        """Read a key and its colon; None where there is none, which is shown as text then."""
        source = self._source
        source.keep_raw()
        key, colon = yield from self._read_key()
        raw = source.drop_raw()
        if key is not None and colon == ":":
            return key
        if colon is not None:
            self._sink.cut()
            self._sink.raw(raw)
        return None

    def _read_key(self) -> Steps[tuple[str | None, str | None]]:
        """Read a key, and what follows it; None for the end of the text."""
        source = self._source
        if (yield from source.skip_space()) == '"':
            key = yield from json_string(source)
        elif (yield from source.accept(self._parser.quote)) is not None:
            key, _ = yield from source.collect(self._parser.quote)
        else:
            text, marker = yield from source.collect(self._parser.after_key)
            if marker is not None and marker != ":":
                source.give_back(marker)
            return text.strip() or None, marker
        colon = yield from source.accept_one(":")
        return key, colon or (yield from source.next_character()) or None

    def _value(self, schema: Schema | None, depth: int) -> Steps[bool]:
        """Convert one value; returns whether it is whole."""
        source, sink = self._source, self._sink
        character = yield from source.skip_space()
        if (yield from source.accept(self._parser.quote)) is not None:
            return (yield from self._string(schema))
        if character == '"':
            text = yield from json_string(source)
            if text is not None:
                sink.arguments(self._typed(sink.spell(text), schema, "text"))
            return text is not None
        if depth < _MAX_DEPTH and (yield from source.accept_one("{[")):
            is_whole = yield from self.container(schema, character, depth + 1)
            if is_whole:
                sink.arguments(_CLOSER[character])
            return is_whole
        bare, marker = yield from source.collect(self._after_value)
        bare = sink.spell(bare).strip()
        if marker is None or not bare:
            return False
        source.give_back(marker)
        sink.arguments(self._typed(bare, schema, "json"))
        return True

    def _string(self, schema: Schema | None) -> Steps[bool]:
        """Convert what is left of a string between marks."""
        source, sink, strings = self._source, self._sink, self._parser.strings
        if (
            strings == "text"
            and schemas.allows_text(schema)
            or (schema is not None and schemas.is_text(schema))
        ):
            value = StringValue(sink, "none")
            marker = yield from source.until(self._parser.quote, value.add)
            if marker is not None:
                value.close()
        else:
            text, marker = yield from source.collect(self._parser.quote)
            if marker is not None:
                sink.arguments(self._typed(sink.spell(text), schema, strings))
        return marker is not None

    def _typed(self, text: str, schema: Schema | None, untyped: Literal["text", "json"]) -> str:
        """JSON text of a value: as its schema says, or as `untyped` does."""
        if untyped == "text" and schemas.allows_text(schema):
            return schemas.dump(text)
        if not schemas.types(schema):
            return schemas.json_or_text(text)
        return schemas.coerce(text, schema)
