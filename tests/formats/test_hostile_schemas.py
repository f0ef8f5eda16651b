"""Any schema makes a grammar whose calls fit it, or a refusal; never an accident, never a wait.

`RILLM_HOSTILE_SCHEMAS` sets the number of random schemas. A schema that is followed for ever fails
by the timeout of the test.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

import jsonschema
import pytest
from formats.folding import events_of, fold
from formats.grammar_walk import Bytes, walk
from hostile_schemas import HOSTILE, random_hostile
from llguidance import LLMatcher

from rillm.format_grammars.generator import start_of, tool_grammar
from rillm.format_grammars.lark import GrammarError
from rillm.formats.compiled import compile_format
from rillm.formats.registry import combine
from rillm.formats.tokens import NO_TOKENS

NUM_SCHEMAS = int(os.environ.get("RILLM_HOSTILE_SCHEMAS", "150"))
FORMATS = (
    *("hermes", "qwen3_coder", "pythonic", "gemma4", "functiongemma", "minimax_m3", "minicpm5"),
    *("kimi_k3", "deepseek_v4"),
)
"""One of each way of writing values."""


def grammar_of(name: str, schema: Any, *, is_strict: bool) -> str | None:
    """The grammar of a call; None where it is refused."""
    function = {"name": "f", "parameters": schema, "strict": is_strict}
    try:
        return tool_grammar(combine(name, None), [{"function": function}])
    except GrammarError:
        return None


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_hostile_schemas_are_refused_or_written(schema: Any) -> None:
    for name in FORMATS:
        for is_strict in (False, True):
            grammar_of(name, schema, is_strict=is_strict)


@pytest.mark.parametrize("name", FORMATS[1:])
@pytest.mark.parametrize("what", ["alternatives", "other alternatives", "parts"])
def test_what_multiplies_is_refused(name: str, what: str) -> None:
    """Where arguments are JSON, as in the first format, schemas are llguidance's to refuse."""
    assert grammar_of(name, HOSTILE[f"{what} that double"], is_strict=True) is None


@pytest.mark.parametrize("name", FORMATS)
def test_calls_of_strict_functions_fit_any_schema(name: str) -> None:
    format = combine(name, None)
    vocabulary = Bytes(NO_TOKENS)
    frames = compile_format(format, NO_TOKENS).frames
    literals = {each for frame in frames.values() for each in frame.markers.literals}
    hints = sorted({*literals, '"', "}", "]", "</"})
    num_read = 0
    for seed in range(NUM_SCHEMAS):
        rng = random.Random(seed)
        schema = random_hostile(rng)
        grammar_of(name, schema, is_strict=False)
        grammar = grammar_of(name, schema, is_strict=True)
        if grammar is None or not _is_schema(schema):
            continue
        if LLMatcher(vocabulary.tokenizer, grammar, log_level=0).is_error():
            continue
        text = walk(grammar, vocabulary, hints, rng)
        if text is None:
            continue
        tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
        inside = start_of(format).frame
        start = inside if inside in ("content", "reasoning") else None
        answer = fold(events_of(format, [text], tools, tokens=NO_TOKENS, start=start))
        assert answer.calls, (seed, schema, text)
        for each in answer.calls:
            arguments = json.loads(each.arguments)
            assert isinstance(arguments, dict)
            jsonschema.Draft202012Validator(schema).validate(arguments)
            num_read += 1
    assert num_read > NUM_SCHEMAS // 10


def _is_schema(schema: Any) -> bool:
    """Whether a validator can make something of it, references included."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
        for instance in ({}, {"a": "a"}, {"a": {"a": [1]}, "b": {}}):
            list(jsonschema.Draft202012Validator(schema).iter_errors(instance))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - the validator's own panics are no less than that
        return False
    return True
