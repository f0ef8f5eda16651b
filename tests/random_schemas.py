"""Random JSON schemas whose instances are short, so that a model reaches their end."""

from __future__ import annotations

import random
from typing import Any

Schema = dict[str, Any]
_WORDS = ("port", "Brest", "tide", "é", "a b", 'say "hi"', "x/y", "<think>", "12", "")


def random_schema(rng: random.Random) -> Schema:
    """A whole schema, of the kinds of things that structured output is asked for."""
    return _schema(rng, 2) | {"$defs": {"thing": _schema(rng, 0)}}


def random_object(rng: random.Random) -> Schema:
    """A whole schema of an object."""
    return _object(rng, 2) | {"$defs": {"thing": _schema(rng, 0)}}


def _schema(rng: random.Random, depth: int) -> Schema:
    kinds = ["string", "enum", "integer", "boolean", "null", "const", "pattern", "formatted"]
    if depth:
        kinds += ["object"] * 4 + ["array"] * 2 + ["any_of", "reference"]
    return _MAKERS[rng.choice(kinds)](rng, depth)


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(
        ("name", "days", "kind", "is_open", "größe", "a-b", "x.y"), rng.randint(0, 4)
    )
    return {
        "type": "object",
        "properties": {name: _schema(rng, depth - 1) for name in names},
        "required": [name for name in names if rng.random() < 0.6],
        "additionalProperties": False,
    }


def _string(rng: random.Random, depth: int) -> Schema:
    del depth
    low = rng.randint(0, 3)
    return {"type": "string", "minLength": low, "maxLength": low + rng.randint(0, 6)}


def _integer(rng: random.Random, depth: int) -> Schema:
    del depth
    low = rng.randint(-1000, 1000)
    return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 5000)}


def _array(rng: random.Random, depth: int) -> Schema:
    low = rng.randint(0, 2)
    return {
        "type": "array",
        "items": _schema(rng, depth - 1),
        "minItems": low,
        "maxItems": low + rng.randint(0, 2),
    }


_MAKERS = {
    "string": _string,
    "enum": lambda rng, _: {"enum": rng.sample(_WORDS, rng.randint(1, 4))},
    "integer": _integer,
    "boolean": lambda rng, _: {"type": "boolean"},
    "null": lambda rng, _: {"type": "null"},
    "const": lambda rng, _: {"const": rng.choice([1, "x", None, True, ["a", 2], {"k": "v"}])},
    "pattern": lambda rng, _: {
        "type": "string",
        "pattern": rng.choice(
            [r"^[a-f]{2,5}$", r"^\d{3}-\d{2}$", r"^(ab|cd){1,3}$", r"^[A-Z]\w?$"]
        ),
    },
    "formatted": lambda rng, _: {
        "type": "string",
        "format": rng.choice(["date", "ipv4", "uuid"]),
    },
    "object": _object,
    "array": _array,
    "any_of": lambda rng, depth: {
        "anyOf": [_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))]
    },
    "reference": lambda rng, _: {"$ref": "#/$defs/thing"},
}
