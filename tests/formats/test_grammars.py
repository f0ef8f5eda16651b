"""What can be generated is what can be parsed: for every format, over random schemas.

`RILLM_GRAMMAR_EXAMPLES` sets the number of examples of each kind for each format.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
from typing import Any

import jsonschema
import pytest
from formats import printing_json, printing_literals, printing_messages, printing_tags
from formats.conversations import make_conversation
from formats.folding import Answer, events_of, fold
from formats.grammar_walk import Bytes, random_tools, walk
from formats.printing import Call, CallStyle, Choices, Conversation, MessageStyle, Writer
from hostile_schemas import KEYWORDS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rillm.format_grammars.frames import Choice, Start
from rillm.format_grammars.generator import (
    content_grammar,
    start_of,
    tool_grammar,
    unsupported,
)
from rillm.format_grammars.lark import GrammarError
from rillm.formats.compiled import compile_format
from rillm.formats.description import Format
from rillm.formats.registry import all_formats, combine
from rillm.formats.tokens import NO_TOKENS, TokenMarkers, find_tokens

EXAMPLES = int(os.environ.get("RILLM_GRAMMAR_EXAMPLES", "2"))
STYLES: dict[str, CallStyle | MessageStyle] = {
    name: style
    for style in (
        *printing_json.STYLES,
        *printing_tags.STYLES,
        *printing_literals.STYLES,
        *printing_messages.MESSAGES,
    )
    for name in style.names
}
REASONING = {name: style for style in printing_messages.REASONING for name in style.names}
NAMES = [each.names[0] for each in all_formats() if each.names and not unsupported(each)]
SEEDS = st.integers(0, 2**32 - 1)
HARMLESS = {"citation", "inline"}


def examples(number: int) -> settings:
    return settings(
        max_examples=number,
        database=None,
        derandomize="RILLM_GRAMMAR_EXAMPLES" not in os.environ,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )


def setups(name: str) -> list[tuple[Format, TokenMarkers]]:
    """A format with the reasoning that goes with it and without, with tokens and without."""
    style = STYLES[name]
    partner = style.reasoning if isinstance(style, CallStyle) else style.reasoning_names[0]
    names = [partner] if isinstance(style, MessageStyle) else list(dict.fromkeys([None, partner]))
    found = []
    for reasoning in names:
        format = combine(name, reasoning)
        texts = {*style.tokens, *(REASONING[reasoning].tokens if reasoning in REASONING else ())}
        tokens = find_tokens(format, dict.fromkeys(texts, False))
        found += [(format, NO_TOKENS), *([(format, tokens)] if tokens.stand_ins else [])]
    return found


def read(format: Format, tokens: TokenMarkers, text: str, tools: Any, start: Start) -> Answer:
    inside = start.frame if start.frame in ("content", "reasoning") else None
    return fold(events_of(format, [text], tools, tokens=tokens, start=inside))


def check_read(answer: Answer, tools: list[dict[str, Any]], format: Format) -> None:
    """Every call is complete and valid, and no markup is left over."""
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools}
    for call in answer.calls:
        assert call.is_complete
        jsonschema.validate(json.loads(call.arguments), schemas[call.name] or {})
    frames = compile_format(format, NO_TOKENS).frames
    bare = () if format.calls is None else format.calls.bare
    texts = {"content": answer.content, "reasoning": answer.reasoning}
    for kind, actions in ((kind, frames[kind].actions) for kind in ("content", "reasoning")):
        for marker, action in actions.items():
            assert action in HARMLESS or marker in bare or marker not in texts[kind]


@pytest.mark.parametrize("choice", ["required", "auto"])
@pytest.mark.parametrize("name", NAMES)
def test_what_the_grammar_admits_is_read_as_valid_calls(name: str, choice: Choice) -> None:
    @examples(EXAMPLES)
    @given(SEEDS)
    def check(seed: int) -> None:
        for format, tokens in setups(name):
            rng = random.Random(seed)
            tools = random_tools(rng)
            vocabulary = Bytes(tokens)
            start, is_parallel = start_of(format), rng.random() < 0.5
            options = {"start": start, "spelling": vocabulary.spelling}
            grammar = tool_grammar(format, tools, choice, is_parallel=is_parallel, **options)
            literals = compile_format(format, tokens).frames["content"].markers.literals
            closers = set() if format.reasoning is None else set(format.reasoning.close)
            hints = sorted({*literals, *map(tokens.encode, closers), '"', "</", "}", "]"})
            text = walk(grammar, vocabulary, hints, rng)
            if text is None:
                continue
            answer = read(format, tokens, text, tools, start)
            check_read(answer, tools, format)
            assert is_parallel or len(answer.calls) <= 1
            if choice == "required":
                assert answer.calls
                assert not answer.content.strip()

    check()


def typed(call: Call) -> dict[str, Any]:
    """The function of a call, its schema as its arguments suggest."""
    types = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    properties = {
        key: {"type": types.get(type(value), "array" if isinstance(value, list) else "object")}
        for key, value in call.arguments.items()
    }
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": call.name, "parameters": schema}}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_family_writes_fits_the_grammar(name: str) -> None:
    style = STYLES[name]

    @examples(4 * EXAMPLES)
    @given(st.binary(min_size=8, max_size=64))
    def check(data: bytes) -> None:
        for format, tokens in setups(name):
            vocabulary = Bytes(tokens)
            conversation = make_conversation(
                Choices(data), style, reasons=False, fences=(), markers=("{", "<b>"), tokens=tokens
            )
            names = [call.name for call in conversation.calls]
            has_arguments = all(call.arguments for call in conversation.calls)
            if not names or len(names) > len(set(names)) or not has_arguments:
                continue
            # The first of all alternatives is the template's own.
            writer = Writer(Choices(b""), tokens)
            if isinstance(style, MessageStyle):
                style.write(writer, Conversation("", [conversation.calls]))
            else:
                style.write(writer, conversation.calls)
            grammar = tool_grammar(
                format,
                map(typed, conversation.calls),
                spelling=vocabulary.spelling,
                start=Start("content" if format.header is None else "header"),
            )
            assert vocabulary.accepts(grammar, writer.result().rstrip("\n")), writer.result()

    check()


SCHEMA_RULES = """content: %json {
  "type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": false
}
"""


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_of_a_given_form_follows_free_reasoning(name: str) -> None:
    for format, tokens in setups(name):
        vocabulary, start = Bytes(tokens), start_of(format)
        grammar = content_grammar(
            format, SCHEMA_RULES, start=start, spelling=vocabulary.spelling
        ) or SCHEMA_RULES.replace("content:", "start:")
        rng = random.Random(7)
        frames = compile_format(format, tokens).frames
        hints = ["}", *sorted(frames["reasoning"].markers.literals)]
        text = walk(grammar, vocabulary, hints, rng)
        assert text is not None
        answer = read(format, tokens, text, [], start)
        assert isinstance(json.loads(answer.content), dict), answer
        assert not answer.calls


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_of_a_given_form_can_stand_in_place_of_calls(name: str) -> None:
    for format, tokens in setups(name):
        vocabulary = Bytes(tokens)
        inside = "content" if format.header is None else "header"
        options = {"start": Start(inside, may_reason=False), "spelling": vocabulary.spelling}
        tool = {"type": "function", "function": {"name": "tide"}}
        try:
            grammar = tool_grammar(format, [tool], "auto", rules=SCHEMA_RULES, **options)
        except GrammarError:
            # Nothing tells a call from an answer in JSON.
            assert format.calls is not None
            assert format.calls.at_start
            continue
        answered = called = 0
        for seed in range(8):
            text = walk(grammar, vocabulary, ['"', "}"], random.Random(seed))
            assert text is not None
            answer = read(format, tokens, text, [tool], options["start"])
            called += bool(answer.calls)
            answered += not answer.calls and isinstance(json.loads(answer.content), dict)
        assert called + answered == 8


JUNK = st.recursive(
    st.sampled_from(
        [
            5,
            -1,
            1.5,
            10**12,
            None,
            True,
            False,
            "x",
            "string",
            "object",
            "#",
            "#/$defs/a",
            "^a|b$",
            "(",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from((*KEYWORDS, "a")), inner, max_size=4)
    ),
    max_leaves=12,
)


@examples(15 * EXAMPLES)
@given(st.dictionaries(st.sampled_from(KEYWORDS), JUNK, max_size=4), st.booleans())
def test_schemas_that_mean_nothing_are_refused_or_read_as_any(schema: Any, is_strict: bool) -> None:
    function = {"name": "f", "parameters": schema, "strict": is_strict}
    for name in (
        "hermes",
        "qwen3_coder",
        "deepseek_v4",
        "minicpm5",
        "minimax_m3",
        "pythonic",
        "gemma4",
    ):
        with contextlib.suppress(GrammarError):
            tool_grammar(combine(name, None), [{"type": "function", "function": function}])


def test_a_schema_that_contains_itself_is_a_grammar_that_does() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": []}
    schema = {"properties": {"list": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    texts = {
        "hermes": '<tool_call>{"name": "f", "arguments": '
        '{"list": {"next": {"next": {}}}}}</tool_call>',
        "pythonic": '[f(list={"next": {"next": {}}})]',
        "qwen3_coder": "<tool_call><function=f><parameter=list>"
        '{"next": {"next": {}}}</parameter></function></tool_call>',
        "gemma4": "<|tool_call>call:f{list:{next:{next:{}}}}<tool_call|>",
    }
    for name, text in texts.items():
        assert Bytes(NO_TOKENS).accepts(tool_grammar(combine(name, None), [tool]), text), name


def test_a_schema_is_never_too_deep_for_python() -> None:
    schema: Any = {"type": "string"}
    for _ in range(900):
        schema = {"type": "object", "properties": {"a": schema}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    for name in ("hermes", "qwen3_coder", "pythonic", "minimax_m3"):
        with pytest.raises(GrammarError, match="deep"):
            tool_grammar(combine(name, None), [tool])
