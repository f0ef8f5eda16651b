"""Styles whose arguments are JSON, which passes through as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from formats.printing import Call, CallStyle, WriteCalls, Writer


def write_object(
    writer: Writer,
    call: Call,
    *,
    arguments: Sequence[str] = ("arguments",),
    as_string: bool = False,
    fixed: bool = False,
) -> None:
    """Write `{"name": ..., "arguments": ...}`.

    Args:
        writer: where to.
        call: the call.
        arguments: keys that may hold the arguments.
        as_string: whether they may be JSON inside of a string.
        fixed: whether the name must come first, and the arguments must be there.
    """
    choices = writer.choices
    value = writer.arguments(call)
    if as_string and choices.chance(4):
        value = writer.json(value)
    members = [f'"name": {json.dumps(call.name)}', f'"{choices.one_of(arguments)}": {value}']
    if not fixed and choices.chance(4):
        members.reverse()
    if not fixed and not call.arguments and choices.chance(2):
        members, call.exact = [f'"name": {json.dumps(call.name)}'], "{}"
    separator = choices.one_of((", ", ",", ",\n  "))
    writer.quoted_json("{" + separator.join(members) + choices.one_of(("}", "\n}")))


def write_array(
    writer: Writer, calls: list[Call], *, arguments: Sequence[str] = ("arguments",), **options: Any
) -> None:
    """Write an array of such objects."""
    writer.text("[").space("", "\n", " ")
    for i, call in enumerate(calls):
        if i:
            writer.text(",").space(" ", "", "\n")
        write_object(writer, call, arguments=arguments, **options)
    writer.space("", "\n", " ").text("]")


def _tags(open: str, close: str, **options: Any) -> WriteCalls:
    def write(writer: Writer, calls: list[Call]) -> None:
        for i, call in enumerate(calls):
            if i:
                writer.space()
            writer.mark(open).space()
            write_object(writer, call, **options)
            writer.space().mark(close)

    return write


def _one(*open: str, close: str = "", **options: Any) -> WriteCalls:
    def write(writer: Writer, calls: list[Call]) -> None:
        for call in calls:
            writer.mark(*open).space("\n", "", " ")
            write_object(writer, call, **options)
            if close:
                writer.space("", "\n").mark(close)

    return write


def _array(*open: str, close: str = "", space: Sequence[str] = ("",), **options: Any) -> WriteCalls:
    def write(writer: Writer, calls: list[Call]) -> None:
        writer.mark(*open).space(*space)
        write_array(writer, calls, **options)
        if close:
            writer.space(*space).mark(close)

    return write


_XLAM: Final = (("```json\n", "\n```"), ("<tool_call>", "</tool_call>"), ("[TOOL_CALLS]", ""))


def _xlam(writer: Writer, calls: list[Call]) -> None:
    open, close = writer.choices.one_of(_XLAM)
    writer.mark(open)
    # A fence announces an array of any kind: only arguments tell that it is one of calls.
    write_array(writer, calls, fixed=True)
    if close:
        writer.mark(close)


def _llama(writer: Writer, calls: list[Call]) -> None:
    if writer.choices.chance(3):
        writer.mark("<|python_tag|>")
    for i, call in enumerate(calls):
        if i:
            writer.space("", " ").text(";").space(" ", "\n", "")
        write_object(writer, call, arguments=("parameters", "arguments"), fixed=True)


def _mistral(writer: Writer, calls: list[Call]) -> None:
    if writer.choices.chance(2):
        for call in calls:
            writer.mark("[TOOL_CALLS]").text(call.name)
            if writer.choices.chance(2):
                writer.mark("[ARGS]")
            writer.quoted_json(writer.arguments(call))
        return
    writer.mark("[TOOL_CALLS]").space("", " ", "\n")
    write_array(writer, calls, as_string=True)


def _apertus(writer: Writer, calls: list[Call]) -> None:
    objects = [f"{{{json.dumps(call.name)}: {writer.arguments(call)}}}" for call in calls]
    writer.mark("<|tools_prefix|>").text("[").text(", ".join(objects)).text("]")
    writer.mark("<|tools_suffix|>")


def _gigachat(writer: Writer, calls: list[Call]) -> None:
    if writer.choices.chance(2):
        writer.mark("<|function_call|>")
    else:
        writer.mark("<|message_sep|>").space("\n\n", "")
        writer.mark("function call<|role_sep|>\n")
    write_object(writer, calls[0], fixed=True)
    if writer.choices.chance(2):
        writer.mark("</s>")


def _deepseek(*, fence: bool, type: str) -> WriteCalls:
    def write(writer: Writer, calls: list[Call]) -> None:
        writer.mark("<｜tool▁calls▁begin｜>")
        for call in calls:
            writer.mark("<｜tool▁call▁begin｜>")
            if type:
                writer.mark(f"{type}<｜tool▁sep｜>").text(call.name)
                writer.mark("\n```json\n")
            else:
                writer.text(call.name).mark("<｜tool▁sep｜>")
            writer.quoted_json(writer.arguments(call))
            writer.mark(("\n```" if fence else "") + "<｜tool▁call▁end｜>").space("", "\n")
        writer.mark("<｜tool▁calls▁end｜>")

    return write


def _kimi_k2(writer: Writer, calls: list[Call]) -> None:
    writer.mark("<|tool_calls_section_begin|>")
    first = writer.choices.below(20)
    for i, call in enumerate(calls, first):
        call.id = f"functions.{call.name}:{i}"
        writer.mark("<|tool_call_begin|>").text(call.id)
        writer.mark("<|tool_call_argument_begin|>")
        if call.arguments or writer.choices.chance(2):
            writer.quoted_json(writer.arguments(call))
        writer.mark("<|tool_call_end|>").space("", "\n")
    writer.mark("<|tool_calls_section_end|>")


def _plamo3(writer: Writer, calls: list[Call]) -> None:
    def tag(name: str) -> str:
        return f"<|plamo:{name}:plamo|>"

    writer.mark(tag("begin_tool_requests"))
    for call in calls:
        writer.mark(tag("begin_tool_request") + tag("begin_tool_name")).text(call.name)
        writer.mark(tag("end_tool_name") + tag("begin_tool_arguments"))
        writer.mark("<|plamo:constrain|>json<|plamo:msg|>")
        writer.quoted_json(writer.arguments(call))
        writer.mark(tag("end_tool_arguments") + tag("end_tool_request"))
    writer.mark(tag("end_tool_requests"))
    if writer.choices.chance(2):
        writer.mark("<|plamo:tag|>")


_TOOL_CALL: Final = ("<tool_call>", "</tool_call>")

STYLES: Final = (
    CallStyle(
        names=("hermes", "qwen3_json"),
        reasoning="qwen3",
        tokens=(*_TOOL_CALL, "<think>", "</think>"),
        write=_tags(*_TOOL_CALL),
    ),
    CallStyle(
        names=("longcat",),
        tokens=("<longcat_tool_call>", "</longcat_tool_call>"),
        write=_tags("<longcat_tool_call>", "</longcat_tool_call>"),
    ),
    CallStyle(
        names=("granite4",),
        reasoning="granite_thinking_parser",
        tokens=_TOOL_CALL,
        write=_tags(*_TOOL_CALL, as_string=True),
    ),
    CallStyle(
        names=("ernie45",),
        reasoning="ernie45",
        tokens=(*_TOOL_CALL, "<think>", "</think>", "<response>", "</response>"),
        write=_tags(*_TOOL_CALL),
    ),
    CallStyle(names=("granite-20b-fc",), write=_one("<function_call>"), text_after=False),
    CallStyle(
        names=("granite",),
        reasoning="granite",
        tokens=("<|tool_call|>",),
        write=_array("<|tool_call|>", "<tool_call>", space=(" ", "", "\n")),
    ),
    CallStyle(
        names=("jamba",),
        tokens=("<tool_calls>", "</tool_calls>"),
        write=_array("<tool_calls>", close="</tool_calls>", space=("", "\n", " ")),
    ),
    CallStyle(
        names=("hunyuan_a13b",),
        reasoning="hunyuan_a13b",
        write=_array("<tool_calls>", close="</tool_calls>", space=("", "\n"), as_string=True),
        text_after=False,
    ),
    CallStyle(
        names=("phi4_mini_json",),
        write=_array("functools", arguments=("arguments", "parameters")),
    ),
    CallStyle(names=("xlam",), write=_xlam, text_after=False, offered=True),
    CallStyle(
        names=("internlm",),
        tokens=("<|action_start|>", "<|plugin|>", "<|action_end|>"),
        write=_one(
            "<|action_start|><|plugin|>",
            close="<|action_end|>",
            arguments=("parameters", "arguments"),
        ),
        max_calls=1,
    ),
    CallStyle(
        names=("llama3_json", "llama4_json"),
        tokens=("<|python_tag|>",),
        write=_llama,
        text_before=False,
        text_after=False,
        offered=True,
    ),
    CallStyle(
        names=("mistral",),
        reasoning="mistral",
        tokens=("[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"),
        write=_mistral,
        text_after=False,
    ),
    CallStyle(
        names=("apertus",),
        tokens=("<|tools_prefix|>", "<|tools_suffix|>"),
        write=_apertus,
    ),
    CallStyle(
        names=("gigachat3",),
        tokens=("<|message_sep|>", "<|role_sep|>", "<|function_call|>", "</s>"),
        write=_gigachat,
        max_calls=1,
        text_after=False,
    ),
    CallStyle(
        names=("deepseek_v3",),
        reasoning="deepseek_r1",
        tokens=(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
            "<think>",
            "</think>",
        ),
        write=_deepseek(fence=True, type="function"),
    ),
    CallStyle(
        names=("deepseek_v31",),
        reasoning="deepseek_v3",
        tokens=(
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
        ),
        write=_deepseek(fence=False, type=""),
        text_after=False,
    ),
    CallStyle(
        names=("kimi_k2",),
        reasoning="kimi_k2",
        tokens=(
            "<|tool_calls_section_begin|>",
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
            "<|tool_calls_section_end|>",
        ),
        write=_kimi_k2,
        text_after=False,
    ),
    CallStyle(names=("plamo3",), reasoning="plamo3", tokens=("<|plamo:tag|>",), write=_plamo3),
)
