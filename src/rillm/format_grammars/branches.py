"""A JSON schema as the alternatives it allows, each of one type: what a grammar is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rillm.format_grammars.lark import ANY, GrammarError, regex
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
_MAX_DEPTH: Final = 32
_MAX_BRANCHES: Final = 256
_OTHER_ANCHOR: Final = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|([|^$]|\(\?[=!<])", re.DOTALL)


class Branches:
    """Reads the schemas of one tool."""

    def __init__(self, root: Schema, *, is_strict: bool) -> None:
        """Read.

        Args:
            root: where references lead.
            is_strict: whether a keyword that cannot be enforced is an error.
        """
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
        schema = _followed(schema, self._root)
        parts = [schema.pop(each) for each in ("allOf",) if isinstance(schema.get(each), list)]
        for part in parts[0] if parts else ():
            schema = _merged(schema, _followed(part, self._root))
        for union in ("anyOf", "oneOf"):
            options = schema.get(union)
            if isinstance(options, list):
                rest = {key: schema[key] for key in schema if key != union}
                for option in options:
                    if isinstance(option, Mapping):
                        option = _merged(rest, _followed(option, self._root))
                    yield from self._flat(option, depth + 1)
                return
        yield from self._typed(schema)

    def _typed(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "const" in schema or isinstance(schema.get("enum"), list):
            values = [schema["const"]] if "const" in schema else schema["enum"]
            yield {"enum": values}
            return
        if self._is_strict:
            for key in schema.keys() & _LEFT_OUT:
                raise GrammarError(f"{key} cannot be enforced in this model's format")
        names = schema.get("type")
        if names is None:
            names = [name for name, keys in _IMPLIED.items() if schema.keys() & keys]
            # A schema of several such keywords allows values of other types as well.
            names = names if len(names) == 1 else None
        names = names if isinstance(names, list) else [names]
        names = [each for each in names if isinstance(each, str)]
        if not names:
            yield {}
        for name in names:
            standard = name if name in _TYPES else min(schemas.types({"type": name}))
            yield {**schema, "type": standard}


_IMPLIED: Final = {"object": {"properties"}, "array": {"items"}}


def _followed(schema: Any, root: Schema) -> dict[str, Any]:
    """A schema without references, and without the definitions that they lead to."""
    if not isinstance(schema, Mapping):
        return {}
    beside = {key: schema[key] for key in schema if key != "$ref"}
    followed = schemas.resolve(schema, root) if "$ref" in schema else schema
    if "$ref" in followed:
        raise GrammarError(f"$ref {followed['$ref']!r} leads nowhere")
    if followed is not schema and beside:
        followed = _merged(followed, beside)
    return {key: followed[key] for key in followed if key not in ("$defs", "definitions")}


def _merged(one: Schema, other: Schema) -> dict[str, Any]:
    """What both say; the second where they differ."""
    merged = {**one, **other}
    if isinstance(one.get("properties"), Mapping) and isinstance(other.get("properties"), Mapping):
        merged["properties"] = {**one["properties"], **other["properties"]}
    if isinstance(one.get("required"), list) and isinstance(other.get("required"), list):
        merged["required"] = [*dict.fromkeys((*one["required"], *other["required"]))]
    return merged


def members(schema: Schema) -> list[tuple[str, Any, bool]]:
    """The properties that an object may have: name, schema, and whether it must have it."""
    declared = schemas.properties(schema)
    listed = schema.get("required")
    listed = listed if isinstance(listed, list) else []
    required = [each for each in listed if isinstance(each, str)]
    extra = {name: True for name in required if name not in declared}
    return [(name, inner, name in required) for name, inner in {**declared, **extra}.items()]


def bounds(schema: Schema, of: str) -> tuple[int, int | None]:
    """`minItems` and `maxItems`, or the same of another word."""
    least, most = schema.get(f"min{of}"), schema.get(f"max{of}")
    return (
        int(least) if isinstance(least, int | float) and least > 0 else 0,
        int(most) if isinstance(most, int | float) else None,
    )


def pattern_of(schema: Schema, *, is_strict: bool) -> str:
    """The regular expression of the whole texts that fit a schema's `pattern`.

    Raises:
        GrammarError: the pattern needs more than a regular expression can say.
    """
    pattern = schema.get("pattern")
    if not isinstance(pattern, str):
        return ANY
    inner = pattern.removeprefix("^")
    has_end = bool(re.search(r"(?<!\\)(?:\\\\)*\$\Z", inner))
    inner = inner[:-1] if has_end else inner
    has_alternatives = False
    try:
        re.compile(pattern)
        for match in _OTHER_ANCHOR.finditer(inner):
            has_alternatives |= match[1] == "|"
            if match[1] not in (None, "|"):
                raise ValueError(match[1])
        if has_alternatives and (inner != pattern) and not _is_grouped(inner):
            raise ValueError("|")
    except (re.error, ValueError, RecursionError, OverflowError):
        if is_strict:
            raise GrammarError(f"pattern {pattern!r} cannot be enforced") from None
        return ANY
    before = "" if inner is not pattern and pattern.startswith("^") else "(?s:.*)"
    after = "" if has_end else "(?s:.*)"
    return regex(f"{before}(?:{inner}){after}")


def _is_grouped(pattern: str) -> bool:
    """Whether all alternatives of a pattern are inside of groups."""
    depth = 0
    for match in re.finditer(r"\\.|\[(?:\\.|[^\]\\])*\]|([()|])", pattern, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(match[1] or "", 0)
        if match[1] == "|" and depth == 0:
            return False
    return True
