"""Arguments written value by value: a JSON object that grows as its values arrive."""

from __future__ import annotations

import re
from html import unescape
from typing import Final, Literal

from rillm.formats import schema as schemas
from rillm.formats.json_text import quote
from rillm.formats.sink import Sink
from rillm.formats.source import Emit
from rillm.formats.syntax.base import Schema

Trim = Literal["none", "newline", "strip"]
"""Whitespace around a value: data, or markup as far as one newline at each end, or all of it."""

_SPACE: Final = " \t\r\n"
# XML knows five names; those of HTML would turn `?a=1&copy=2` into something else.
_ENTITY: Final = re.compile(r"&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9a-fA-F]{1,6});")
_ENTITY_START: Final = re.compile(r"&[#0-9A-Za-z]{0,8}\Z")


class ObjectWriter:
    """Writes one call's arguments to a sink."""

    def __init__(self, sink: Sink, schema: Schema | None) -> None:
        """Begin an object whose properties `schema` declares."""
        self._sink = sink
        self.schema: Schema = schema or {}
        self._separator = "{"

    def schema_of(self, key: str) -> Schema | None:
        """The schema of a property."""
        return schemas.property_schema(self.schema, key)

    def key(self, key: str) -> None:
        """Write a key; its value follows."""
        self._sink.arguments(f'{self._separator}"{quote(self._sink.spell(key))}": ')
        self._separator = ", "

    def add(self, key: str, json_text: str) -> None:
        """Write a key and its whole value."""
        self.key(key)
        self._sink.arguments(json_text)

    def close(self) -> None:
        """The object, and with it the call, is complete."""
        self._sink.last_argument("}" if self._separator != "{" else "{}")
        self._sink.complete()


class StringValue:
    """A string value that streams; the text comes as the model writes it."""

    def __init__(self, sink: Sink, trim: Trim) -> None:
        """Open the string."""
        self._sink = sink
        self._trim = trim
        self._is_first = True
        self._held: list[str] = []
        sink.arguments('"')

    def add(self, text: str) -> None:
        """Add text."""
        if self._trim != "none" and text:
            text = self._trimmed(text)
        if text:
            self._sink.arguments(quote(self._sink.spell(text)))

    def _trimmed(self, text: str) -> str:
        """The text as far as it is certain; what may be markup is held."""
        if self._is_first:
            text = self._without_front(text)
            self._is_first = not text and self._trim == "strip"
            if not text:
                return ""
        shown = text.removesuffix("\n") if self._trim == "newline" else text.rstrip(_SPACE)
        tail = text[len(shown) :]
        if not shown and self._trim == "strip":
            self._held.append(tail)
            return ""
        shown = "".join(self._held) + shown
        self._held = [tail] if tail else []
        return shown

    def _without_front(self, text: str) -> str:
        return text.removeprefix("\n") if self._trim == "newline" else text.lstrip(_SPACE)

    def close(self) -> None:
        """Close the string; whitespace at its end was markup."""
        self._sink.arguments('"')

    def cut(self) -> None:
        """The text ends in the middle of the string."""
        self._sink.arguments(quote("".join(self._held)))


class Entities:
    """Decodes XML entities in text that comes in pieces."""

    def __init__(self, emit: Emit) -> None:
        """Hand the decoded text to `emit`."""
        self._emit = emit
        self._held = ""

    def add(self, text: str) -> None:
        """Add text."""
        text = self._held + text
        start = _ENTITY_START.search(text)
        self._held = "" if start is None else start[0]
        self._emit(decode_entities(text[: len(text) - len(self._held)]))

    def flush(self) -> None:
        """Nothing follows: what looked like an entity is text."""
        self._emit(self._held)
        self._held = ""


def decode_entities(text: str) -> str:
    """Decode the entities of XML; others are text."""
    return _ENTITY.sub(lambda match: unescape(match[0]), text)


def trimmed(text: str, trim: Trim) -> str:
    """A whole value without what is markup."""
    if trim == "newline":
        return text.removeprefix("\n").removesuffix("\n")
    return text.strip(_SPACE) if trim == "strip" else text
