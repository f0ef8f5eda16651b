"""Schemas that mean harm: too deep, too large, without end, multiplied, or not schemas at all."""

from __future__ import annotations

import json
import random
from typing import Any, Final

Schema = dict[str, Any]


def nested(levels: int, key: str = "a") -> Schema:
    schema: Schema = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {key: schema}}
    return schema


def doubled(keyword: str, levels: int = 30) -> Schema:
    """Each definition refers to the next one twice: 2**levels ways through it."""
    definitions: Schema = {
        f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)
    }
    return {
        "$defs": definitions | {f"d{levels}": {"type": "string"}},
        "properties": {"a": {"$ref": "#/$defs/d0"}},
    }


def _of(schema: Any) -> Schema:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


def _text(pattern: str) -> Schema:
    return _of({"type": "string", "pattern": pattern})


def _defined(schema: Schema) -> Schema:
    return {"$defs": {"a": schema}, "properties": {"a": {"$ref": "#/$defs/a"}}}


HOSTILE: Final[dict[str, Schema]] = {
    **{f"nested {levels} deep": nested(levels) for levels in (15, 40, 60, 300)},
    "constant nested deeply": _of({"const": json.loads("[" * 300 + "]" * 300)}),
    "alternatives that double": doubled("anyOf"),
    "other alternatives that double": doubled("oneOf"),
    "parts that double": doubled("allOf"),
    "properties that double": {
        "$defs": {
            f"d{i}": {
                "type": "object",
                "properties": {
                    "a": {"$ref": f"#/$defs/d{i + 1}"},
                    "b": {"$ref": f"#/$defs/d{i + 1}", "title": "b"},
                },
            }
            for i in range(30)
        }
        | {"d30": {"type": "string"}},
        "properties": {"a": {"$ref": "#/$defs/d0"}},
    },
    "refers to itself": {"$ref": "#"},
    "contains itself": _of({"$ref": "#"}),
    "contains itself twice": _defined(
        {"type": "object", "properties": {each: {"$ref": "#/$defs/a"} for each in "lr"}}
    ),
    "a circle": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "properties": {"a": {"$ref": "#/$defs/a"}},
    },
    "all of itself": _defined({"allOf": [{"$ref": "#/$defs/a"}]}),
    "any of itself": _defined({"anyOf": [{"$ref": "#/$defs/a"}] * 2}),
    "long reference": _of({"$ref": "#/" + "a/" * 100_000}),
    **{
        f"reference {kind}": _of({"$ref": value})
        for kind, value in (("number", 5), ("list", ["x"]), ("object", {}), ("elsewhere", "x:y"))
    },
    "many parts": _of({"allOf": [{"properties": {f"p{i}": {}}} for i in range(10_000)]}),
    "many alternatives": _of({"anyOf": [{"const": f"p{i}"} for i in range(10_000)]}),
    "the same many times": _of({"anyOf": [{"type": "string"}] * 10_000}),
    "many types": _of({"type": [f"t{i}" for i in range(20_000)]}),
    "many constants": _of({"enum": [f"p{i}" for i in range(3000)]}),
    "many properties": {"properties": {f"p{i}": {"type": "string"} for i in range(2000)}},
    "many that are required": {"properties": {}, "required": [f"p{i}" for i in range(3000)]},
    "many items": _of({"type": "array", "minItems": 10**12}),
    "many characters": _of({"type": "string", "minLength": 10**12}),
    "no limit": _of({"type": "array", "maxItems": 1e300}),
    "infinitely many": _of({"type": "string", "minLength": float("inf")}),
    "less than nothing": _of({"type": "string", "maxLength": -3}),
    "a count that is true": _of({"type": "array", "minItems": True}),
    "huge divisor": _of({"type": "integer", "multipleOf": 10**9 + 7}),
    "huge minimum": _of({"type": "integer", "minimum": 10**400}),
    "pattern of brackets": _text("[" * 2000),
    "long pattern": _text("a" * 100_000),
    "pattern of groups": _text("(" * 900 + "a" + ")" * 900),
    "pattern without case": _text("(?i)" + "[\\x00-\U0010ffff]" * 100),
    "pattern of sets": _text("[[a]--b]"),
    "flag inside of a pattern": _text("a(?i)b"),
    "lone backslash": _text("\\" * 1001),
    "counts of counts": _text("(a{1,9999}){1,9999}"),
    "back-reference": _text(r"(a)\1"),
    "catastrophic pattern": _text("^(a+)+$"),
    "keys of every kind": {
        "properties": {each: {} for each in ("", "a b", " \n", '"', "</parameter>", "é", "$ref")}
    },
    "NUL": _of({"const": "\0"}),
    "markers": _of({"enum": ["</parameter>", "</tool_call>", "<|im_end|>"]}),
}
"""What a function's parameters may be sent as; values of JSON, but for some infinite numbers."""

KEYWORDS: Final = (
    *(
        "type",
        "properties",
        "required",
        "items",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
    ),
    *("minLength", "maxLength", "pattern", "minItems", "maxItems", "additionalProperties"),
    *("minimum", "maximum", "format", "not", "$defs", "title", "prefixItems", "multipleOf", "x"),
)
"""Of schemas, and one of none."""
_VALUES: Final[tuple[Any, ...]] = (
    *(5, -1, None, True, False, 1.5, 10**12, "x", "string", "integer", "object", "array"),
    *([], {}, ["string"], ["a", 5], [{}], [None], "#/$defs/a", "#", "#/", "^a|b$", "(", "[a"),
    *({"a": {}}, {"a": 5}, {"type": "string"}, {"type": "object"}, {"$ref": "#"}, {"type": 7}),
)


def random_hostile(rng: random.Random, depth: int = 3) -> Schema:
    """Keywords of schemas with values that fit them now and then."""
    if depth == 3 and rng.random() < 0.5:
        return _of(random_hostile(rng, 2))
    schema: Schema = {}
    for key in rng.sample(KEYWORDS, rng.randrange(5)):
        if depth == 0 or rng.random() < 0.5:
            schema[key] = rng.choice(_VALUES)
        elif rng.random() < 0.4:
            schema[key] = random_hostile(rng, depth - 1)
        elif rng.random() < 0.6:
            schema[key] = {name: random_hostile(rng, depth - 1) for name in ("a", "b")}
        else:
            schema[key] = [random_hostile(rng, depth - 1) for _ in range(2)]
    return schema
