"""Calls written as JSON objects: `{"name": "f", "arguments": {...}}`, alone or in an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rillm.formats.json_text import json_string, json_value, unquoted, without_controls
from rillm.formats.sink import Sink
from rillm.formats.source import Markers, Source, Steps
from rillm.formats.syntax.base import CallParser, CallSyntax, Context

_OTHER_KEYS: Final = ("type",)
"""Keys that models put before the name though they say nothing."""
_QUOTED_OBJECT: Final = Markers(('"{',))


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCall(CallSyntax):
    """One object that holds the name and the arguments, in either order."""

    streams: ClassVar[str] = "the arguments, as they come"
    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments", "parameters")
    id: tuple[str, ...] = ()
    """Keys whose value is the call's id, where the model writes one before the name."""
    unnamed: bool = False
    """The object has one key, which is the name; its value is the arguments."""
    lenient: bool = False
    """The model writes control characters in strings as they are: they get escaped."""
    separator: str = ""
    """What stands between several objects."""

    def parser(self, stops: Sequence[str]) -> CallParser:
        """See `CallSyntax`."""
        return _ObjectParser(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonArray(CallSyntax):
    """An array of such objects; a single object may stand for an array of one."""

    streams: ClassVar[str] = "the arguments, as they come"
    item: JsonCall = JsonCall()
    accepts_object: bool = True

    def parser(self, stops: Sequence[str]) -> CallParser:
        """See `CallSyntax`."""
        return _ArrayParser(self, stops)


class _ObjectParser:
    def __init__(self, syntax: JsonCall) -> None:
        self.syntax = syntax
        keys = (*syntax.name, *syntax.arguments, *syntax.id, *_OTHER_KEYS)
        self.keys = Markers(f'"{key}"' for key in keys)
        """With which an unmarked call begins."""
        self._separator = Markers([syntax.separator])

    def parse(self, context: Context, lead: str, is_bare: bool) -> Steps[int | None]:
        source = context.source
        num_calls = 0
        while (yield from _Object(self, context, is_bare).parse()):
            num_calls += 1
            if not self._separator.literals:
                return num_calls
            source.keep_raw()
            if (yield from source.accept_after_space(self._separator)) is None:
                break
        if num_calls:
            # What follows a call and is none is text, though it stands where one would.
            context.sink.raw(source.drop_raw())
        return num_calls or None


class _ArrayParser:
    def __init__(self, syntax: JsonArray, stops: Sequence[str]) -> None:
        self._accepts_object = syntax.accepts_object
        self._item = syntax.item.parser(stops)

    def parse(self, context: Context, lead: str, is_bare: bool) -> Steps[int | None]:
        source = context.source
        if not (yield from source.accept_one("[")):
            if not self._accepts_object:
                return None
            return (yield from self._item.parse(context, lead, is_bare))
        num_calls = 0
        while True:
            mark = yield from source.accept_one("],")
            if mark == ",":
                continue
            if mark or (yield from source.next_character()) != "{":
                # A bare empty array is an answer; after a marker it is a list of no calls.
                return num_calls or (0 if mark and not is_bare else None)
            if num_calls:
                source.keep_raw()
            if (yield from self._item.parse(context, lead, is_bare)) is not None:
                num_calls += 1
            elif num_calls:
                context.sink.raw(source.drop_raw())
            else:
                return None


class _Object:
    """The state of one object."""

    def __init__(self, parser: _ObjectParser, context: Context, is_bare: bool) -> None:
        self._syntax = parser.syntax
        self._keys = parser.keys
        self._context = context
        self._source: Source = context.source
        self._sink: Sink = context.sink
        self._is_bare = is_bare
        self._name: str | None = None
        self._id: str | None = None
        self._has_begun = False
        self._has_arguments = False
        self._early: list[str] = []

    def parse(self) -> Steps[bool]:
        """Parse the object; returns whether it is a call, which has begun then."""
        source = self._source
        is_open = bool((yield from source.accept_one("{")))
        while is_open:
            mark = yield from source.accept_one("},")
            if mark == "}":
                if self._has_begun:
                    self._sink.complete()
                return self._has_begun
            if not mark:
                key = yield from self._key()
                is_open = key is not None and (yield from self._member(key))
        if self._has_begun:
            self._sink.cut()
        return self._has_begun

    def _key(self) -> Steps[str | None]:
        """Read a key and its colon."""
        key: str | None = None
        if self._is_bare and not self._has_begun:
            # An answer in JSON is shown as soon as a key of it is none of a call's.
            quoted = yield from self._source.accept(self._keys)
            key = None if quoted is None else quoted.strip('"')
        elif (yield from self._source.next_character()) == '"':
            key = yield from json_string(self._source)
        is_key = key is not None and (yield from self._source.accept_one(":"))
        return key if is_key else None

    def _member(self, key: str) -> Steps[bool]:
        """Read a key's value; returns whether the object can go on."""
        syntax = self._syntax
        first = yield from self._source.skip_space()
        if syntax.unnamed:
            if first != "{":
                return False
            self._sink.complete()
            self._name, self._has_begun = key, False
            return (yield from self._read_arguments(first))
        if key in syntax.name and self._name is None and first == '"':
            name = yield from json_string(self._source)
            if not name or (self._is_bare and not self._context.offers(name)):
                return False
            self._name = name
            if not self._is_bare or self._has_arguments:
                self._begin()
            return True
        if key in syntax.arguments and not self._has_arguments:
            return (yield from self._read_arguments(first))
        text, is_whole = yield from self._whole_value()
        if key in syntax.id and not self._has_begun:
            self._id = text.strip('"')
        return is_whole

    def _whole_value(self) -> Steps[tuple[str, bool]]:
        """Read a value; returns its text, and whether it was complete."""
        parts: list[str] = []
        is_whole = yield from json_value(self._source, parts.append, parts.append)
        return "".join(parts), is_whole

    def _read_arguments(self, first: str) -> Steps[bool]:
        self._has_arguments = True
        if self._is_bare and first != "{":
            found = yield from self._source.accept(_QUOTED_OBJECT)
            if found is None:
                return False
            self._source.give_back(found)
        if self._name is not None:
            self._begin()
        emit = emit_last = emit_any = self._early.append
        if self._has_begun:
            emit, emit_last = self._sink.arguments, self._sink.last_argument
            emit_any = self._sink.all_but_last
        if first == '"':
            return (yield from unquoted(self._source, emit_any))
        if first == "n":
            text, is_whole = yield from self._whole_value()
            emit_last(text.removeprefix("null"))
            return is_whole
        if self._syntax.lenient:
            emit = without_controls(emit)
        return (yield from json_value(self._source, emit, emit_last))

    def _begin(self) -> None:
        if self._has_begun:
            return
        assert self._name is not None
        self._has_begun = True
        self._sink.begin(self._name, self._id)
        self._sink.all_but_last("".join(self._early))
