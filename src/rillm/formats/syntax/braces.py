"""Calls in the notation of Gemma: `call:tide{port:<|"|>Brest<|"|>,days:2,tags:[1,2]}`.

Strings stand between marks of their own; all other values are bare, and the schema types them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from rillm.formats import schema as schemas
from rillm.formats.json_text import json_string, quote
from rillm.formats.sink import Sink
from rillm.formats.source import Markers, Source, Steps
from rillm.formats.syntax.base import CallParser, Context, Schema
from rillm.formats.values import StringValue

_NAME: Final = re.compile(r"[\w.-]+")
_CLOSER: Final = {"{": "}", "(": ")"}
_MAX_DEPTH: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BraceCall:
    """`prefix NAME {KEY:VALUE,...}`."""

    streams: ClassVar[str] = "strings; other values when they end"
    prefix: tuple[str, ...] = ()
    """Before the name."""
    quote: tuple[str, ...]
    """Opens and closes a string."""
    strings: Literal["text", "json"] = "text"
    """What a string of no declared type is: text, or JSON if it decodes."""

    def leads(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return ()

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
            closer: Markers((",", "]", "}", closer, *stops)) for closer in _CLOSER.values()
        }

    def parse(self, context: Context, lead: str, is_bare: bool) -> Steps[int | None]:
        source, sink = context.source, context.sink
        yield from source.skip_space()
        if (yield from source.accept(self._prefix)) is None and self._prefix.literals:
            return None
        parts: list[str] = []
        opener = yield from source.run(_NAME, parts.append)
        name = "".join(parts)
        if not name or opener not in _CLOSER or (is_bare and not context.offers(name)):
            return None
        source.take(source.position + 1)
        sink.begin(name)
        closer = _CLOSER[opener]
        values = _Values(self, context, self.after_value[closer])
        if (yield from values.object(context.functions.get(name), closer, 0)):
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

    def object(self, schema: Schema | None, closer: str, depth: int) -> Steps[bool]:
        """Convert what is left of an object, but for its closing brace.

        Returns:
            Whether it is whole.
        """
        prefix = "{"
        while True:
            is_end = yield from self._ends(closer)
            if is_end is None:
                return False
            if is_end:
                if prefix == "{":
                    self._sink.arguments(prefix)
                return True
            key = yield from self._key()
            if key is None:
                return False
            self._sink.arguments(f'{prefix}"{quote(self._sink.spell(key))}": ')
            prefix = ", "
            inner = None if schema is None else schemas.property_schema(schema, key)
            if not (yield from self._value(inner, depth)):
                return False

    def _array(self, schema: Schema | None, depth: int) -> Steps[bool]:
        """Convert what is left of an array."""
        items = None if schema is None else schema.get("items")
        inner = schemas.resolve(items, schema or {}) if isinstance(items, Mapping) else None
        prefix = "["
        while True:
            is_end = yield from self._ends("]")
            if is_end is None:
                return False
            if is_end:
                self._sink.arguments("[]" if prefix == "[" else "]")
                return True
            self._sink.arguments(prefix)
            prefix = ", "
            if not (yield from self._value(inner, depth)):
                return False

    def _ends(self, closer: str) -> Steps[bool | None]:
        """Whether a container ends here; None at the end of the text.

        What is left open where the frame ends, ends there.
        """
        source = self._source
        while (yield from source.skip_space()) == ",":
            source.take(source.position + 1)
        character = yield from source.next_character()
        if character == closer:
            source.take(source.position + 1)
            return True
        stop = yield from source.accept(self._parser.stop)
        if stop is not None:
            source.give_back(stop)
            return True
        return False if character else None

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
        following = yield from source.skip_space()
        if following == ":":
            source.take(source.position + 1)
        return key, following or None

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
        if character in ("{", "[") and depth < _MAX_DEPTH:
            source.take(source.position + 1)
            if character == "[":
                return (yield from self._array(schema, depth + 1))
            is_whole = yield from self.object(schema, "}", depth + 1)
            if is_whole:
                sink.arguments("}")
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
