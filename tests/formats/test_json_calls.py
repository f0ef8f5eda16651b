"""Calls as JSON: what tokens decide, what streams when, and that nothing costs more than once."""

from __future__ import annotations

import json

import pytest
from formats.folding import cut, events_of, fold, numbered_id

from rillm.formats.description import Calls, Format
from rillm.formats.events import ContentDelta, ToolCallArguments, ToolCallBegin, ToolCallEnd
from rillm.formats.machine import Machine
from rillm.formats.registry import combine, tool_formats
from rillm.formats.syntax.json_calls import JsonArray, JsonCall
from rillm.formats.tokens import TokenMarkers

TOOLS = [{"function": {"name": "tide"}}, {"function": {"name": "moon"}}]

MARKED = {
    "hermes": {"<tool_call>": False, "</tool_call>": False},
    "granite": {"<|tool_call|>": True},
    "mistral": {"[TOOL_CALLS]": True, "[ARGS]": True},
    "deepseek_v31": {
        "<｜tool▁calls▁begin｜>": True,
        "<｜tool▁call▁begin｜>": True,
        "<｜tool▁sep｜>": True,
        "<｜tool▁call▁end｜>": True,
        "<｜tool▁calls▁end｜>": True,
    },
    "kimi_k2": {
        "<|tool_calls_section_begin|>": True,
        "<|tool_call_begin|>": True,
        "<|tool_call_argument_begin|>": True,
        "<|tool_call_end|>": True,
        "<|tool_calls_section_end|>": True,
    },
    "openai": {
        "<|start|>": True,
        "<|channel|>": True,
        "<|message|>": True,
        "<|constrain|>": True,
        "<|call|>": True,
        "<|end|>": True,
    },
}


@pytest.mark.parametrize("name", MARKED)
def test_a_token_is_a_marker(name: str) -> None:
    format = tool_formats()[name]
    tokens = TokenMarkers(MARKED[name])
    text = tokens.encode(format.example)
    for size in (1, 2, len(text)):
        answer = fold(events_of(format, cut(text, size), TOOLS, tokens=tokens))
        assert answer.calls[0].name == "tide"
        assert json.loads(answer.calls[0].arguments) == {"port": "Brest"}
        assert answer.calls[0].is_complete
        assert answer.content == ""


@pytest.mark.parametrize("name", sorted(MARKED.keys() - {"openai"}))
def test_look_alike_text_is_content_where_tokens_are_known(name: str) -> None:
    format = tool_formats()[name]
    text = f"It is written {format.example} there."
    for size in (1, 5, len(text)):
        events = events_of(
            format, cut(text, size), TOOLS, tokens=TokenMarkers(MARKED[name]), start="content"
        )
        answer = fold(events)
        assert answer.calls == []
        assert answer.content == text


def test_a_token_inside_a_string_is_written_out() -> None:
    tokens = TokenMarkers(MARKED["hermes"])
    call = tokens.encode("<tool_call>") + '{"name": "tide", "arguments": {"a": "'
    text = call + tokens.encode("<tool_call>") + '"}}' + tokens.encode("</tool_call>")
    answer = fold(events_of(tool_formats()["hermes"], [text], TOOLS, tokens=tokens))
    assert answer.calls[0].arguments == '{"a": "<tool_call>"}'
    assert answer.calls[0].is_complete


def test_a_token_inside_a_quoted_object_is_written_out() -> None:
    tokens = TokenMarkers(MARKED["hermes"])
    mark = tokens.encode("<tool_call>")
    text = mark + '{"name": "tide", "arguments": "{\\"a\\": \\"x' + mark + 'y\\"}"}'
    for size in (1, len(text)):
        answer = fold(events_of(tool_formats()["hermes"], cut(text, size), TOOLS, tokens=tokens))
        assert answer.calls[0].arguments == '{"a": "x<tool_call>y"}'


def test_a_token_ends_arguments_that_lack_their_braces() -> None:
    tokens = TokenMarkers(MARKED["kimi_k2"])
    text = tool_formats()["kimi_k2"].example.replace("}", "")
    answer = fold(
        events_of(
            tool_formats()["kimi_k2"],
            cut(tokens.encode(text), 1),
            TOOLS,
            tokens=tokens,
            start="content",
        )
    )
    assert answer.calls[0].arguments == '{"port": "Brest"'
    assert not answer.calls[0].is_complete


def test_the_name_goes_out_before_the_arguments_begin() -> None:
    machine = Machine(tool_formats()["hermes"], TOOLS, new_id=numbered_id)
    assert machine.feed('Ok.\n<tool_call>\n{"name": "tide') == [ContentDelta("Ok.")]
    assert machine.feed('"') == [ToolCallBegin(0, "call_0", "tide")]
    assert machine.feed(', "arguments": {"port": "Br') == [ToolCallArguments(0, '{"port": "Br')]
    assert machine.feed('est"') == [ToolCallArguments(0, 'est"')]
    assert machine.feed("}") == []
    assert machine.feed("}") == [ToolCallArguments(0, "}"), ToolCallEnd(0)]


def test_an_answer_in_json_is_shown_as_soon_as_it_is_no_call() -> None:
    machine = Machine(tool_formats()["llama3_json"], TOOLS)
    assert machine.feed('{"t') == []
    assert machine.feed("i") == [ContentDelta('{"ti')]
    assert machine.feed("tle") == [ContentDelta("tle")]


def test_prose_after_a_quoted_marker_is_not_held_back() -> None:
    machine = Machine(tool_formats()["mistral"], TOOLS)
    assert machine.feed("[TOOL_CALLS] begins") == []
    assert machine.feed(" a") == [ContentDelta("[TOOL_CALLS] begins a")]


@pytest.mark.parametrize(
    ("tool", "reasoning", "prompt", "text"),
    [
        ("llama3_json", None, "\n\n", '{"name": "tide", "parameters": {}}'),
        (
            "hunyuan_a13b",
            "hunyuan_a13b",
            "<think>\n\n</think>\n",
            '[{"name": "tide", "arguments": {}}]',
        ),
        ("hunyuan_a13b", "hunyuan_a13b", "\n", "<think>\nlook\n</think>\n"),
        ("granite", "granite", "\n", "Here is my thought process: look. Here is my response:"),
        ("kimi_k2", "kimi_k2", "<think>", "look</think>"),
        ("openai", "openai_gptoss", "assistant", "<|channel|>analysis<|message|>look"),
        ("inkling", "inkling", "", "<|content_thinking|>look"),
    ],
)
def test_what_counts_at_the_start_counts_after_the_prompt(
    tool: str, reasoning: str | None, prompt: str, text: str
) -> None:
    format = combine(tool, reasoning)
    for size in (1, len(text)):
        start = None if format.header is not None else "content"
        machine = Machine(format, TOOLS, start=start)
        machine.skip_prompt(prompt)
        events = [event for piece in cut(text, size) for event in machine.feed(piece)]
        answer = fold(events + machine.finish())
        assert answer.content == ""
        if "look" in text:
            assert answer.reasoning.rstrip(".") == "look"


def test_ids_of_mistral_are_nine_letters_and_digits() -> None:
    machine = Machine(tool_formats()["mistral"], TOOLS)
    events = machine.feed("[TOOL_CALLS]moon[ARGS]{}[TOOL_CALLS]moon[ARGS]{}") + machine.finish()
    ids = [event.id for event in events if isinstance(event, ToolCallBegin)]
    assert len(set(ids)) == 2
    assert all(len(each) == 9 and each.isalnum() and each.isascii() for each in ids)


@pytest.mark.parametrize("name", ["hermes", "jamba", "mistral", "gigachat3", "openai", "apertus"])
def test_long_arguments_leave_as_they_come(name: str) -> None:
    format = tool_formats()[name]
    value = "x\\n" * 40_000
    text = format.example.replace("Brest", value).replace("Брест", value)
    machine = Machine(format, TOOLS)
    pieces = cut(text, 1_000)
    sizes = []
    for piece in pieces:
        events = machine.feed(piece)
        sizes.append(sum(len(e.fragment) for e in events if isinstance(e, ToolCallArguments)))
        # Nothing but the end of a piece that may be half an escape waits for the next.
        assert len(machine._source.text) - machine._source.position < 1_000
    assert all(999 <= size <= 1_001 for size in sizes[2:-2])
    machine.finish()


@pytest.mark.parametrize("syntax", [JsonCall(), JsonArray()])
def test_a_syntax_without_a_frame_needs_a_function_that_was_offered(syntax: JsonCall) -> None:
    is_array = isinstance(syntax, JsonArray)
    format = Format(family="x", calls=Calls(syntax=syntax, at_start="[" if is_array else "{"))
    for name, is_call in (("tide", True), ("sunrise", False)):
        text = f'{{"name": "{name}", "arguments": {{}}}}'
        text = f"[{text}]" if is_array else text
        answer = fold(events_of(format, cut(text, 3), TOOLS))
        assert [call.name for call in answer.calls] == ([name] if is_call else [])
        assert answer.content == ("" if is_call else text)
