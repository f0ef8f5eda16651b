"""Where in a format a rendered prompt ends, and which of its markers are tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from formats.folding import Answer, fold

from rillm.engine_args import EngineArgs
from rillm.errors import ConfigError
from rillm.formats.registry import combine
from rillm.output_formats import NONE, OutputFormats, ToolOptions, choose_formats
from rillm.text.tokenizer import Tokenizer

DIRECTORY = EngineArgs().model_directory()
TOKENIZER = Tokenizer.from_directory(DIRECTORY)
FORMATS = OutputFormats(combine("hermes", "qwen3"), TOKENIZER)
MESSAGES = [{"role": "user", "content": "Say <think>, please."}]
PLUGINS = Path(__file__).parent / "plugins"


def answer(
    prompt: str, text: str, options: ToolOptions | None = None, formats: OutputFormats = FORMATS
) -> Answer:
    """Fold what a model says after a prompt, token by token."""
    format = formats.for_prompt(TOKENIZER.encode(prompt), options)
    assert format is not None
    parser = format.new_parser()
    detokenizer = TOKENIZER.detokenizer(stand_ins=format.stand_ins)
    events = []
    for token_id in TOKENIZER.encode(text):
        events += parser.feed(detokenizer.push([token_id]), [token_id])
    return fold([*events, *parser.feed(detokenizer.finish()), *parser.finish()])


def rendered(**variables: object) -> str:
    return TOKENIZER.apply_chat_template(MESSAGES, **variables)  # type: ignore[arg-type]


def test_a_prompt_that_closes_reasoning_begins_with_content() -> None:
    assert rendered(enable_thinking=False).endswith("</think>\n\n")
    assert answer(rendered(enable_thinking=False), "Hello").content == "Hello"


def test_a_prompt_that_leaves_reasoning_open_begins_inside() -> None:
    prompt = rendered(enable_thinking=True) + "<think>\n"

    folded = answer(prompt, "hm\n</think>\n\nHello")

    assert (folded.reasoning, folded.content) == ("hm", "Hello")


def test_a_prompt_that_says_nothing_leaves_it_to_the_model() -> None:
    prompt = rendered(enable_thinking=True)

    assert answer(prompt, "Hello").content == "Hello"
    assert answer(prompt, "<think>hm</think>Hello").reasoning == "hm"


def test_earlier_turns_do_not_count() -> None:
    prompt = "<|im_start|>assistant\n<think>\nhm<|im_end|>\n<|im_start|>assistant\n"

    assert answer(prompt, "Hello").content == "Hello"


def test_calls_are_read_only_where_tools_are_offered() -> None:
    text = '<tool_call>\n{"name": "tide", "arguments": {}}\n</tool_call>'

    assert answer(rendered(), text).content == text
    offered = answer(rendered(), text, ToolOptions(tools=[{"function": {"name": "tide"}}]))
    assert [call.name for call in offered.calls] == ["tide"]


def test_a_format_of_plain_text_parses_nothing() -> None:
    formats = OutputFormats(combine(None, None), TOKENIZER)

    assert formats.for_prompt([1], None) is None
    assert not formats.reads_calls


def test_formats_are_chosen_by_the_model_or_by_name() -> None:
    chosen = choose_formats(DIRECTORY, TOKENIZER, "bundled")
    assert chosen.format.names[0] == "hermes"
    assert "qwen3" in chosen.format.reasoning_names

    named = choose_formats(DIRECTORY, TOKENIZER, "bundled", tool_name="openai", reasoning_name=NONE)
    assert named.reads_calls
    assert named.format.calls is None


@pytest.mark.parametrize(
    "names",
    [{"tool_name": "nope"}, {"tool_name": "openai"}, {"tool_name": "hf", "reasoning_name": "hf"}],
)
def test_a_choice_that_cannot_be_is_refused(names: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        choose_formats(DIRECTORY, TOKENIZER, "bundled", **names)


def test_a_plugin_reads_the_calls() -> None:
    plugin = str(PLUGINS / "streaming_plugin.py")
    formats = choose_formats(
        DIRECTORY, TOKENIZER, "bundled", tool_name="call_tags", tool_plugin=plugin
    )
    tools = [{"type": "function", "function": {"name": "tide"}}]
    options = ToolOptions(tools=tools, request={"messages": MESSAGES, "tools": tools})

    text = '<think>hm</think>Well. <call:tide>{"port": "Brest"}</call>'
    folded = answer(rendered(enable_thinking=True), text, options, formats)

    assert formats.reads_calls
    assert folded.reasoning == "hm"
    assert folded.content == "Well. "
    assert [(call.name, call.arguments) for call in folded.calls] == [("tide", '{"port": "Brest"}')]
    assert answer(rendered(), text[17:], None, formats).content == text[17:]


def test_a_plugin_must_register_the_name() -> None:
    plugin = str(PLUGINS / "streaming_plugin.py")
    with pytest.raises(ConfigError, match="registers no 'nope'"):
        choose_formats(DIRECTORY, TOKENIZER, "bundled", tool_name="nope", tool_plugin=plugin)


def test_stand_ins_are_those_of_the_vocabulary() -> None:
    format = FORMATS.for_prompt([1], ToolOptions())
    assert format is not None
    texts = {TOKENIZER.token_text(token_id) for token_id in format.stand_ins}
    assert texts == {"<think>", "</think>", "<tool_call>", "</tool_call>"}
    assert format.encode_stop("</think>") in format.stand_ins.values()
