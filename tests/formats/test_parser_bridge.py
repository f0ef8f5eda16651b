"""Tool parsers written for vLLM: loaded from a file, streamed, and survived when they fail."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from formats.folding import Answer, fold, numbered_id

from rillm.choice_parser import ChoiceParser
from rillm.errors import ConfigError
from rillm.formats.description import Format, Reasoning
from rillm.formats.machine import Machine
from rillm.formats.registry import tool_formats
from rillm.parsers.bridge import ParserBridge
from rillm.parsers.plugin import ParserPlugin, PluginTokenizer, load_plugin

PLUGINS = Path(__file__).parent / "plugins"
CALL = '<call:tide>{"port": "Brest", "é": [1]}</call>'
ARGUMENTS = '{"port": "Brest", "é": [1]}'
BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": "?"}],
    "tools": [{"type": "function", "function": {"name": "tide", "parameters": {}}}],
    "tool_choice": "auto",
    "a_field_of_tomorrow": 1,
}


class CharTokenizer:
    """One token for each character."""

    vocab_size = 0x3000
    eos_token_id = 3

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(map(chr, token_ids))

    def token_text(self, token_id: int) -> str:
        return chr(token_id)

    def token_id(self, token: str) -> int | None:
        return ord(token) if len(token) == 1 else None


def load(file: str, name: str) -> ParserPlugin:
    return load_plugin(str(PLUGINS / file), name, PluginTokenizer(CharTokenizer()))


def run(parser: ChoiceParser, pieces: Sequence[str], *, is_cut: bool = False) -> Answer:
    """Feed pieces, one token a character."""
    events = [event for piece in pieces for event in parser.feed(piece, [ord(c) for c in piece])]
    return fold(events + parser.finish(is_cut=is_cut))


def run_plugin(plugin: ParserPlugin, pieces: Sequence[str], **options: Any) -> Answer:
    bridge = plugin.choice(plugin.request(BODY), **options)
    answer = run(bridge, pieces)
    assert bridge.faults == 0
    return answer


def calls_of(answer: Answer) -> list[tuple[str, str, bool]]:
    return [(each.name, each.arguments, each.is_complete) for each in answer.calls]


TEXTS = {
    "plain": ("Tide is < 3 m <cal", "Tide is < 3 m <cal", []),
    "one": (f"Look: {CALL}", "Look: ", [("tide", ARGUMENTS, True)]),
    "two": (CALL + "<call:moon>{}</call>", "", [("tide", ARGUMENTS, True), ("moon", "{}", True)]),
    "no arguments": ("<call:moon></call>", "", [("moon", "{}", True)]),
    "text after": (CALL + " done", " done", [("tide", ARGUMENTS, True)]),
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("case", TEXTS)
def test_streaming_parser(case: str, size: int) -> None:
    text, content, calls = TEXTS[case]
    plugin = load("streaming_plugin.py", "call_tags")
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    answer = run_plugin(plugin, pieces)
    assert answer.content == content
    assert calls_of(answer) == calls
    assert all(each.id.startswith("plug-") for each in answer.calls)


def test_every_delta_is_streamed_at_once() -> None:
    plugin = load("streaming_plugin.py", "call_tags_alias")
    bridge = plugin.choice(plugin.request(BODY))
    kinds = [[type(event).__name__ for event in bridge.feed(piece)] for piece in ("Hi", " you")]
    assert kinds == [["ContentDelta"], ["ContentDelta"]]
    begin, arguments = bridge.feed('<call:tide>{"p')
    assert (begin.name, arguments.fragment) == ("tide", '{"p')
    # The call is complete only when something follows it, or nothing does.
    assert [type(event).__name__ for event in bridge.feed('": 1}</call>')] == ["ToolCallArguments"]
    events = bridge.feed("<call:moon>")
    assert [type(event).__name__ for event in events] == ["ToolCallEnd", "ToolCallBegin"]


def test_a_call_that_was_cut_off_is_not_complete() -> None:
    plugin = load("streaming_plugin.py", "call_tags")
    for text, arguments in (('<call:tide>{"port": "Br', '{"port": "Br'), ("<call:tide>", "")):
        bridge = plugin.choice(plugin.request(BODY))
        assert calls_of(run(bridge, [text], is_cut=True)) == [("tide", arguments, False)]


@pytest.mark.parametrize(
    ("file", "name", "faults"),
    [("whole_plugin.py", "call_line", 0), ("raises_at_once_plugin.py", "raises_at_once", 1)],
)
def test_without_a_stream_the_text_is_parsed_at_the_end(
    file: str, name: str, faults: int, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = load(file, name)
    for text, content, calls in (
        ('Look. CALL {"name": "tide", "arguments": {"é": 1}}', "Look. ", [("tide", '{"é": 1}')]),
        ("A plain answer.", "A plain answer.", []),
        ("", "", []),
    ):
        caplog.clear()
        bridge = plugin.choice(plugin.request(BODY))
        events = [event for character in text for event in bridge.feed(character)]
        assert not events
        answer = fold(bridge.finish())
        assert answer.content == content
        assert calls_of(answer) == [(*call, True) for call in calls]
        assert bridge.faults == (faults if text else 0)
        assert len(caplog.records) == bridge.faults


def test_what_no_method_can_read_is_content(caplog: pytest.LogCaptureFixture) -> None:
    plugin = load("raises_at_once_plugin.py", "raises_at_once")
    bridge = plugin.choice(plugin.request(BODY))
    answer = run(bridge, ["CALL ", "{no json"])
    assert (answer.content, answer.calls) == ("CALL {no json", [])
    assert bridge.faults == 2
    assert len([each for each in caplog.records if each.levelno >= logging.ERROR]) == 1


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_after_a_late_failure_the_rest_is_content(size: int) -> None:
    plugin = load("raises_midway_plugin.py", "raises_midway")
    text = f"See {CALL} so! <call:moon>"
    bridge = plugin.choice(plugin.request(BODY))
    first, rest = text[: text.index("!")], text[text.index("!") :]
    pieces = [first[i : i + size] for i in range(0, len(first), size)]
    answer = run(bridge, [*pieces, rest])
    assert answer.content == "See  so! <call:moon>"
    assert calls_of(answer) == [("tide", ARGUMENTS, True)]
    assert bridge.faults == 1


def test_a_late_failure_loses_nothing_that_the_parser_kept_back() -> None:
    plugin = load("raises_midway_plugin.py", "raises_midway")
    bridge = plugin.choice(plugin.request(BODY))
    answer = run(bridge, ["Hi <ca", "l! and more", " text"])
    assert (answer.content, answer.calls) == ("Hi <cal! and more text", [])


def test_a_call_that_failed_is_not_complete() -> None:
    plugin = load("raises_midway_plugin.py", "raises_midway")
    bridge = plugin.choice(plugin.request(BODY))
    answer = run(bridge, ["<call:tide>", '{"port": "!"}'])
    assert calls_of(answer) == [("tide", "", False)]
    assert answer.content == '{"port": "!"}'


class Scripted:
    """A parser that says what a test wants."""

    deltas: dict[str, Any]
    whole: Any = None

    def __init__(self, deltas: dict[str, Any], whole: Any = None) -> None:
        self.deltas, self.whole = deltas, whole

    def extract_tool_calls_streaming(self, before: str, text: str, delta: str, *_: Any) -> Any:
        return self.deltas.get(delta)

    def extract_tool_calls(self, text: str, request: Any) -> Any:
        if self.whole is None:
            raise ValueError("nothing")
        return self.whole


def scripted(deltas: dict[str, Any], whole: Any = None, **options: Any) -> ParserBridge:
    return ParserBridge(lambda: Scripted(deltas, whole), None, new_id=numbered_id, **options)


@pytest.fixture
def records() -> Any:
    load("whole_plugin.py", "call_line")
    return sys.modules["vllm.entrypoints.openai.protocol"]


def test_the_end_adds_what_the_stream_left_out(records: Any) -> None:
    begin = {"index": 0, "function": {"name": "tide", "arguments": '{"a'}}
    whole = records.ExtractedToolCallInformation(
        tools_called=True,
        tool_calls=[
            {"function": {"name": "tide", "arguments": '{"a": 1}'}},
            {"id": "x", "function": {"name": "moon", "arguments": "{}"}},
        ],
    )
    deltas = {"1": records.DeltaMessage(tool_calls=[begin])}
    answer = run(scripted(deltas, whole), ["1", "2"])
    assert calls_of(answer) == [("tide", '{"a": 1}', True), ("moon", "{}", True)]
    assert [each.id for each in answer.calls] == ["call_0", "x"]
    cut = run(scripted(deltas, whole), ["1", "2"], is_cut=True)
    assert calls_of(cut) == [("tide", '{"a', False)]
    whole.tool_calls[0].function.name = "another"
    assert calls_of(run(scripted(deltas, whole), ["1"])) == [("tide", '{"a', False)]


def test_a_streaming_method_that_says_nothing_is_none(records: Any) -> None:
    whole = records.ExtractedToolCallInformation(
        tools_called=True, tool_calls=[{"function": {"name": "f"}}], content="Hi"
    )
    answer = run(scripted({}, whole), ["some", "thing"])
    assert (answer.content, calls_of(answer)) == ("Hi", [("f", "{}", True)])


def test_names_come_once_and_whole(records: Any) -> None:
    def delta(**function: Any) -> Any:
        return records.DeltaMessage(tool_calls=[{"index": 4, "function": function}])

    deltas = {
        "1": delta(arguments='{"a'),
        "2": delta(name="tide", arguments='": '),
        "3": delta(name="tide", arguments={"b": 1}),
        "4": delta(arguments="}"),
    }
    bridge = scripted(deltas)
    assert not bridge.feed("1")
    answer = fold([event for piece in "234" for event in bridge.feed(piece)] + bridge.finish())
    assert calls_of(answer) == [("tide", '{"a": {"b": 1}}', True)]


def test_tool_choice_and_parallel_calls() -> None:
    plugin = load("streaming_plugin.py", "call_tags")
    text = "Hi " + CALL + "<call:moon>{}</call>"
    none = run_plugin(plugin, [text], tool_choice="none")
    assert (none.content, none.calls) == ("Hi ", [])
    one = run_plugin(plugin, [text], parallel_tool_calls=False)
    assert calls_of(one) == [("tide", ARGUMENTS, True)]


THINK = Format(family="think", reasoning=Reasoning(open=("<think>",), close=("</think>",)))


@pytest.mark.parametrize("size", [1, 3, 11, 1000])
def test_reasoning_goes_before_the_plugin(size: int) -> None:
    plugin = load("streaming_plugin.py", "call_tags")
    thought = f"\nIs it {CALL}?\n"
    text = f"{thought}</think>\n\nYes <: {CALL}"
    parsers: list[Any] = []

    def new_parser() -> Any:
        parsers.append(plugin.parser(plugin.request(BODY)))
        return parsers[-1]

    bridge = ParserBridge(
        new_parser, plugin.request(BODY), reasoning=Machine(THINK), decode=CharTokenizer().decode
    )
    assert bridge.is_reasoning
    answer = run(bridge, [text[i : i + size] for i in range(0, len(text), size)])
    assert answer.reasoning == thought.strip()
    assert answer.content == "Yes <: "
    assert calls_of(answer) == [("tide", ARGUMENTS, True)]
    assert CharTokenizer().decode(parsers[0].seen_ids) == f"Yes <: {CALL}"
    assert bridge.faults == 0


def test_the_request_is_adjusted() -> None:
    plugin = load("streaming_plugin.py", "call_tags")
    assert plugin.request(BODY).skip_special_tokens is False
    assert plugin.request({"messages": []}).skip_special_tokens is True
    assert plugin.request(BODY).tools[0].function.name == "tide"


def test_the_stand_in_goes_with_a_plugin_that_cannot_be_loaded(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import vllm.tool_parsers\nraise RuntimeError('no')\n")
    for path, name, words in (
        (str(bad), "x", "RuntimeError: no"),
        (str(tmp_path / "missing.py"), "x", "ModuleNotFoundError"),
        (str(PLUGINS / "needs_vllm_plugin.py"), "x", "needs vLLM itself"),
        (str(PLUGINS / "streaming_plugin.py"), "unheard_of", "must be one of .*call_tags"),
        (str(PLUGINS / "raises_at_once_plugin.py"), "refuses", "lacks a token"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_plugin(path, name, PluginTokenizer(CharTokenizer()))
        assert "vllm" not in sys.modules
        assert "vllm.tool_parsers" not in sys.modules


def test_a_format_and_a_plugin_are_interchangeable() -> None:
    machine = Machine(tool_formats()["hermes"], new_id=numbered_id)
    text = 'Hi <tool_call>{"name": "tide", "arguments": {"a": 1}}</tool_call>'
    answer = run(machine, list(text))
    assert (answer.content.strip(), calls_of(answer)) == ("Hi", [("tide", '{"a": 1}', True)])
