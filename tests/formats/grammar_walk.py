"""Random ways through a grammar, byte by byte: what a model could write that knows nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from rillm.format_grammars.spelling import Spelling
from rillm.formats.tokens import TokenMarkers

END: Final = 256
LIMIT: Final = 6000
"""Tokens after which a way is given up: nothing makes it end."""
FREE: Final = 60
"""Where so many tokens may follow, the text is free."""
COMMON: Final = frozenset(" \n\"'\\{}[]<>|:,=()/abtneu019-.&;_é潮".encode())
CLOSERS: Final = frozenset(b'"}])></')


class Bytes:
    """A vocabulary of all bytes, the end, and the tokens that markers are made of."""

    eos_token_id = END
    bos_token_id = None

    def __init__(self, markers: TokenMarkers) -> None:
        texts = sorted(markers.stand_ins)
        self.tokens = [bytes([i]) for i in range(END)] + [b"<end>", *(t.encode() for t in texts)]
        self.special_token_ids = list(range(END, len(self.tokens)))
        self.markers = markers
        self.ids = {text: END + 1 + i for i, text in enumerate(texts)}
        self.spelling = Spelling(markers, self.ids)
        self.tokenizer = LLTokenizer(TokenizerWrapper(self))

    def __call__(self, text: bytes) -> list[int]:
        return list(text)

    def encode(self, text: str) -> list[int]:
        """Tokens of text with stand-ins."""
        found: list[int] = []
        for character in text:
            marker = self.markers.shown.get(character)
            found += character.encode() if marker is None else [self.ids[marker]]
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """Text with stand-ins."""
        parts = [
            self.tokens[i]
            if i < END
            else self.markers.stand_ins[self.tokens[i].decode()].encode("utf-8", "surrogatepass")
            for i in tokens
        ]
        return b"".join(parts).decode("utf-8", "surrogatepass")

    def matcher(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self.tokenizer, grammar)
        assert not matcher.is_error(), (matcher.get_error(), grammar)
        return matcher

    def accepts(self, grammar: str, text: str) -> bool:
        """Whether a whole text fits a grammar."""
        matcher = self.matcher(grammar)
        tokens = self.encode(text)
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def walk(grammar: str, vocabulary: Bytes, hints: Sequence[str], rng: random.Random) -> str | None:
    """What a random way through a grammar writes; None if it does not end.

    Args:
        grammar: Lark.
        vocabulary: what to write it with.
        hints: texts with stand-ins that are tried now and then, and to get out of free text.
        rng: decides.
    """
    matcher = vocabulary.matcher(grammar)
    budget = rng.randrange(20, 400)
    written: list[int] = []
    while len(written) < LIMIT:
        is_late = len(written) > budget
        allowed = _bits(matcher.compute_bitmask(), len(vocabulary.tokens))
        assert allowed, (matcher.get_error(), vocabulary.decode(written), grammar)
        if END in allowed:
            if len(allowed) == 1 or rng.random() < (0.9 if is_late else 0.1):
                return vocabulary.decode(written)
            allowed.remove(END)
        hinted: list[int] = []
        if len(allowed) > FREE and rng.random() < (0.9 if is_late else 0.1):
            hinted = vocabulary.encode(rng.choice(hints))
            hinted = hinted[: matcher.validate_tokens(hinted)]
        tokens = hinted or [_choose(allowed, is_late, rng)]
        assert matcher.consume_tokens(tokens), matcher.get_error()
        written += tokens
    return None


def _choose(allowed: list[int], is_late: bool, rng: random.Random) -> int:
    special = [i for i in allowed if i > END]
    if special and rng.random() < (0.7 if is_late else 0.15):
        return rng.choice(special)
    wanted = CLOSERS if is_late else COMMON
    preferred = [i for i in allowed if i in wanted]
    return rng.choice(preferred if preferred and rng.random() < 0.9 else allowed)


def _bits(mask: bytes, size: int) -> list[int]:
    return [i for i in range(size) if mask[i >> 3] >> (i & 7) & 1]


_KEYS: Final = ("port", "days", "unit_of_height", "x1", "Filter", "item")
_SIMPLE: Final[tuple[dict[str, Any], ...]] = (
    {"type": "string"},
    {"type": "string"},
    {"type": "string", "enum": ["a", "ab", "two words", "x<y", "5", "null"]},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": "string", "pattern": "^[a-c]{2}-[0-9]+$"},
    {"type": "string", "pattern": "b"},
    {"type": "integer"},
    {"type": "integer", "minimum": 3, "maximum": 99},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
    {},
    {"enum": [1, "a", None, True]},
    {"const": "k"},
    {"type": ["string", "null"]},
    {"type": ["integer", "boolean"]},
    {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "null"}]},
    {"$ref": "#/$defs/height"},
)
_HEIGHT: Final = {"type": "object", "properties": {"m": {"type": "number"}}, "required": ["m"]}


def random_schema(rng: random.Random, depth: int) -> dict[str, Any]:
    kind = rng.randrange(24 if depth else 19)
    if kind < len(_SIMPLE):
        return _SIMPLE[kind]
    inner = random_schema(rng, depth - 1)
    match kind:
        case 19:
            return {"type": "array", "items": inner}
        case 20:
            return {"type": "array", "items": inner, "minItems": 1, "maxItems": 3}
        case 21:
            return {"type": "object", "additionalProperties": inner}
        case 22:
            return {"anyOf": [inner, random_schema(rng, depth - 1)]}
    return random_object(rng, depth - 1)


def random_object(rng: random.Random, depth: int) -> dict[str, Any]:
    keys = rng.sample(_KEYS, rng.randrange(4))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {key: random_schema(rng, depth) for key in keys},
        "required": [key for key in keys if rng.random() < 0.5],
    }
    if rng.random() < 0.3:
        schema["additionalProperties"] = False
    return schema


def bounded(schema: Any) -> Any:
    """A schema all of whose values are short: a weak model need not find their end by itself."""
    if not isinstance(schema, dict):
        return schema
    schema = {
        key: {name: bounded(each) for name, each in value.items()}
        if key in ("properties", "$defs")
        else [bounded(each) for each in value]
        if key == "anyOf"
        else bounded(value)
        for key, value in schema.items()
    }
    kinds = schema.get("type", ())
    if "string" in kinds and not schema.keys() & {"enum", "maxLength"}:
        schema["maxLength"] = 12
    if "integer" in kinds:
        schema = {"minimum": -99, "maximum": 9999} | schema
    if kinds == "number":
        schema |= {"multipleOf": 0.5, "minimum": -99, "maximum": 99}
    if kinds == "array":
        schema = {"maxItems": 3} | schema
    if kinds == "object":
        schema["additionalProperties"] = False
    return schema or {"type": "boolean"}


def random_tools(rng: random.Random) -> list[dict[str, Any]]:
    """Functions with random schemas."""
    tools = []
    for name in rng.sample(("tide", "tide_2", "moon", "get.x"), rng.randrange(1, 4)):
        function: dict[str, Any] = {"name": name}
        if rng.random() < 0.9:
            function["parameters"] = random_object(rng, 2) | {"$defs": {"height": _HEIGHT}}
        tools.append({"type": "function", "function": function})
    return tools
