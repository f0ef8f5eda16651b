"""Constraints that no server can follow: malformed, contradictory, unsupported, or too much."""

from __future__ import annotations

from typing import Any


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


SCHEMAS: dict[str, Any] = {
    "unknown type": {"type": "text"},
    "type is a number": {"type": 5},
    "properties is a list": {"properties": ["a"]},
    "items is a number": {"items": 5},
    "enum is a text": {"enum": "a"},
    "empty enum": {"enum": []},
    "required is a text": {"required": "a"},
    "pattern is a number": {"type": "string", "pattern": 5},
    "bad pattern": {"type": "string", "pattern": "("},
    "look-ahead in a pattern": {"type": "string", "pattern": "(?=a)b"},
    "bad name pattern": {"type": "object", "patternProperties": {"[": {}}},
    "minimum above maximum": {"type": "integer", "minimum": 5, "maximum": 3},
    "shortest above longest": {"type": "string", "minLength": 5, "maxLength": 3},
    "fewest above most": {"type": "array", "minItems": 5, "maxItems": 3},
    "no integer between": {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
    "two types at once": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "two constants at once": {"allOf": [{"const": 1}, {"const": 2}]},
    "required and forbidden": {
        "type": "object",
        "properties": {"a": False},
        "required": ["a"],
    },
    "required and not listed": {
        "type": "object",
        "properties": {},
        "required": ["a"],
        "additionalProperties": False,
    },
    "minimum is a text": {"type": "integer", "minimum": "a"},
    "negative length": {"type": "string", "minLength": -1},
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "string"}, "then": {"maxLength": 3}},
    "contains": {"type": "array", "contains": {"type": "string"}},
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "propertyNames": {"type": "object", "propertyNames": {"maxLength": 3}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
    "unknown format": {"type": "string", "format": "color"},
    "oneOf that overlaps": {"oneOf": [{"type": "string"}, {"type": "string", "minLength": 3}]},
    "reference to nothing": {"$ref": "#/$defs/a"},
    "reference elsewhere": {"$ref": "https://example.com/schema.json"},
    "reference is a number": {"$ref": 5},
    "too deep": _nested(40),
    "far too deep": _nested(400),
    "too large": {"enum": [f"{i:>100}" for i in range(8000)]},
    "too many properties": {"type": "object", "properties": {f"p{i}": {} for i in range(4000)}},
    "too many alternatives": {
        "anyOf": [{"type": "object", "properties": {f"p{i}": {}}} for i in range(6000)]
    },
    "all of many alternatives": {
        "allOf": [
            {"anyOf": [{"properties": {f"p{i}{j}": {}}, "type": "object"} for i in range(6)]}
            for j in range(8)
        ]
    },
    "huge divisor": {"type": "integer", "multipleOf": 99_999_989},
    "false": {"type": "object", "properties": {"a": {"allOf": [False]}}, "required": ["a"]},
}
REGEXES: dict[str, str] = {
    "empty": "",
    "open group": "(a",
    "closed group": "a)",
    "open class": "[a",
    "reversed range": "[z-a]",
    "nothing to repeat": "*a",
    "reversed count": "a{5,2}",
    "lone backslash": "a\\",
    "unknown escape": "\\q",
    "unknown property": "\\p{Nonsense}",
    "look-ahead": "a(?=b)b",
    "negative look-ahead": "(?!a)b",
    "look-behind": "(?<=a)b",
    "back-reference": r"(a)\1",
    "atomic group": "(?>a)",
    "anchor inside": "a^b",
    "NUL": "a\0",
    "fits nothing": r"[^\s\S]",
    "too long": "a" * 20_000,
    "deep": "(" * 2000 + "a" + ")" * 2000,
    "count of counts": "((a{1,9999}b?){1,9999}c?){9999}(?=x)",
}
GRAMMARS: dict[str, str] = {
    "blank": " \n",
    "no rule": "hello",
    "no start": 'a: "x"',
    "unknown rule": "start: a",
    "unknown token": "start: <|nobody|>",
    "token out of range": "start: <[99999999]>",
    "open string": 'start: "a',
    "bad expression": "start: /(/",
    "bad schema inside": 'start: %json {"type": "text"}',
    "open schema": "start: %json {",
    "import": "%import common.WORD\nstart: NOBODY",
    "rule that never ends": 'start: "a" start',
    "empty language": "start: A\nA: /a/ & /b/",
    "lexemes too hard": "start: A\nA: /[ab]*a[ab]{15}/ & /[ab]*b[ab]{14}/ & /(.*a.*b.*){30}/",
    "too deep": "start: " + "(" * 3000 + '"a"' + ")" * 3000,
    "too many rules": "start: "
    + " | ".join(f"r{i}" for i in range(8000))
    + "".join(f'\nr{i}: "a{i}" r{i * 7 % 8000}?' for i in range(8000)),
    "no root in GBNF": 'a ::= "x"',
    "unknown rule in GBNF": "root ::= a",
    "open string in GBNF": 'root ::= "a',
    "too deep GBNF": "root ::= " + "(" * 3000 + '"a"' + ")" * 3000,
    "too long": "start: " + '"a" ' * 200_000,
}
OTHERS: dict[str, Any] = {
    "nothing": {},
    "two constraints": {"regex": "a", "choice": ["a"]},
    "no choices": {"choice": []},
    "an empty choice": {"choice": ["a", ""]},
    "structural tag": {"structural_tag": "{}"},
    "text that is no JSON": {"json": "{"},
    "text that is no object": {"json": "[1]"},
    "schema text too deep": {"json": "[" * 5000 + "]" * 5000},
    "option for JSON only": {"regex": "a", "disable_any_whitespace": True},
    "bad whitespace": {"json": {}, "whitespace_pattern": "("},
}
ROWS: dict[str, tuple[dict[str, Any], str]] = (
    {f"schema, {name}": ({"json": schema}, "json") for name, schema in SCHEMAS.items()}
    | {f"regex, {name}": ({"regex": regex}, "regex") for name, regex in REGEXES.items()}
    | {f"grammar, {name}": ({"grammar": text}, "grammar") for name, text in GRAMMARS.items()}
    | {name: (fields, "") for name, fields in OTHERS.items()}
)
"""Name to `structured_outputs` and the field of it that the refusal names."""
