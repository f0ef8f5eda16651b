"""The names that users choose by, how halves are mixed, and what the examples show."""

from __future__ import annotations

import json

import pytest
from formats.folding import events_of, fold
from formats.test_vectors import TOOLS

from rillm.formats.description import Format
from rillm.formats.registry import (
    UnknownFormatError,
    all_formats,
    combine,
    reasoning_formats,
    tool_formats,
    without_calls,
)

TOOL_NAMES = [
    "apertus",
    "beam",
    "cohere_command3",
    "cohere_command4",
    "deepseek_v3",
    "deepseek_v31",
    "deepseek_v32",
    "deepseek_v4",
    "deepseek_v41",
    "dots",
    "ernie45",
    "functiongemma",
    "gemma4",
    "gigachat3",
    "glm45",
    "glm47",
    "granite",
    "granite-20b-fc",
    "granite4",
    "hermes",
    "hf",
    "hunyuan_a13b",
    "hy_v3",
    "hy_v4",
    "inkling",
    "internlm",
    "jamba",
    "k2_horizon",
    "kimi_k2",
    "kimi_k3",
    "lfm2",
    "ling3",
    "llama3_json",
    "llama4_json",
    "llama4_pythonic",
    "longcat",
    "mimo",
    "minicpm5",
    "minimax_m2",
    "minimax_m3",
    "mistral",
    "muse",
    "muse_glimmer",
    "musespark1x",
    "olmo3",
    "openai",
    "phi4_mini_json",
    "plamo3",
    "poolside_v1",
    "pythonic",
    "qwen3_coder",
    "qwen3_json",
    "qwen3_xml",
    "seed_oss",
    "step3",
    "step3p5",
    "step5",
    "xlam",
]
REASONING_NAMES = [
    "beam",
    "cohere_command3",
    "cohere_command4",
    "deepseek_r1",
    "deepseek_v3",
    "deepseek_v4",
    "deepseek_v41",
    "ernie45",
    "gemma4",
    "glm45",
    "glm47",
    "granite",
    "granite_thinking_parser",
    "hf",
    "holo2",
    "hunyuan_a13b",
    "hy_v3",
    "hy_v4",
    "inkling",
    "k2_horizon",
    "kimi_k2",
    "kimi_k3",
    "ling3",
    "mimo",
    "minicpmv",
    "minimax_m2",
    "minimax_m2_append_think",
    "minimax_m3",
    "mistral",
    "muse",
    "muse_glimmer",
    "musespark1x",
    "nemotron_v3",
    "olmo3",
    "openai_gptoss",
    "plamo3",
    "poolside_v1",
    "qwen3",
    "seed_oss",
    "step3",
    "step3p5",
    "step5",
]


def test_every_name_is_there() -> None:
    assert len(TOOL_NAMES) == 58
    assert len(REASONING_NAMES) == 42
    assert sorted(tool_formats()) == sorted(TOOL_NAMES)
    assert sorted(reasoning_formats()) == sorted(REASONING_NAMES)


def test_no_name_is_given_twice() -> None:
    for names in ([n for f in all_formats() for n in f.names],):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("format", all_formats(), ids=lambda each: each.family)
def test_an_example_shows_what_the_format_is_for(format: Format) -> None:
    if format.from_checkpoint or "minimax_m2_append_think" in format.reasoning_names:
        return
    answer = fold(events_of(format, [format.example], TOOLS))
    if format.names:
        assert answer.calls
        for call in answer.calls:
            assert call.is_complete
            assert isinstance(json.loads(call.arguments), dict)
    else:
        assert answer.reasoning


def test_halves_are_mixed() -> None:
    call = "<tool_call>tide\n<arg_key>port</arg_key><arg_value>b</arg_value></tool_call>"
    answer = fold(events_of(combine("glm45", "deepseek_r1"), ["<think>a</think>" + call], TOOLS))

    assert answer.reasoning == "a"
    assert [(each.name, each.arguments) for each in answer.calls] == [("tide", '{"port": "b"}')]


def test_a_half_alone_leaves_the_other_in_the_text() -> None:
    text = "<think>a</think>b"

    assert fold(events_of(combine("hermes", None), [text])).content == text
    calls = fold(events_of(combine(None, "qwen3"), ["<think>a</think><tool_call>{}"]))
    assert calls.content == "<tool_call>{}"


@pytest.mark.parametrize(("tool", "reasoning"), [("openai", "qwen3"), ("hermes", "muse")])
def test_a_format_with_one_markup_for_both_is_not_mixed(tool: str, reasoning: str) -> None:
    with pytest.raises(UnknownFormatError, match="mixed"):
        combine(tool, reasoning)


def test_such_a_format_is_whole_by_either_name() -> None:
    assert combine("openai", None) is combine(None, "openai_gptoss")


@pytest.mark.parametrize(("tool", "reasoning"), [("nope", None), (None, "nope")])
def test_an_unknown_name_is_refused_with_the_known_ones(
    tool: str | None, reasoning: str | None
) -> None:
    with pytest.raises(UnknownFormatError, match="'nope', must be one of .*deepseek"):
        combine(tool, reasoning)


def test_without_calls_they_are_text() -> None:
    format = without_calls(combine("hermes", "qwen3"))
    text = '<tool_call>{"name": "tide"}</tool_call>'

    assert fold(events_of(format, [text], TOOLS, start="content")).content == text
