"""Typing of values whose syntax carries no type, by the JSON schema of the function's arguments.

Source: JSON Schema 2020-12 (https://json-schema.org/draft/2020-12), of which the keywords that
say a type are read: `type`, `enum`, `const`, `anyOf`, `oneOf`, `allOf`, `$ref`, and what a schema
says of the inside of objects and arrays.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rillm.formats.syntax.base import Schema

_SPELLINGS: Final = {
    "string": "str text varchar char enum",
    "integer": "int uint long short unsigned",
    "number": "float double num decimal",
    "boolean": "bool",
    "object": "dict map",
    "array": "list arr tuple set",
    "null": "none",
}
_ALIASES: Final = {each: name for name, others in _SPELLINGS.items() for each in others.split()}
_ORDER: Final = ("null", "integer", "number", "boolean", "object", "array", "string")
_JSON_TYPES: Final = dict(zip((type(None), int, float, bool, dict, list, str), _ORDER, strict=True))
_SIZED: Final = re.compile(r"(u?int|float)[0-9]+")
"""Numbers with their width, as some languages name them."""
_UNIONS: Final = ("anyOf", "oneOf", "allOf")
_MAX_REFERENCES: Final = 32
_MAX_REFERENCE: Final = 512
"""Longest reference that is followed, in characters."""
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BOOLEANS: Final = {"true": "true", "1": "true", "false": "false", "0": "false"}
_EXACT: Final = 2.0**53
"""Up to here every whole number is a float."""
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


def properties(schema: Schema) -> Mapping[str, Any]:
    """The properties that a schema declares."""
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def property_schema(schema: Schema | None, key: str) -> Schema | None:
    """The schema of one property, its references resolved; None where it is not declared."""
    if schema is None:
        return None
    found = properties(schema).get(key, schema.get("additionalProperties"))
    return resolve(found, schema) if isinstance(found, Mapping) else None


def items_schema(schema: Schema | None) -> Schema | None:
    """The schema of an array's items, its references resolved; None where none is declared."""
    items = None if schema is None else schema.get("items")
    return resolve(items, schema or {}) if isinstance(items, Mapping) else None


def resolve(schema: Schema, root: Schema) -> Schema:
    """Follow `$ref`; the definitions of `root` stay reachable from the result."""
    schema = _follow(schema, root)
    shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return {**shared, **schema} if shared else schema


def _follow(schema: Schema, root: Schema) -> Schema:
    for _ in range(_MAX_REFERENCES):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        if len(reference) > _MAX_REFERENCE:
            break
        target: Any = root
        for part in reference[2:].split("/"):
            target = target.get(part) if isinstance(target, Mapping) else None
        if not isinstance(target, Mapping):
            break
        schema = target
    return schema


def types(schema: Schema | None) -> frozenset[str]:
    """The JSON types that a value of this schema may have; empty where it says nothing."""
    return frozenset() if schema is None else frozenset(_types(schema, schema))


def _types(schema: Schema, root: Schema) -> Iterator[str]:
    pending = [schema]
    seen: set[int] = set()
    while pending:
        schema = _follow(pending.pop(), root)
        if id(schema) in seen:
            continue
        seen.add(id(schema))
        declared = schema.get("type")
        for name in declared if isinstance(declared, list) else [declared]:
            if isinstance(name, str):
                yield _standard_name(name)
        if declared is None:
            yield from _implied_types(schema)
        for keyword in _UNIONS:
            pending += (each for each in _list(schema.get(keyword)) if isinstance(each, Mapping))


def _implied_types(schema: Schema) -> Iterator[str]:
    """The types that the other keywords speak of."""
    yield from map(_type_of, _listed(schema))
    if isinstance(schema.get("properties"), Mapping):
        yield "object"
    if "items" in schema:
        yield "array"


def _listed(schema: Schema) -> list[Any]:
    """The values that an enumeration lists."""
    return [*_list(schema.get("enum")), *([schema["const"]] if "const" in schema else [])]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _standard_name(name: str) -> str:
    name = name.strip().lower().split("[")[0]
    if name in _ORDER:
        return name
    sized = _SIZED.fullmatch(name)
    return _ALIASES.get(sized[1] if sized is not None else name, "string")


def _type_of(value: Any) -> str:
    return _JSON_TYPES.get(type(value), "string")


def is_text(schema: Schema | None) -> bool:
    """Whether a value can only be a string, so that its text may stream before it ends."""
    return types(schema) in (frozenset(), frozenset({"string"}))


def allows_text(schema: Schema | None) -> bool:
    """Whether a value may be a string."""
    allowed = types(schema)
    return not allowed or "string" in allowed


def json_or_text(text: str) -> str:
    """Raw text as the JSON that it is, character for character, or else as a string."""
    try:
        _loads(text.strip())
    except ValueError:
        return dump(text)
    return text.strip()


def as_object(json_text: str) -> dict[str, Any] | None:
    """Decode an object, which may be written inside a string; None for anything else."""
    try:
        value = _loads(json_text)
        if isinstance(value, str):
            value = _loads(value)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def coerce(text: str, schema: Schema | None) -> str:
    """Give raw text the type that its schema asks for.

    The types are tried from the narrowest to the widest: null, integer, number, boolean, object,
    array, string. Text that fits none of them is decoded as JSON, or else stays a string.

    Args:
        text: as the model wrote it.
        schema: of the value; None for none.

    Returns:
        JSON text.
    """
    wanted = types(schema)
    if schema is None or not wanted:
        return dump(text)
    literals = {each if isinstance(each, str) else dump(each): each for each in _listed(schema)}
    if text in literals:
        return dump(literals[text])
    for name in _ORDER:
        if name in wanted:
            try:
                return _as_type(name, text, schema)
            except (ValueError, OverflowError, RecursionError):
                continue
    return json_or_text(text)


def _as_type(name: str, text: str, schema: Schema) -> str:
    """Text as JSON of one type; raises ValueError where it is not that."""
    bare = text.strip()
    match name:
        case "null" if bare.lower() in ("null", "none"):
            return "null"
        case "integer" if _NUMBER.fullmatch(bare):
            number = _number(bare)
            if isinstance(number, int):
                return dump(number)
        case "number" if _NUMBER.fullmatch(bare):
            return dump(_number(bare))
        case "boolean" if bare.lower() in _BOOLEANS:
            return _BOOLEANS[bare.lower()]
        case "object" | "array":
            return _structure(bare, dict if name == "object" else list, schema)
        case "string":
            return dump(text)
    raise ValueError(f"no {name}")


def _number(text: str) -> int | float:
    if _WHOLE.fullmatch(text):
        return int(text)
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < _EXACT else number


def _structure(text: str, kind: type, schema: Schema) -> str:
    """JSON text of an object or array; models mix JSON up with Python literals."""
    is_json = True
    try:
        value = _loads(text)
    except ValueError:
        if text[:1] not in ("{", "["):
            raise
        is_json = False
        value = _python_literal(text)
    if not isinstance(value, kind):
        raise ValueError(f"no {kind.__name__}")
    typed = _coerce_inside(value, schema)
    # What need not change is passed through character for character.
    return text if is_json and typed == value else dump(typed)


def _python_literal(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
        return json.loads(dump(value))
    except (SyntaxError, TypeError, MemoryError) as error:
        raise ValueError("no literal") from error


def _loads(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _coerce_inside(value: Any, schema: Schema) -> Any:
    """Coerce the strings inside of a decoded object or array."""
    schema = _branch(schema, value)
    if isinstance(value, dict):
        return {
            key: _coerce_item(item, property_schema(schema, key)) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_coerce_item(item, items_schema(schema)) for item in value]
    return value


def _branch(schema: Schema, value: Any) -> Schema:
    """The branch of a union that a value belongs to, as its type tells."""
    wanted = _type_of(value)
    for keyword in _UNIONS:
        for option in _list(schema.get(keyword)):
            if isinstance(option, Mapping) and wanted in _types(option, schema):
                return resolve(option, schema)
    return schema


def _coerce_item(value: Any, schema: Schema | None) -> Any:
    if schema is None:
        return value
    if isinstance(value, str):
        return value if allows_text(schema) else _loads(coerce(value, schema))
    return _coerce_inside(value, schema)


def dump(value: Any) -> str:
    """JSON text of a value; other scripts stay as they are.

    Raises:
        ValueError: a number has no JSON text.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    # Halves of a pair have no UTF-8; inside a string they can be escaped.
    return _SURROGATES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
