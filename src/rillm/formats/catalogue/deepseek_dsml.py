"""DeepSeek from V3.2 on: DSML, invoke and parameter tags that say whether a value is a string."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.tagged import Tagged

_D: Final = "｜DSML｜"
_THINK: Final = Reasoning(open=("<think>",), close=("</think>",), calls_end=True)
_TURN: Final = ("<｜User｜>", "<｜Assistant｜>")


def _calls(*sections: str, space: str = "") -> Calls:
    """Calls in a section of one of these names, with `space` after the bars of every tag."""
    return Calls(
        syntax=Tagged(
            open=(f"<{_D}{space}invoke",),
            name_end=(">",),
            close=(f"</{_D}{space}invoke>",),
            key_open=(f"<{_D}{space}parameter",),
            key_end=(">",),
            value_close=(f"</{_D}{space}parameter>",),
            name_attribute="name",
            key_attribute="name",
            type_attribute="string",
            wrappers=("arguments", "input"),
        ),
        open=tuple(f"<{_D}{space}{name}>" for name in sections),
        close=tuple(f"</{_D}{space}{name}>" for name in sections),
        loose=True,
        after="drop",
        space="blank",
    )


def _example(section: str, space: str = "") -> str:
    d = _D + space
    return (
        f'<{d}{section}>\n<{d}invoke name="tide">\n<{d}parameter name="port" string="true">Brest'
        f'</{d}parameter>\n<{d}parameter name="days" string="false">2</{d}parameter>\n'
        f"</{d}invoke>\n</{d}{section}>"
    )


FORMATS: Final = (
    Format(
        names=("deepseek_v32",),
        family="DeepSeek-V3.2",
        calls=_calls("function_calls"),
        evidence=Evidence(
            template=(f"{_D}function_calls",),
            architectures=("DeepseekV32", "deepseek_v32"),
            names=("deepseek-v3.2", "deepseek_v3.2"),
        ),
        example=_example("function_calls"),
    ),
    Format(
        names=("deepseek_v4",),
        reasoning_names=("deepseek_v4",),
        family="DeepSeek-V4",
        reasoning=_THINK,
        calls=_calls("tool_calls", "toolcalls", "tool"),
        turn=_TURN,
        evidence=Evidence(
            template=(f"{_D}tool_calls",),
            architectures=("DeepseekV4", "deepseek_v4"),
            names=("deepseek-v4", "deepseek_v4"),
        ),
        example="look</think>" + _example("tool_calls"),
    ),
    Format(
        names=("deepseek_v41",),
        reasoning_names=("deepseek_v41",),
        family="DeepSeek-V4.1",
        reasoning=_THINK,
        calls=_calls("calls", space=" "),
        turn=_TURN,
        evidence=Evidence(
            template=(f"{_D} calls",), names=("deepseek-v4.1", "deepseek_v4.1"), rank=1
        ),
        example="look</think>" + _example("calls", " "),
    ),
)
