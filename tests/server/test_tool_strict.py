"""Which requests with tools are held to a grammar, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from formats.grammar_walk import Bytes
from scripted_engine import BUNDLED_TOKENIZER, SpeakingEngine, call

from rillm.formats.registry import combine
from rillm.formats.tokens import TokenMarkers
from rillm.output_formats import OutputFormats, ToolStrict
from rillm.sampling_params import SamplingParams

CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"port": {"type": "string"}}, "required": ["port"]}
TIDE = {"type": "function", "function": {"name": "tide", "parameters": SCHEMA}}
STRICT = {"type": "function", "function": {**TIDE["function"], "strict": True}}
NAMED = {"type": "function", "function": {"name": "tide"}}
TEXT = '<tool_call>\n{"name": "tide", "arguments": {"port": "Brest"}}\n</tool_call>'
MARKERS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
MOON = {"type": "function", "function": {"name": "moon"}}


class Recorder(SpeakingEngine):
    """Keeps the sampling params that it was given."""

    params: SamplingParams | None = None

    def generate(self, prompt: Any, sampling_params: SamplingParams, *args: Any, **kw: Any) -> Any:
        self.params = sampling_params
        return super().generate(prompt, sampling_params, *args, **kw)


async def ask(
    fields: dict[str, Any], policy: ToolStrict = "auto", tool: str = "hermes"
) -> tuple[Any, str | None]:
    """The answer, and the grammar that the engine was given."""
    formats = OutputFormats(combine(tool, None), BUNDLED_TOKENIZER, tool_strict=policy)
    engine = Recorder(TEXT, formats=formats)
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": [TIDE, MOON], **fields}
    answer = await call(engine, CHAT, body)
    given = None if engine.params is None else engine.params.structured_outputs
    return answer, None if given is None else given.grammar


def accepts(grammar: str, text: str) -> bool:
    """Whether a text, its markers written as tokens, fits a grammar for the model."""
    markers = [each for each in BUNDLED_TOKENIZER.added_tokens if each in MARKERS]
    vocabulary = Bytes(TokenMarkers(dict.fromkeys(markers, False)))
    for marker in markers:
        reference = f"<[{BUNDLED_TOKENIZER.added_tokens[marker]}]>"
        grammar = grammar.replace(reference, f"<[{vocabulary.ids[marker]}]>")
    return vocabulary.accepts(grammar, vocabulary.markers.encode(text))


ASKING: list[dict[str, Any]] = [
    {"tool_choice": "required"},
    {"tool_choice": NAMED},
    {"tools": [STRICT]},
    {"parallel_tool_calls": False},
]
NOT_ASKING: list[dict[str, Any]] = [{}, {"tool_choice": "auto"}, {"parallel_tool_calls": True}]


@pytest.mark.parametrize("fields", ASKING)
async def test_a_request_that_asks_for_it_is_held_to_a_grammar(fields: dict[str, Any]) -> None:
    assert (await ask(fields))[1] is not None
    assert (await ask(fields, "always"))[1] is not None
    assert (await ask(fields, "never"))[1] is None


@pytest.mark.parametrize("fields", NOT_ASKING)
async def test_others_are_by_policy_only(fields: dict[str, Any]) -> None:
    assert (await ask(fields))[1] is None
    assert (await ask(fields, "always"))[1] is not None


async def test_tools_that_may_not_be_called_need_no_grammar() -> None:
    assert (await ask({"tool_choice": "none", "tools": [STRICT]}, "always"))[1] is None


async def test_the_grammar_names_the_tokens_of_the_vocabulary() -> None:
    _, grammar = await ask({"tool_choice": NAMED})
    assert grammar is not None
    added = BUNDLED_TOKENIZER.added_tokens
    assert f"<[{added['<tool_call>']}]>" in grammar
    assert accepts(grammar, TEXT)
    assert not accepts(grammar, TEXT.replace("tide", "moon"))
    assert not accepts(grammar, TEXT + TEXT)
    assert not accepts(grammar, "Well. " + TEXT)
    assert not accepts(grammar, TEXT.replace('"Brest"', "1"))


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_named_call_is_no_reason_to_stop(is_stream: bool) -> None:
    answer, _ = await ask({"tool_choice": NAMED, "stream": is_stream})
    shown = answer.events()[-2] if is_stream else answer.json()
    assert shown["choices"][0]["finish_reason"] == "stop"
    answer, _ = await ask({"tool_choice": "required"})
    assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tools": [STRICT]}, "tools"),
    ],
)
async def test_a_format_without_a_grammar_is_refused(fields: dict[str, Any], param: str) -> None:
    # No example says how its calls are written.
    unwritten = replace(combine("hermes", None), example="")
    formats = OutputFormats(unwritten, BUNDLED_TOKENIZER)
    engine = Recorder(TEXT, formats=formats)
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": [TIDE], **fields}
    answer = await call(engine, CHAT, body)
    assert (answer.status, answer.json()["error"]["param"]) == (400, param)
    assert engine.params is None


async def test_what_cannot_be_ensured_is_refused() -> None:
    schemas: list[Any] = [
        {"properties": {"a": {"type": "array", "uniqueItems": True}}},
        {"properties": {"a": {"not": {"type": "string"}}}},
        {"properties": {"a b": {"type": "string"}}, "required": ["a b"]},
        {"properties": {"a": {"type": "string", "pattern": "(?=x)y"}}},
        {"properties": {"a": {"$ref": "#/$defs/gone"}}},
    ]
    for schema in schemas:
        function = {"name": "f", "strict": True, "parameters": schema}
        fields = {"tools": [{"type": "function", "function": function}]}
        answer, _ = await ask(fields, tool="qwen3_coder")
        assert (answer.status, answer.json()["error"]["param"]) == (400, "tools"), schema
        assert "'f'" in answer.json()["error"]["message"]


async def test_required_needs_functions() -> None:
    answer, _ = await ask({"tools": [{"type": "web_search"}], "tool_choice": "required"})
    assert (answer.status, answer.json()["error"]["param"]) == (400, "tool_choice")


FORM = {"type": "json_schema", "json_schema": {"name": "height", "schema": SCHEMA}}


async def test_an_answer_of_a_given_form_can_stand_in_place_of_a_call() -> None:
    _, grammar = await ask({"response_format": FORM})
    assert grammar is not None
    assert accepts(grammar, TEXT)
    assert accepts(grammar, '{"port": "Brest"}')
    assert not accepts(grammar, "Well.")


async def test_reasoning_is_free_before_an_answer_of_a_given_form() -> None:
    formats = OutputFormats(combine("hermes", "qwen3"), BUNDLED_TOKENIZER)
    engine = Recorder("x", formats=formats)
    body = {
        "messages": [{"role": "user", "content": "Hi"}],
        "response_format": FORM,
        "chat_template_kwargs": {"enable_thinking": True},
    }
    assert (await call(engine, CHAT, body)).status == 200
    assert engine.params is not None
    assert engine.params.structured_outputs is not None
    grammar = engine.params.structured_outputs.grammar
    assert grammar is not None
    assert accepts(grammar, '{"port": "Brest"}')
    assert accepts(grammar, '<think>\nhm {\n</think>\n\n{"port": "Brest"}')
    assert not accepts(grammar, "<think>\nhm\n</think>\n\nBrest")
