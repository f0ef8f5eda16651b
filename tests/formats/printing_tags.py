"""Styles whose arguments are tagged, and styles that write them as literals of their own."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any, Final

from formats.printing import Call, CallStyle, WriteCalls, Writer
from formats.printing_json import write_object


def raw(value: Any) -> str:
    """A value as text: strings as they are, others as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def write_tags(
    writer: Writer,
    call: Call,
    *,
    name: tuple[str, str],
    key: tuple[str, str],
    close: tuple[str, str],
    pad: Sequence[str] = ("",),
    space: Sequence[str] = ("\n", ""),
    quotes: Sequence[str] = ("",),
) -> None:
    """Write one call of tags.

    Args:
        writer: where to.
        call: the call.
        name: before and after the name.
        key: before and after a key.
        close: after a value, and after the call.
        pad: whitespace at both ends of a value that is none of it.
        space: whitespace between tags.
        quotes: quotation marks around names and keys.
    """
    quote = writer.choices.one_of(quotes)
    writer.mark(name[0] + quote).text(call.name).mark(quote + name[1]).space(*space)
    for each, value in call.arguments.items():
        padding = writer.choices.one_of(pad)
        writer.mark(key[0] + quote).text(each).mark(quote + key[1])
        writer.text(f"{padding}{raw(value)}{padding}").mark(close[0]).space(*space)
    writer.mark(close[1])


def _functions(open: str, close: str, pad: Sequence[str]) -> WriteCalls:
    """`<function=f><parameter=k>v</parameter></function>`."""

    def write(writer: Writer, calls: list[Call]) -> None:
        for i, call in enumerate(calls):
            if i:
                writer.space("\n", "")
            writer.mark(open).space("\n", "")
            write_tags(
                writer,
                call,
                name=("<function=", ">"),
                key=("<parameter=", ">"),
                close=("</parameter>", "</function>"),
                pad=pad,
            )
            writer.space("\n", "").mark(close)

    return write


def _invokes(
    open: str, close: str, *, prefix: str = "", strip: bool = False, quotes: Sequence[str] = ('"',)
) -> WriteCalls:
    """`<invoke name="f"><parameter name="k">v</parameter></invoke>`."""

    def write(writer: Writer, calls: list[Call]) -> None:
        writer.mark(open).space("\n", "")
        for call in calls:
            write_tags(
                writer,
                call,
                name=(f"<{prefix}invoke name=", ">"),
                key=(f"<{prefix}parameter name=", ">"),
                close=(f"</{prefix}parameter>", f"</{prefix}invoke>"),
                pad=("", "\n", " ") if strip else ("",),
                quotes=quotes,
            )
            writer.space("\n", "")
        writer.mark(close)

    return write


def _dots(writer: Writer, calls: list[Call]) -> None:
    open, close = "<dots_function_call>", "</dots_function_call>"
    if len(calls) > 1 or writer.choices.chance(2):
        _invokes(open, close, strip=True, quotes=('"', ""))(writer, calls)
        return
    writer.mark(open).space("\n", "")
    write_object(writer, calls[0], arguments=("arguments", "parameters"), fixed=True)
    writer.space("\n", "").mark(close)


def _k2_horizon(writer: Writer, calls: list[Call]) -> None:
    tag = "ifm|"
    section = (f"<{tag}tool_calls>", f"</{tag}tool_calls>")
    item = (f"<{tag}tool_call>", f"</{tag}tool_call>")
    kind = writer.choices.below(3)
    if kind:
        write = _pairs(
            section=section, item=item, after_name=("", "\n"), tag=tag, typed=kind == 2, strip=True
        )
        write(writer, calls)
        return
    writer.mark(section[0]).space("", "\n")
    for call in calls:
        writer.mark(item[0])
        write_object(writer, call, fixed=True)
        writer.mark(item[1]).space("", "\n")
    writer.mark(section[1])


def _dsml(word: str, indent: str) -> WriteCalls:
    bars = "｜DSML｜"

    def write(writer: Writer, calls: list[Call]) -> None:
        writer.mark(f"<{bars}{word}>").space("\n", "")
        for call in calls:
            writer.mark(f'<{bars}{indent}invoke name="').text(call.name).mark('">')
            for key, value in call.arguments.items():
                kind = "true" if isinstance(value, str) else "false"
                writer.space("\n", "").mark(f'<{bars}{indent}parameter name="').text(key)
                writer.mark(f'" string="{kind}">').text(raw(value))
                writer.mark(f"</{bars}{indent}parameter>")
            writer.space("\n", "").mark(f"</{bars}{indent}invoke>").space("\n", "")
        writer.mark(f"</{bars}{word}>")

    return write


def _dsml_stops(word: str, indent: str) -> tuple[str, ...]:
    bars = "｜DSML｜"
    inner = (f"</{bars}{indent}parameter>", f"<{bars}{indent}parameter", f"</{bars}{indent}invoke>")
    return (*inner, f"<{bars}{indent}invoke", f"</{bars}{word}>", f"<{bars}{word}>")


def _step3(writer: Writer, calls: list[Call]) -> None:
    writer.mark("<｜tool_calls_begin｜>")
    for call in calls:
        writer.mark("<｜tool_call_begin｜>function<｜tool_sep｜>")
        write_tags(
            writer,
            call,
            name=('<steptml:invoke name="', '">'),
            key=('<steptml:parameter name="', '">'),
            close=("</steptml:parameter>", "</steptml:invoke>"),
            space=("", "\n"),
        )
        writer.mark("<｜tool_call_end｜>").space("", "\n")
    writer.mark("<｜tool_calls_end｜>")


def _pairs(
    *,
    section: tuple[str, str] = ("", ""),
    item: tuple[str, str] = ("<tool_call>", "</tool_call>"),
    after_name: Sequence[str] = ("\n", ""),
    tag: str = "",
    typed: bool = False,
    strip: bool = False,
) -> WriteCalls:
    """`<tool_call>f<arg_key>k</arg_key><arg_value>v</arg_value></tool_call>`."""

    def write_value(writer: Writer, key: str, value: Any, schema: dict[str, Any]) -> None:
        writer.mark(f"<{tag}arg_key>").text(key).mark(f"</{tag}arg_key>").space("\n", "")
        if typed:
            writer.mark(f"<{tag}arg_type>").text(schema["type"]).mark(f"</{tag}arg_type>")
        pad = "\n" if strip and not isinstance(value, str) and writer.choices.chance(2) else ""
        writer.mark(f"<{tag}arg_value>").text(f"{pad}{raw(value)}{pad}")
        writer.mark(f"</{tag}arg_value>").space("\n", "")

    def write(writer: Writer, calls: list[Call]) -> None:
        if section[0]:
            writer.mark(section[0]).space("", "\n")
        for call in calls:
            writer.mark(item[0]).text(call.name).mark(writer.choices.one_of(after_name))
            for key, value in call.arguments.items():
                write_value(writer, key, value, (call.schema or {})[key])
            writer.mark(item[1]).space("\n", "")
        if section[1]:
            writer.mark(section[1])

    return write


def _minicpm5(writer: Writer, calls: list[Call]) -> None:
    for call in calls:
        writer.mark('<function name="').text(call.name).mark('">')
        for key, value in call.arguments.items():
            text = raw(value)
            writer.mark('<param name="').text(key).mark('">')
            if "]]>" not in text and writer.choices.chance(2):
                writer.text(f"<![CDATA[{text}]]>")
            else:
                writer.text(html.escape(text, quote=False))
            writer.mark("</param>").space("", "\n")
        writer.mark("</function>").space("", "\n")


_N: Final = "]<]minimax[>["


def _elements(writer: Writer, key: str, value: Any) -> None:
    writer.mark(f"{_N}<{key}>")
    writer.text(raw(value)).mark(f"{_N}</{key}>")


def _minimax_m3(writer: Writer, calls: list[Call]) -> None:
    writer.mark(f"{_N}<tool_call>").space("\n", "")
    for call in calls:
        writer.mark(f'{_N}<invoke name="').text(call.name).mark('">')
        for key, value in call.arguments.items():
            _elements(writer, key, value)
        writer.mark(f"{_N}</invoke>").space("\n", "")
    writer.mark(f"{_N}</tool_call>")


_ARGUMENT: Final = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
_PAIR_STOPS: Final = ("</arg_value>", "<arg_key>", "</tool_call>")
_FUNCTION_STOPS: Final = ("</parameter>", "<parameter=", "</function>", "<function=")
_THINK: Final = ("<think>", "</think>")
_TOOL_CALL: Final = ("<tool_call>", "</tool_call>")

STYLES: Final = (
    CallStyle(
        names=("qwen3_coder", "qwen3_xml"),
        reasoning="qwen3",
        tokens=(*_TOOL_CALL, *_THINK),
        write=_functions(*_TOOL_CALL, ("\n",)),
        values="typed",
        stops=_FUNCTION_STOPS,
    ),
    CallStyle(
        names=("step3p5",),
        reasoning="step3p5",
        tokens=(*_TOOL_CALL, *_THINK),
        write=_functions(*_TOOL_CALL, ("\n",)),
        values="typed",
        stops=_FUNCTION_STOPS,
    ),
    CallStyle(
        names=("step5",),
        reasoning="step5",
        tokens=(*_TOOL_CALL, *_THINK),
        write=_functions(*_TOOL_CALL, ("\n",)),
        values="typed",
        stops=_FUNCTION_STOPS,
    ),
    CallStyle(
        names=("mimo",),
        reasoning="mimo",
        tokens=(*_TOOL_CALL, *_THINK),
        write=_functions(*_TOOL_CALL, ("",)),
        values="typed",
        stops=_FUNCTION_STOPS,
    ),
    CallStyle(
        names=("seed_oss",),
        reasoning="seed_oss",
        tokens=("<seed:tool_call>", "</seed:tool_call>", "<seed:think>", "</seed:think>"),
        write=_functions("<seed:tool_call>", "</seed:tool_call>", ("\n",)),
        values="typed",
        stops=_FUNCTION_STOPS,
    ),
    CallStyle(
        names=("minimax_m2",),
        reasoning="minimax_m2",
        tokens=("<minimax:tool_call>", "</minimax:tool_call>"),
        write=_invokes("<minimax:tool_call>", "</minimax:tool_call>", quotes=('"', "'", "")),
        values="typed",
        stops=("</parameter>", "<parameter name=", "</invoke>", "<invoke name="),
    ),
    CallStyle(
        names=("dots",),
        write=_dots,
        values="typed",
        stops=("</parameter>", "<parameter", "</invoke>", "<invoke"),
        edges=False,
    ),
    *(
        CallStyle(
            names=(name,),
            reasoning=reasoning,
            write=_dsml(word, indent),
            values="typed",
            stops=_dsml_stops(word, indent),
            text_after=False,
        )
        for name, reasoning, word, indent in (
            ("deepseek_v32", "deepseek_v3", "function_calls", ""),
            ("deepseek_v4", "deepseek_v4", "tool_calls", ""),
            ("deepseek_v41", "deepseek_v41", " calls", " "),
        )
    ),
    CallStyle(
        names=("step3",),
        reasoning="step3",
        tokens=(
            "<｜tool_calls_begin｜>",
            "<｜tool_call_begin｜>",
            "<｜tool_sep｜>",
            "<｜tool_call_end｜>",
            "<｜tool_calls_end｜>",
        ),
        write=_step3,
        values="typed",
        stops=(
            "</steptml:parameter>",
            "<steptml:parameter",
            "</steptml:invoke>",
            "<steptml:invoke",
        ),
        edges=False,
    ),
    CallStyle(
        names=("glm45", "glm47"),
        reasoning="glm45",
        tokens=(*_TOOL_CALL, *_ARGUMENT, *_THINK),
        write=_pairs(),
        values="typed",
        stops=_PAIR_STOPS,
    ),
    CallStyle(
        names=("ling3",),
        reasoning="ling3",
        tokens=(*_TOOL_CALL, *_ARGUMENT, *_THINK),
        write=_pairs(),
        values="typed",
        stops=_PAIR_STOPS,
    ),
    CallStyle(
        names=("poolside_v1",),
        reasoning="poolside_v1",
        write=_pairs(strip=True),
        values="typed",
        stops=_PAIR_STOPS,
    ),
    *(
        CallStyle(
            names=(name,),
            reasoning=name,
            tokens=("<tool_calls>", "</tool_calls>", *_TOOL_CALL, *_ARGUMENT, *_THINK),
            write=_pairs(section=("<tool_calls>", "</tool_calls>"), after_name=after_name),
            values="typed",
            stops=_PAIR_STOPS,
        )
        for name, after_name in (("hy_v3", ("<tool_sep>", "<tool_sep>\n")), ("hy_v4", ("", "\n")))
    ),
    CallStyle(
        names=("k2_horizon",),
        reasoning="k2_horizon",
        write=_k2_horizon,
        values="typed",
        stops=(
            "</ifm|arg_value>",
            "<ifm|arg_key>",
            "</ifm|tool_call>",
            "<ifm|tool_call>",
            "</ifm|tool_calls>",
        ),
    ),
    CallStyle(
        names=("minicpm5",),
        tokens=("<function", "</function>", "<param", "</param>"),
        write=_minicpm5,
        values="typed",
        stops=("</param>", "<param ", "</function>", "<function "),
        edges=False,
    ),
    CallStyle(
        names=("minimax_m3",),
        reasoning="minimax_m3",
        write=_minimax_m3,
        values="flat",
        stops=(_N,),
        text_after=False,
    ),
)
