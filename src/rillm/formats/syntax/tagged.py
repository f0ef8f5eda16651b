"""Calls written as tags: a name, then a marked-up key and value for each argument.

Covers `<function=f><parameter=k>v</parameter></function>`, the invoke and parameter tags of many
families, and `f<arg_key>k</arg_key><arg_value>v</arg_value>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from rillm.formats import schema as schemas
from rillm.formats.source import Emit, Markers, Source, Steps
from rillm.formats.syntax.base import CallParser, CallSyntax, Context, Schema
from rillm.formats.values import Entities, ObjectWriter, StringValue, Trim, decode_entities, trimmed

_ATTRIBUTE: Final = re.compile(r"""([\w-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_NAME: Final = re.compile("[^\\s<>\ud800-\udfff]+")
_MAX_NAME: Final = 256
_CDATA: Final = Markers(["<![CDATA["])
_CDATA_END: Final = Markers(["]]>"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged(CallSyntax):
    """Markers of a call, in the order in which they come; several spellings of each."""

    streams: ClassVar[str] = "strings; other values when they end"
    open: tuple[str, ...] = ()
    """Before the function's name; none where the frame's own marker goes before it."""
    name_end: tuple[str, ...] = ()
    """After the name; a key or the end of the call ends it as well."""
    close: tuple[str, ...] = ()
    """After the arguments; none where the frame's own marker ends the call. Inside a value it
    ends the call all the same, as a key or another call does: a frame's marker is data there."""
    key_open: tuple[str, ...]
    key_end: tuple[str, ...]
    type_open: tuple[str, ...] = ()
    type_close: tuple[str, ...] = ()
    value_open: tuple[str, ...] = ()
    """Before the value where `key_end` is not."""
    value_close: tuple[str, ...]
    name_attribute: str = ""
    """The attribute that holds the name, where the tag has several."""
    key_attribute: str = ""
    """As above, of the key."""
    type_attribute: str = ""
    """The attribute of the key that says the value's type: a JSON type, or whether it is a
    string."""
    trim: Trim = "none"
    wrappers: tuple[str, ...] = ()
    """Keys that models wrap all arguments in, unless the function declares them."""
    typing: Literal["schema", "json"] = "schema"
    """What a value is of which nothing is declared: a string, or JSON if it decodes."""
    is_xml: bool = False
    """Whether values have XML's entities and CDATA sections."""
    has_namespace: bool = False
    """Whether a function may be called by its name twice, as `f.f`."""

    def leads(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return self.open

    def parser(self, stops: Sequence[str]) -> CallParser:
        """See `CallSyntax`."""
        return _TaggedParser(self, stops)


class _TaggedParser:
    """The syntax as sets of markers: which of them can come next at each point of a call."""

    def __init__(self, syntax: Tagged, stops: Sequence[str]) -> None:
        self.syntax = syntax
        self._open = Markers((*syntax.open, *stops))
        self.others = frozenset((*syntax.key_open, *syntax.close, *stops, *syntax.open))
        self._after_name = Markers((*syntax.name_end, *self.others))
        self.next_key = Markers(self.others)
        before_value = (*syntax.type_open, *syntax.value_open, *self.others)
        self.after_key = Markers((*syntax.key_end, *before_value))
        self.before_value = Markers(before_value)
        self.after_type = Markers((*syntax.type_close, *syntax.value_open, *self.others))
        self.after_value = Markers(
            (*syntax.value_close, *syntax.key_open, *syntax.close, *syntax.open)
        )

    def parse(self, context: Context, lead: str, is_bare: bool) -> Steps[int | None]:
        source, syntax = context.source, self.syntax
        num_calls = 0
        while True:
            if syntax.open and lead not in syntax.open:
                marker = yield from source.accept_after_space(self._open)
                if marker not in syntax.open:
                    return _no_call(source, marker, num_calls, is_empty=True)
            header, marker = yield from self._header(source)
            name = self._name(header, context)
            is_name = 0 < len(name) <= _MAX_NAME and (not is_bare or context.offers(name))
            if marker is None or not is_name:
                is_nameless = marker in syntax.name_end or marker in syntax.key_open
                is_empty = not (header or is_nameless or is_bare)
                return _no_call(source, marker, num_calls, is_empty)
            context.sink.begin(name)
            num_calls += 1
            call = _Call(self, context, name)
            after = yield from call.parse("" if marker in syntax.name_end else marker)
            if after not in syntax.open:
                if after is not None and after not in syntax.close:
                    source.give_back(after)
                return num_calls
            lead = after

    def _header(self, source: Source) -> Steps[tuple[str, str | None]]:
        """Read what holds the name, and the marker after it if there is one."""
        if self.syntax.name_attribute:
            return (yield from source.collect(self._after_name))
        yield from source.skip_space()
        name, _ = yield from source.word(_NAME)
        return name, (yield from source.accept_after_space(self._after_name))

    def _name(self, header: str, context: Context) -> str:
        name = _text_of(header, self.syntax.name_attribute)
        namespace, _, function = name.rpartition(".")
        is_double = self.syntax.has_namespace and namespace == function
        if is_double and function in context.functions and name not in context.functions:
            return function
        return name


class _Call:
    """The arguments of one call."""

    def __init__(self, parser: _TaggedParser, context: Context, name: str) -> None:
        self._parser = parser
        self._syntax = parser.syntax
        self._source: Source = context.source
        self._sink = context.sink
        self._writer = ObjectWriter(context.sink, context.functions.get(name))
        self._is_inside = False
        """Whether the text ended within an argument."""

    def parse(self, marker: str) -> Steps[str | None]:
        """Read arguments to the end of the call.

        Args:
            marker: what ended the name, if it begins something of its own.

        Returns:
            The marker that ended the call; None at the end of the text.
        """
        found: str | None = marker
        while found is not None:
            if not found:
                found = yield from self._source.until(self._parser.next_key, self._sink.drop)
            elif found in self._syntax.key_open:
                found = yield from self._argument()
            else:
                self._writer.close()
                return found
        if not (self._is_inside or self._source.is_cut):
            self._writer.close()
        return None

    def _argument(self) -> Steps[str | None]:
        """Read one argument; returns the marker that goes on, empty for none."""
        parser, syntax, source = self._parser, self._syntax, self._source
        self._is_inside = True
        header, marker = yield from source.collect(parser.after_key)
        key = _text_of(header, syntax.key_attribute)
        declared: str | None = None
        if syntax.type_attribute:
            declared = _attribute(header, syntax.type_attribute) or ""
        if syntax.value_open and marker in syntax.key_end:
            marker = yield from source.accept_after_space(parser.before_value)
        if marker in syntax.type_open:
            declared, marker = yield from source.collect(parser.after_type)
            declared = declared.strip()
            if marker in syntax.type_close:
                marker = yield from source.accept_after_space(parser.before_value)
        if marker in parser.others:
            self._is_inside = False
            return marker
        if marker is None and not (yield from source.next_character()):
            return None
        return (yield from self._value(key, declared))

    def _value(self, key: str, declared: str | None) -> Steps[str | None]:
        schema = self._writer.schema_of(key)
        is_wrapper = key in self._syntax.wrappers and schema is None
        schema = schema if schemas.types(schema) else None
        trim, is_section = self._syntax.trim, False
        if self._syntax.is_xml:
            is_section = (yield from self._source.accept_after_space(_CDATA)) is not None
            trim = "none" if is_section else trim
        if self._streams(schema, declared) and not is_wrapper:
            self._writer.key(key)
            value = StringValue(self._sink, trim)
            marker = yield from self._text(is_section, value.add)
            if marker is None:
                value.cut()
            else:
                value.close()
        else:
            parts: list[str] = []
            marker = yield from self._text(is_section, parts.append)
            if marker is not None:
                text = trimmed(self._sink.spell("".join(parts)), trim)
                self._add(key, self._decode(text, schema, declared), is_wrapper)
        self._is_inside = marker is None
        return "" if marker in self._syntax.value_close else marker

    def _text(self, is_section: bool, emit: Emit) -> Steps[str | None]:
        """Hand on the text of a value; returns the marker after it."""
        source, after_value = self._source, self._parser.after_value
        if is_section:
            if (yield from source.until(_CDATA_END, emit)) is None:
                return None
            return (yield from source.until(after_value, self._sink.drop))
        if not self._syntax.is_xml:
            return (yield from source.until(after_value, emit))
        entities = Entities(emit)
        marker = yield from source.until(after_value, entities.add)
        entities.flush()
        return marker

    def _add(self, key: str, json_text: str, is_wrapper: bool) -> None:
        inner = schemas.as_object(json_text) if is_wrapper else None
        if inner is None or not inner.keys() <= schemas.properties(self._writer.schema).keys():
            self._writer.add(key, json_text)
            return
        for inner_key, value in inner.items():
            self._writer.add(inner_key, schemas.dump(value))

    def _streams(self, schema: Schema | None, declared: str | None) -> bool:
        """Whether the value can only be a string."""
        if schema is not None:
            return schemas.is_text(schema)
        if declared is not None:
            return declared in ("string", "true")
        return self._syntax.typing == "schema"

    def _decode(self, text: str, schema: Schema | None, declared: str | None) -> str:
        if declared in ("string", "true") and schemas.allows_text(schema):
            return schemas.dump(text)
        if schema is None and (declared is not None or self._syntax.typing == "json"):
            return schemas.json_or_text(text)
        return schemas.coerce(text, schema)


def _no_call(source: Source, marker: str | None, num_calls: int, is_empty: bool) -> int | None:
    """What to return where no call begins: from a marker on, the text is the frame's.

    A frame with nothing in it is markup of no call.
    """
    if marker is None:
        return num_calls or None
    source.give_back(marker)
    return num_calls if num_calls or is_empty else None


def _text_of(header: str, attribute: str) -> str:
    """The name or key that the text of a tag holds."""
    if attribute:
        return _attribute(header, attribute) or ""
    return header.strip().strip("\"'").strip()


def _attribute(header: str, attribute: str) -> str | None:
    for match in _ATTRIBUTE.finditer(header):
        if match[1] == attribute:
            value = next(each for each in match.groups()[1:] if each is not None)
            return decode_entities(value)
    return None
