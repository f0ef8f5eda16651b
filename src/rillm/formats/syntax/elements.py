"""Calls written as nested elements: each argument is an element, objects and arrays have children.

A later element of the same name turns a value into a list, so arguments are written when the call
ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from rillm.formats import schema as schemas
from rillm.formats.source import Markers, Steps
from rillm.formats.syntax.base import CallParser, CallSyntax, Context, Schema
from rillm.formats.values import ObjectWriter

_TEXT_KEY: Final = "$text"
"""The key of the text that stands beside child elements."""
_MAX_DEPTH: Final = 128
_MAX_NAME: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Elements(CallSyntax):
    """Markers of a call and of its elements."""

    streams: ClassVar[str] = "the arguments, when the call ends"
    open: tuple[str, ...]
    """Before the function's name, whose tag `>` ends."""
    close: tuple[str, ...]
    element_open: tuple[str, ...]
    """Before an element's name, in the tag that begins it; `>` ends the tag."""
    element_close: tuple[str, ...]
    """Before an element's name, in the tag that ends it."""

    def leads(self) -> tuple[str, ...]:
        """See `CallSyntax`."""
        return self.open

    def parser(self, stops: Sequence[str]) -> CallParser:
        """See `CallSyntax`."""
        return _ElementsParser(self, stops)


@dataclass(slots=True)
class _Element:
    name: str
    parts: list[str] = field(default_factory=list)
    children: list[_Element] = field(default_factory=list)


class _ElementsParser:
    def __init__(self, syntax: Elements, stops: Sequence[str]) -> None:
        self._open = Markers(syntax.open)
        ends = (*syntax.close, *syntax.open, *stops)
        self._name_end = Markers((">", *ends))
        self._tag = Markers((*syntax.element_open, *syntax.element_close, *ends))
        self._tag_end = Markers((">", *syntax.element_open, *syntax.element_close, *ends))
        self._element_tags = frozenset((*syntax.element_open, *syntax.element_close))
        self._element_closes = frozenset(syntax.element_close)
        self._closes = frozenset(syntax.close)

    def parse(self, context: Context, lead: str, is_bare: bool) -> Steps[int | None]:
        source, sink = context.source, context.sink
        if not lead and (yield from source.accept(self._open)) is None:
            return None
        header, marker = yield from source.collect(self._name_end)
        name = header.strip().strip("\"'")
        is_name = bool(name) and len(name) <= _MAX_NAME and "\n" not in name
        if marker != ">" or not is_name or (is_bare and not context.offers(name)):
            return None
        sink.begin(name)
        root = _Element(name)
        end, is_inside = yield from self._read(context, root)
        writer = ObjectWriter(sink, context.functions.get(name))
        for key, json_text in _members(root, writer.schema).items():
            writer.add(key, json_text)
        if end is not None or not (is_inside or source.is_cut):
            writer.close()
        if end is not None and end not in self._closes:
            source.give_back(end)
        return 1

    def _read(self, context: Context, root: _Element) -> Steps[tuple[str | None, bool]]:
        """Read the elements of a call; one that is not closed is left out.

        Returns:
            The marker that ended the call, None at the end of the text; and whether an element
            was open there.
        """
        source, spell = context.source, context.sink.spell
        open_elements = [root]
        while True:
            text, marker = yield from source.collect(self._tag)
            open_elements[-1].parts.append(spell(text))
            if marker is None or marker not in self._element_tags:
                break
            tag, end = yield from source.collect(self._tag_end)
            if end != ">":
                if end is not None:
                    source.give_back(end)
                continue
            name = spell(tag.strip().rstrip("/").rstrip())
            if marker in self._element_closes:
                _close(open_elements, name)
            elif name and len(open_elements) <= _MAX_DEPTH:
                child = _Element(name)
                open_elements[-1].children.append(child)
                if not tag.rstrip().endswith("/"):
                    open_elements.append(child)
        is_inside = len(open_elements) > 1
        if is_inside:
            root.children.pop()
        return marker, is_inside


def _close(open_elements: list[_Element], name: str) -> None:
    """Close the innermost element of this name, and with it all that are inside."""
    for i in range(len(open_elements) - 1, 0, -1):
        if open_elements[i].name == name:
            del open_elements[i:]
            return


def _members(element: _Element, schema: Schema | None) -> dict[str, str]:
    """JSON text of the children by name; several of one name are a list."""
    found: dict[str, list[_Element]] = {}
    for child in element.children:
        found.setdefault(child.name, []).append(child)
    members = {}
    for name, same in found.items():
        inner = schemas.property_schema(schema, name)
        if len(same) == 1:
            members[name] = _value(same[0], inner)
        else:
            is_list = "array" in schemas.types(inner)
            members[name] = _list(same, schemas.items_schema(inner) if is_list else inner)
    return members


def _list(elements: list[_Element], schema: Schema | None) -> str:
    return f"[{', '.join(_value(each, schema) for each in elements)}]"


def _value(element: _Element, schema: Schema | None) -> str:
    wanted = schemas.types(schema)
    text = "".join(element.parts)
    if not element.children:
        if not text.strip() and not schemas.allows_text(schema):
            return "[]" if "array" in wanted else "{}" if "object" in wanted else "null"
        return schemas.coerce(text, schema)
    if "array" in wanted and "object" not in wanted:
        return _list(element.children, schemas.items_schema(schema))
    members = _members(element, schema)
    if text.strip():
        members[_TEXT_KEY] = schemas.dump(text.strip())
    pairs = (f"{schemas.dump(name)}: {value}" for name, value in members.items())
    return f"{{{', '.join(pairs)}}}"
