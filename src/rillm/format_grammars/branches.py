"""A JSON schema as the alternatives it allows, each of one type: what a grammar is made of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rillm.format_grammars.lark import ANY, GrammarError, Lark, regex
from rillm.formats import schema as schemas
from rillm.formats.syntax.base import Schema

_TYPES: Final = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_LEFT_OUT: Final = frozenset(
    {
        *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems"),
        *("patternProperties", "propertyNames", "minProperties", "maxProperties"),
        *("dependentRequired", "dependentSchemas", "dependencies", "prefixItems"),
        *("unevaluatedItems", "unevaluatedProperties"),
    }
)
"""Keywords that no grammar made here enforces."""
_SAYS_SOMETHING: Final = frozenset(
    {
        *("properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
        *("minLength", "maxLength", "pattern", "format", "multipleOf"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)
"""Keywords that speak of values of one type, and of no others."""
_MAX_DEPTH: Final = 32
_MAX_BRANCHES: Final = 256
_MAX_COUNT: Final = 10**9
"""No text has so many characters and no list so many items."""
_MAX_PATTERN: Final = 2048
"""Longest `pattern`, in characters."""
_ELEMENT: Final = re.compile(
    r"\\.|(?P<set>\[(?:\\.|[^\]\\])*(?:\]|\Z))|(?P<anchor>[|^$]|\(\?[^:])", re.DOTALL
)
_SET_OPERATION: Final = re.compile(r"^\[\^?\[|--|&&|~~|\|\|")
"""What engines read in different ways."""
_REFERENCE_WORK: Final = 16


class Branches:
    """Reads the schemas of one tool."""

    def __init__(self, lark: Lark, root: Schema, *, is_strict: bool) -> None:
        """Read.

        Args:
            lark: what it is read for; counts the work.
            root: where references lead.
            is_strict: whether a keyword that cannot be enforced is an error.
        """
        self._lark = lark
        self._root = root
        self._is_strict = is_strict

    def of(self, schema: Any) -> list[dict[str, Any]]:
        """The alternatives of a schema.

        Returns:
            Schemas, each with `enum`, or with one `type`, or empty for any value.

        Raises:
            GrammarError: the schema says what cannot be enforced, or allows nothing.
        """
        found = []
        for each in self._flat(schema, 0):
            self._lark.spend(1 + len(each))
            if each not in found:
                found.append(each)
            if len(found) > _MAX_BRANCHES:
                raise GrammarError(f"must have at most {_MAX_BRANCHES} alternatives")
        return found

    def _flat(self, schema: Any, depth: int) -> Iterator[dict[str, Any]]:
        if depth > _MAX_DEPTH:
            raise GrammarError("refers to itself without end")
        if schema is False:
            return
        if not isinstance(schema, Mapping):
            yield {}
            return
        schema = self._whole(schema)
        for union in ("anyOf", "oneOf"):
            options = schema.get(union)
            if isinstance(options, list):
                rest = {key: schema[key] for key in schema if key != union}
                for option in options:
                    if isinstance(option, Mapping):
                        option = self._merged(rest, self._followed(option))
                    yield from self._flat(option, depth + 1)
                return
        yield from self._typed(schema)

    def _whole(self, schema: Schema) -> dict[str, Any]:
        """A schema with what `$ref` and `allOf` add to it."""
        whole = self._followed(schema)
        for _ in range(_MAX_DEPTH):
            if not isinstance(whole.get("allOf"), list):
                return whole
            for part in whole.pop("allOf"):
                if part is False:
                    raise GrammarError("allows nothing")
                whole = self._merged(whole, self._followed(part))
        raise GrammarError("refers to itself without end")

    def _followed(self, schema: Any) -> dict[str, Any]:
        """A schema without references, and without the definitions that they lead to."""
        if not isinstance(schema, Mapping):
            return {}
        self._lark.spend(_REFERENCE_WORK if "$ref" in schema else 1)
        beside = {key: schema[key] for key in schema if key != "$ref"}
        followed = schemas.resolve(schema, self._root) if "$ref" in schema else schema
        if "$ref" in followed:
            raise GrammarError(f"$ref {followed['$ref']!r} leads nowhere")
        if followed is not schema and beside:
            followed = self._merged(followed, beside)
        return {key: followed[key] for key in followed if key not in ("$defs", "definitions")}

    def _merged(self, one: Schema, other: Schema) -> dict[str, Any]:
        """What both say; the second where they differ."""
        merged = {**one, **other}
        for key in one.keys() & other.keys() - _SAYS_NOTHING:
            first, second = one[key], other[key]
            if key in ("properties", "$defs", "definitions") and _are(Mapping, first, second):
                self._lark.spend(len(first) + len(second))
                merged[key] = {**first, **second}
                clashes = [name for name in second if first.get(name, second[name]) != second[name]]
            elif key in ("required", "allOf") and _are(list, first, second):
                self._lark.spend(len(first) + len(second))
                merged[key] = [*first, *second]
                clashes = []
            else:
                clashes = [key] if first != second else []
            if clashes and self._is_strict:
                raise GrammarError(f"{clashes[0]!r} is said in two ways, which cannot be enforced")
        self._lark.spend(1 + len(merged))
        return merged

    def _typed(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "const" in schema or isinstance(schema.get("enum"), list):
            values = [schema["const"]] if "const" in schema else schema["enum"]
            yield {"enum": values}
            return
        schema.pop("enum", None)
        if self._is_strict:
            for key in schema.keys() & _LEFT_OUT:
                raise GrammarError(f"{key} cannot be enforced in this model's format")
        names = schema.get("type")
        if names is None:
            names = [name for name, keys in _IMPLIED.items() if schema.keys() & keys]
            # A schema of several such keywords allows values of other types as well.
            names = names if len(names) == 1 else None
            if names is None and self._is_strict and schema.keys() & _SAYS_SOMETHING:
                names = sorted(_TYPES - {"integer"})
        names = names if isinstance(names, list) else [names]
        names = [each for each in names if isinstance(each, str)]
        if not names:
            yield {}
        for name in names:
            standard = name if name in _TYPES else min(schemas.types({"type": name}))
            yield {**schema, "type": standard}


_IMPLIED: Final = {"object": {"properties"}, "array": {"items"}}


_SAYS_NOTHING: Final = frozenset(
    ("title", "description", "default", "examples", "example", "deprecated", "$comment", "$schema")
)


def _are(kind: type, *values: object) -> bool:
    return all(isinstance(each, kind) for each in values)


def members(schema: Schema) -> list[tuple[str, Any, bool]]:
    """The properties that an object may have: name, schema, and whether it must have it."""
    declared = schemas.properties(schema)
    listed = schema.get("required")
    listed = listed if isinstance(listed, list) else []
    required = {each: True for each in listed if isinstance(each, str)}
    extra = {name: True for name in required if name not in declared}
    return [(name, inner, name in required) for name, inner in {**declared, **extra}.items()]


def bounds(schema: Schema, of: str) -> tuple[int, int | None]:
    """`minItems` and `maxItems`, or the same of another word."""
    least = _number(schema.get(f"min{of}"), 0)
    most = _number(schema.get(f"max{of}"), _MAX_COUNT)
    if least >= _MAX_COUNT or most < max(least, 0):
        raise GrammarError(f"min{of} and max{of} leave room for nothing that can be written")
    return max(math.ceil(least), 0), None if most >= _MAX_COUNT else math.floor(most)


def _number(value: Any, default: int) -> int | float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and not math.isnan(value) else default


def pattern_of(schema: Schema, *, is_strict: bool) -> str:
    """The regular expression of the whole texts that fit a schema's `pattern`.

    Raises:
        GrammarError: the pattern needs more than a regular expression can say.
    """
    pattern = schema.get("pattern")
    if not isinstance(pattern, str):
        return ANY
    if len(pattern) > _MAX_PATTERN:
        raise GrammarError(
            f"has a pattern of {len(pattern)} characters, must have at most {_MAX_PATTERN}"
        )
    inner = pattern.removeprefix("^")
    has_end = bool(re.search(r"(?<!\\)(?:\\\\)*\$\Z", inner))
    inner = inner[:-1] if has_end else inner
    try:
        has_alternatives = _checked_elements(inner)
        re.compile(pattern)
        if has_alternatives and (inner != pattern) and not _is_grouped(inner):
            raise ValueError("|")
    except (re.error, ValueError, RecursionError, OverflowError):
        if is_strict:
            raise GrammarError(f"pattern {pattern!r} cannot be enforced") from None
        return ANY
    before = "" if inner is not pattern and pattern.startswith("^") else "(?s:.*)"
    after = "" if has_end else "(?s:.*)"
    return regex(f"{before}(?:{inner}){after}")


def _checked_elements(pattern: str) -> bool:
    """Whether a pattern has alternatives; raises ValueError where it has what is no expression."""
    has_alternatives = False
    for match in _ELEMENT.finditer(pattern):
        if match["set"] and _SET_OPERATION.search(match["set"]):
            raise ValueError(match["set"])
        has_alternatives |= match["anchor"] == "|"
        if match["anchor"] not in (None, "|"):
            raise ValueError(match["anchor"])
    return has_alternatives


def _is_grouped(pattern: str) -> bool:
    """Whether all alternatives of a pattern are inside of groups."""
    depth = 0
    for match in re.finditer(r"\\.|\[(?:\\.|[^\]\\])*\]|([()|])", pattern, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(match[1] or "", 0)
        if match[1] == "|" and depth == 0:
            return False
    return True
