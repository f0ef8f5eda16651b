"""Values written as literals that say their own type: JSON, Python's, Gemma's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from rillm.format_grammars.branches import Branches, bounds, members, pattern_of
from rillm.format_grammars.lark import (
    ANY,
    GrammarError,
    Lark,
    any_of,
    json_value,
    literal,
    many,
    optional,
    sequence,
    without,
)
from rillm.formats.syntax.base import Schema

INTEGER: Final = "/-?(0|[1-9][0-9]{0,20})/"
NUMBER: Final = r"/-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?/"
_LIMITS: Final = frozenset(
    ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
)
_MAX_DEPTH: Final = 48


class Literals:
    """JSON, and what other notations do in another way.

    The markers that end a value from outside, `excluded`, cannot stand in a string.
    """

    words: Mapping[bool | None, str] = {True: "true", False: "false", None: "null"}
    comma: str = "/, ?/"
    marks: str = '"'
    """Quotation marks, each of which can go around a string."""
    escapes: str = r"\\u([0-9a-ce-f][0-9a-f]{3}|d[0-7][0-9a-f]{2})"
    """Escapes by number, as a regular expression: whole characters only."""

    def __init__(
        self, lark: Lark, root: Schema, *, is_strict: bool, excluded: Iterable[str] = ()
    ) -> None:
        self.lark = lark
        self.branches = Branches(lark, root, is_strict=is_strict)
        self.is_strict = is_strict
        self._without = without(excluded)
        self._excluded = tuple(excluded)
        self._rules: dict[str, str] = {}
        self._depth = 0

    def value(self, schema: Any) -> str:
        """Any value that fits a schema."""
        key = json.dumps(schema, sort_keys=False, default=str)
        if key not in self._rules:
            if self._depth > _MAX_DEPTH:
                raise GrammarError(f"is nested more than {_MAX_DEPTH} levels deep")
            self._rules[key] = name = self.lark.declare("v")
            self._depth += 1
            parts = [self.branch(each) for each in self.branches.of(schema)]
            self._depth -= 1
            self.lark.define(name, any_of(parts))
        return self._rules[key]

    def branch(self, schema: Schema) -> str:
        """A value of one type."""
        if "enum" in schema:
            return any_of(map(self.constant, schema["enum"]))
        match schema.get("type"):
            case "string":
                return self.string(schema)
            case "integer" | "number" as kind:
                return number(schema, kind, is_strict=self.is_strict)
            case "boolean":
                return any_of([literal(self.words[True]), literal(self.words[False])])
            case "null":
                return literal(self.words[None])
            case "array":
                return self._array(schema)
            case "object":
                return self.object(schema)
        return self._anything()

    def constant(self, value: Any) -> str:
        """Exactly this value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            inner = [each for item in value for each in (literal(", "), self.constant(item))]
            return sequence(literal("["), *inner[1:], literal("]"))
        if isinstance(value, dict):
            pairs = [
                each
                for name, item in value.items()
                for each in (literal(", "), self.key(name), self.constant(item))
            ]
            return sequence(literal("{"), *pairs[1:], literal("}"))
        word = self.words.get(value) if value is None or isinstance(value, bool) else None
        return literal(word or json.dumps(value))

    def text(self, value: str) -> str:
        """Exactly this string."""
        quoted = json.dumps(value, ensure_ascii=False)
        for marker in self._excluded:
            if marker in quoted:
                quoted = quoted.replace(marker[0], f"\\u{ord(marker[0]):04x}")
        return literal(quoted)

    def string(self, schema: Schema) -> str:
        """A string."""
        least, most = bounds(schema, "Length")
        times = "*" if (least, most) == (0, None) else f"{{{least},{'' if most is None else most}}}"
        pattern = pattern_of(schema, is_strict=self.is_strict)
        found = []
        for mark in self.marks:
            plain = rf"[^{mark}\\\x00-\x1f]"
            inner = rf"/({plain}|\\[{mark}\\nrt]|{self.escapes}){times}/"
            if pattern != ANY:
                # Written without escapes, the text is what the pattern is about.
                inner = f"(/{plain}{times}/ & {pattern})"
            found.append(sequence(literal(mark), inner, literal(mark)))
        body = any_of(found)
        if self._without != ANY:
            body = f"({body} & {self._without})"
        return self.lark.terminal("STRING", body)

    def key(self, name: str) -> str:
        """The key of an object, and what goes between it and its value."""
        return sequence(self.text(name), "/: ?/")

    def free_key(self) -> str:
        """Any key, as above."""
        return sequence(self.string({}), "/: ?/")

    def object(self, schema: Schema) -> str:
        """An object of the properties that are declared; of any where none are."""
        declared = members(schema)
        additional = schema.get("additionalProperties", True)
        if declared or additional is False:
            inner = self.properties(schema, self.key)
        else:
            item = sequence(self.free_key(), self.value(additional))
            inner = many(item, self.comma, 0)
        return sequence(literal("{"), inner, literal("}"))

    def properties(self, schema: Schema, key: Callable[[str], str]) -> str:
        """An object's properties in their order; those that are not required may be left out.

        Args:
            schema: of the object.
            key: how a property's name is written, and what goes between it and its value.
        """
        first: str | None = None
        later: str | None = None
        for name, inner, is_required in reversed(members(schema)):
            member = sequence(key(name), self.value(inner))
            tail = later or ""
            begins, goes_on = sequence(member, tail), sequence(self.comma, member, tail)
            if not is_required:
                begins = f"({begins} | {first})" if first else optional(begins)
                goes_on = f"({goes_on} | {later})" if later else optional(goes_on)
            first, later = self.lark.rule("first", begins), self.lark.rule("later", goes_on)
        return first or ""

    def _array(self, schema: Schema) -> str:
        least, most = bounds(schema, "Items")
        item = self.value(schema.get("items", True))
        return sequence(literal("["), many(item, self.comma, least, most), literal("]"))

    def _anything(self) -> str:
        return any_of(
            [
                self.string({}),
                NUMBER,
                *(literal(word) for word in self.words.values()),
                self._array({}),
                self.object({}),
            ]
        )


class PythonLiterals(Literals):
    """Literals of Python."""

    words: Mapping[bool | None, str] = {True: "True", False: "False", None: "None"}
    marks = "\"'"
    escapes = rf"{Literals.escapes}|\\x[0-9a-f]{{2}}"

    def argument(self, name: str) -> str:
        """The name of a keyword argument."""
        if not name.isidentifier():
            raise GrammarError(f"{name!r} cannot be a parameter's name in this model's format")
        return literal(f"{name}=")


def number(schema: Schema, kind: str, *, is_strict: bool) -> str:
    """A number, which all notations write as JSON does."""
    if not has_limits(schema):
        return INTEGER if kind == "integer" else NUMBER
    limits = {key: schema[key] for key in schema if key in _LIMITS}
    return json_value({"type": kind, **limits}, is_lenient=not is_strict)


def has_limits(schema: Schema) -> bool:
    """Whether not all numbers of a schema's type fit it."""
    return not _LIMITS.isdisjoint(schema)
