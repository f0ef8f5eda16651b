"""Whether arguments are what a function asks for.

Reads the keywords that functions are declared with: `type`, `enum`, `const`, `properties`,
`required`, `additionalProperties`, `items`. Other keywords admit everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def violations(value: Any, schema: Mapping[str, Any], path: str = "$") -> Iterator[str]:
    """What is wrong with a value, in words; nothing where it is as declared.

    Args:
        value: decoded JSON.
        schema: JSON schema.
        path: where the value is.
    """
    declared = schema.get("type")
    names = [declared] if isinstance(declared, str) else declared or []
    if names and not any(_is_a(value, name) for name in names):
        yield f"{path} is {value!r}, must be of type {' or '.join(names)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path} is {value!r}, must be one of {schema['enum']}"
    if "const" in schema and value != schema["const"]:
        yield f"{path} is {value!r}, must be {schema['const']!r}"
    if isinstance(value, dict):
        yield from _of_object(value, schema, path)
    items = schema.get("items")
    if isinstance(value, list) and isinstance(items, Mapping):
        for i, item in enumerate(value):
            yield from violations(item, items, f"{path}[{i}]")


def _is_a(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(name, (object,)))


def _of_object(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    properties = schema.get("properties") or {}
    for name in schema.get("required") or ():
        if name not in value:
            yield f"{path}.{name} is missing"
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            yield from violations(item, properties[name], f"{path}.{name}")
        elif others is False:
            yield f"{path}.{name} is not declared"
        elif isinstance(others, Mapping):
            yield from violations(item, others, f"{path}.{name}")
