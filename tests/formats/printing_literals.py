"""Styles whose arguments are literals: Python's, and Gemma's."""

from __future__ import annotations

import json
from typing import Any, Final

from formats.printing import Call, CallStyle, WriteCalls, Writer
from formats.printing_tags import raw


def _python(value: Any, writer: Writer, *, json_words: bool) -> str:
    """A Python literal."""
    choices = writer.choices
    if isinstance(value, str):
        text = repr(value)
        return json.dumps(value, ensure_ascii=False) if choices.chance(3) else text
    if isinstance(value, list):
        inner = [_python(item, writer, json_words=json_words) for item in value]
        return "[" + choices.one_of((", ", ",")).join(inner) + "]"
    if isinstance(value, dict):
        pairs = [
            f"{_python(key, writer, json_words=json_words)}: "
            f"{_python(item, writer, json_words=json_words)}"
            for key, item in value.items()
        ]
        return "{" + ", ".join(pairs) + "}"
    if json_words and (value is None or isinstance(value, bool)) and choices.chance(2):
        return json.dumps(value)
    return repr(value)


def python_call(writer: Writer, call: Call, *, json_words: bool = True) -> str:
    """`f(k=v, ...)`."""
    arguments = [
        f"{key}={_python(value, writer, json_words=json_words)}"
        for key, value in call.arguments.items()
    ]
    return f"{call.name}({', '.join(arguments)})"


def _pythonic(open: str, close: str, *, is_optional: bool = False) -> WriteCalls:
    def write(writer: Writer, calls: list[Call]) -> None:
        has_marks = bool(open) and not (is_optional and writer.choices.chance(2))
        if has_marks:
            writer.mark(open).space("", "\n")
        separator = writer.choices.one_of((", ", ",", ",\n"))
        writer.text("[" + separator.join(python_call(writer, call) for call in calls) + "]")
        if has_marks:
            writer.space("", "\n").mark(close)

    return write


def _olmo3(writer: Writer, calls: list[Call]) -> None:
    writer.mark("<function_calls>").space("\n", "")
    writer.text("\n".join(python_call(writer, call) for call in calls))
    writer.space("\n", "").mark("</function_calls>")


def _functiongemma(writer: Writer, calls: list[Call]) -> None:
    for call in calls:
        writer.mark("<start_function_call>").text(f"call:{call.name}{{")
        for i, (key, value) in enumerate(call.arguments.items()):
            writer.text(f"{',' if i else ''}{key}:").mark("<escape>")
            writer.text(raw(value)).mark("<escape>")
        writer.text("}").mark("<end_function_call>")


def _gemma_value(writer: Writer, value: Any) -> None:
    if isinstance(value, str):
        writer.mark('<|"|>').text(value).mark('<|"|>')
    elif isinstance(value, dict):
        writer.text("{")
        _gemma_members(writer, value)
        writer.text("}")
    elif isinstance(value, list):
        writer.text("[")
        for i, item in enumerate(value):
            writer.text("," if i else "")
            _gemma_value(writer, item)
        writer.text("]")
    else:
        writer.text(json.dumps(value))


def _gemma_members(writer: Writer, members: dict[str, Any]) -> None:
    for i, (key, value) in enumerate(members.items()):
        writer.text("," if i else "")
        if key.isidentifier() and key.isascii():
            writer.text(key)
        else:
            writer.mark('<|"|>').text(key).mark('<|"|>')
        writer.text(":")
        _gemma_value(writer, value)


def _gemma4(writer: Writer, calls: list[Call]) -> None:
    for call in calls:
        writer.mark("<|tool_call>").text(f"call:{call.name}{{")
        _gemma_members(writer, call.arguments)
        writer.text("}").mark("<tool_call|>")


STYLES: Final = (
    CallStyle(
        names=("pythonic",),
        write=_pythonic("", ""),
        values="python",
        text_before=False,
        text_after=False,
        offered=True,
    ),
    CallStyle(
        names=("llama4_pythonic",),
        tokens=("<|python_start|>", "<|python_end|>"),
        write=_pythonic("<|python_start|>", "<|python_end|>", is_optional=True),
        values="python",
        text_before=False,
        text_after=False,
        offered=True,
    ),
    CallStyle(names=("olmo3",), reasoning="olmo3", write=_olmo3, values="python", text_after=False),
    CallStyle(
        names=("lfm2",),
        tokens=("<|tool_call_start|>", "<|tool_call_end|>"),
        write=_pythonic("<|tool_call_start|>", "<|tool_call_end|>"),
        values="python",
    ),
    CallStyle(
        names=("functiongemma",),
        tokens=("<start_function_call>", "<end_function_call>", "<escape>"),
        write=_functiongemma,
        values="typed",
        stops=("<escape>",),
        text_after=False,
    ),
    CallStyle(
        names=("gemma4",),
        reasoning="gemma4",
        tokens=("<|tool_call>", "<tool_call|>", '<|"|>', "<|channel>", "<channel|>"),
        write=_gemma4,
        values="typed",
        stops=('<|"|>',),
    ),
)
