"""Formats that a checkpoint declares; the vectors of `beam.toml` cover the one that is shipped."""

from __future__ import annotations

from typing import Any

import pytest
from formats.folding import Answer, events_of, fold

from rillm.formats.registry import combine, reasoning_formats, tool_formats
from rillm.model_formats.response_template import ResponseTemplateError, resolve_template

TRANSFORM = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}
XML = {"tag_pattern": r"<p=(?P<key>[^>]+)>\n(?P<value>.*?)\n</p>"}
TOOLS = [{"name": "tide", "parameters": {"properties": {"days": {"type": "integer"}}}}]


def answer_of(calls: dict[str, Any], text: str, **fields: Any) -> Answer:
    template = {"start_anchor": "<bot>", "fields": {"content": {}, "tool_calls": calls, **fields}}
    return fold(events_of(resolve_template(template), list(text), TOOLS))


def check_call(answer: Answer, arguments: str = '{"port": "Brest"}') -> None:
    assert [(each.name, each.arguments, each.is_complete) for each in answer.calls] == [
        ("tide", arguments, True)
    ]
    assert answer.content == "ok"


def test_objects_between_literals() -> None:
    calls = {
        "open": ["<call>", "<tool>"],
        "close": "</call>",
        "content": "json",
        "transform": {
            "id": "{content.id}",
            "function": {"name": "{content.tool}", "arguments": "{content.args}"},
        },
    }
    body = '<tool>{"id": "7", "tool": "tide", "args": {"port": "Brest"}}</call>'
    answer = answer_of(calls, f"ok\n{body}")
    check_call(answer)
    assert answer.calls[0].id == "7"


def test_an_array_of_objects() -> None:
    transform = {"name": "{name}", "arguments": "{arguments}"}
    calls = {
        "open": "<calls>",
        "close": "</calls>",
        "content": "json",
        "transform": transform,
        "transform_each": True,
    }
    text = 'ok\n<calls>[{"name": "tide", "arguments": {"port": "Brest"}}]</calls>'
    check_call(answer_of(calls, text))


def test_a_name_in_the_opener_and_json() -> None:
    pattern = r"<function=(?P<name>\w+)>"
    calls = {"open_pattern": pattern, "close": "</f>", "content": "json", "transform": TRANSFORM}
    check_call(answer_of(calls, 'ok\n<function=tide>{"port": "Brest"}</f>'))


def test_a_name_in_the_opener_and_tags() -> None:
    pattern = r"<function=(?P<name>[^>]+)>\s*"
    calls = {
        "open_pattern": pattern,
        "close": "</f>",
        "content": "xml-inline",
        "content_args": XML,
        "transform": TRANSFORM,
    }
    text = "ok\n<function=tide>\n<p=days>\n2\n</p>\n<p=port>\nBrest\n</p>\n</f>"
    check_call(answer_of(calls, text), '{"days": 2, "port": "Brest"}')


def test_strings_between_marks() -> None:
    calls = {
        "open_pattern": r"<\|tool_call>call:(?P<name>\w+)",
        "close": "<tool_call|>",
        "content": "json",
        "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
        "transform": TRANSFORM,
    }
    check_call(answer_of(calls, 'ok\n<|tool_call>call:tide{port:<|"|>Brest<|"|>}<tool_call|>'))


def test_reasoning_and_the_end_of_the_answer() -> None:
    thinking = {"open_pattern": r"<think>\n?", "close_pattern": r"\s*</think>\n*"}
    answer = answer_of(
        {"open": "<call>", "close": "</call>", "content": "json"},
        "<think>\nlook\n</think>\n\nok<end>",
        thinking=thinking,
        content={"close": "<end>"},
    )
    assert (answer.reasoning, answer.content) == ("look", "ok")


def test_the_names_are_known_and_wait_for_a_checkpoint() -> None:
    for name in ("hf", "beam"):
        assert tool_formats()[name].from_checkpoint
        assert reasoning_formats()[name].from_checkpoint
        assert combine(name, name).from_checkpoint


CALLS = {"open": "<call>", "content": "json"}


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("version", {"version": 2}),
        ("fields", {"fields": []}),
        ("fields.role", {"fields": {"role": {}}}),
        ("content", {"fields": {"content": "text"}}),
        ("start_anchor", {"start_anchor": []}),
        ("start_anchor_pattern", {"start_anchor": None, "start_anchor_pattern": "<b.t>"}),
        ("content.content", {"fields": {"content": {"content": "json"}}}),
        ("content.close", {"fields": {"content": {"close": ["a", ""]}}}),
        ("thinking.open", {"fields": {"thinking": {"close": "</think>"}}}),
        ("thinking.open_pattern", {"fields": {"thinking": {"open_pattern": "<th?>"}}}),
        ("thinking.open", {"fields": {"thinking": {"open": "a", "open_pattern": "a"}}}),
        ("thinking.transform", {"fields": {"thinking": {"open": "a", "transform": "{content}"}}}),
        ("tool_calls.open", {"fields": {"tool_calls": {"content": "json"}}}),
        ("tool_calls.content", {"fields": {"tool_calls": {"open": "a", "content": "kv-lines"}}}),
        ("tool_calls.content", {"fields": {"tool_calls": {"open": "a"}}}),
        ("tool_calls.content_args", {"fields": {"tool_calls": {**CALLS, "content_args": 1}}}),
        (
            "tool_calls.content_args.unquoted_keys",
            {"fields": {"tool_calls": {**CALLS, "content_args": {"unquoted_keys": True}}}},
        ),
        (
            "tool_calls.open_pattern",
            {"fields": {"tool_calls": {"open": "a", "content": "xml-inline"}}},
        ),
        ("tool_calls.open_pattern", {"fields": {"tool_calls": {"open_pattern": "a|b"}}}),
        ("tool_calls.transform", {"fields": {"tool_calls": {"open_pattern": "<(?P<n>a)>"}}}),
        (
            "tool_calls.transform",
            {"fields": {"tool_calls": {**CALLS, "transform": {"name": "{content.a.b}"}}}},
        ),
    ],
)
def test_what_cannot_be_expressed_is_refused(field: str, change: dict[str, Any]) -> None:
    template = {"start_anchor": "<bot>", "fields": {"content": {}}, **change}
    template = {key: value for key, value in template.items() if value is not None}
    with pytest.raises(ResponseTemplateError, match=field.replace(".", r"\.")) as caught:
        resolve_template(template)
    assert caught.value.field == field
