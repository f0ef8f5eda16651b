"""What the vectors of tagged calls do not say: tokens, pieces of values, and cost."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from formats.folding import events_of, fold, numbered_id

from rillm.formats.events import ContentDelta, ToolCallArguments
from rillm.formats.machine import Machine
from rillm.formats.registry import combine
from rillm.formats.tokens import find_tokens

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "write_file",
            "parameters": {"properties": {"content": {"type": "string"}}},
        },
    }
]

FRAMES = {
    "qwen3_coder": (
        "<tool_call><function=write_file><parameter=content>\n",
        "\n</parameter></function></tool_call>",
    ),
    "mimo": (
        "<tool_call><function=write_file><parameter=content>",
        "</parameter></function></tool_call>",
    ),
    "minimax_m2": (
        '<minimax:tool_call><invoke name="write_file"><parameter name="content">',
        "</parameter></invoke></minimax:tool_call>",
    ),
    "dots": (
        '<dots_function_call><invoke name="write_file"><parameter name="content">',
        "</parameter></invoke></dots_function_call>",
    ),
    "deepseek_v4": (
        '<｜DSML｜tool_calls><｜DSML｜invoke name="write_file">'
        '<｜DSML｜parameter name="content" string="true">',
        "</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜tool_calls>",
    ),
    "glm45": (
        "<tool_call>write_file<arg_key>content</arg_key><arg_value>",
        "</arg_value></tool_call>",
    ),
    "minicpm5": (
        '<function name="write_file"><param name="content">',
        "</param></function>",
    ),
    "kimi_k3": (
        '<|open|>tools<|sep|><|open|>call tool="write_file" index="1"<|sep|>'
        '<|open|>argument key="content" type="string"<|sep|>',
        "<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>",
    ),
}


def _machine(name: str, **options: Any) -> Machine:
    return Machine(combine(name, None), TOOLS, new_id=numbered_id, start="content", **options)


@pytest.mark.parametrize("name", FRAMES)
def test_every_piece_of_a_string_is_handed_on_at_once(name: str) -> None:
    machine = _machine(name)
    opened, closed = FRAMES[name]
    machine.feed(opened + "x")
    for i in range(50):
        piece = f" word {i}"
        events = machine.feed(piece)
        assert all(isinstance(event, ToolCallArguments) for event in events)
        assert "".join(event.fragment for event in events) == piece
    machine.feed(closed)
    assert not machine.faults


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("character", ["a", "<", "\n", "&", '"'])
def test_long_strings_cost_in_proportion(name: str, character: str) -> None:
    short, long = (_cost(name, character * size) for size in (1_000, 4_000))
    assert long < 5 * short


def _cost(name: str, value: str) -> int:
    """Lines of Python that run for a value that comes character by character."""
    machine = _machine(name)
    opened, closed = FRAMES[name]
    machine.feed(opened)
    num_lines = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal num_lines
        num_lines += event == "line"
        return count

    traced = sys.gettrace()
    sys.settrace(count)
    try:
        for character in value:
            machine.feed(character)
    finally:
        sys.settrace(traced)
    machine.feed(closed)
    return num_lines


@pytest.mark.parametrize("name", FRAMES)
def test_a_string_of_100_kilobytes_arrives_whole(name: str) -> None:
    opened, closed = FRAMES[name]
    value = "x <tool_cal </par ]] 潮 \n" * 4_000 + "x"
    pieces = [opened, *(value[i : i + 7] for i in range(0, len(value), 7)), closed]
    answer = fold(events_of(combine(name, None), pieces, TOOLS, start="content"))
    quoted = value.replace("\n", "\\n")
    assert [call.arguments for call in answer.calls] == [f'{{"content": "{quoted}"}}']


def test_text_that_looks_like_a_token_is_content() -> None:
    format = combine("glm45", "glm45")
    names = ("tool_call", "arg_key", "arg_value", "think")
    markers = [f"<{slash}{name}>" for name in names for slash in ("", "/")]
    tokens = find_tokens(format, dict.fromkeys(markers, False))
    machine = Machine(format, tokens=tokens, new_id=numbered_id, start="content")
    text = "Write <tool_call>f</tool_call> and </think>."
    events = machine.feed(text)
    assert "".join(event.text for event in events if isinstance(event, ContentDelta)) == text
    call = "<tool_call>f<arg_key>k</arg_key><arg_value>{}</arg_value></tool_call>"
    events = machine.feed(tokens.encode(call).replace("{}", "</arg_value>")) + machine.finish()
    answer = fold(events)
    assert [(each.name, each.arguments) for each in answer.calls] == [
        ("f", '{"k": "</arg_value>"}')
    ]


def test_a_token_inside_a_value_is_written_out() -> None:
    format = combine("qwen3_coder", None)
    tokens = find_tokens(format, {"<tool_call>": True, "</tool_call>": True})
    text = (
        "<tool_call><function=write_file><parameter=content>a<tool_call>b</parameter>"
        "</function></tool_call>"
    )
    machine = Machine(format, TOOLS, tokens=tokens, new_id=numbered_id)
    answer = fold(machine.feed(tokens.encode(text)) + machine.finish())
    assert [each.arguments for each in answer.calls] == ['{"content": "a<tool_call>b"}']


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_followed_by_prose_does_not_hold_it_back(name: str) -> None:
    machine = _machine(name)
    marker = FRAMES[name][0][: FRAMES[name][0].index(">") + 1]
    if name == "minicpm5":
        marker = "<function>"
    if name == "kimi_k3":
        marker = "<|open|>tools<|sep|>"
    machine.feed(marker)
    machine.feed(" is a marker")
    events = machine.feed(" and so on")
    assert [event.text for event in events if isinstance(event, ContentDelta)] == [" and so on"]
