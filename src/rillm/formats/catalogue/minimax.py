"""MiniMax-M2: invoke and parameter tags in a frame of its own; also how M3 fences reasoning."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.tagged import Tagged

INVOKE: Final = Tagged(
    open=("<invoke name=",),
    name_end=(">",),
    close=("</invoke>",),
    key_open=("<parameter name=",),
    key_end=(">",),
    value_close=("</parameter>",),
)

FORMATS: Final = (
    Format(
        names=("minimax_m2",),
        reasoning_names=("minimax_m2",),
        family="MiniMax-M2, MiniMax-M2.5",
        reasoning=Reasoning(open=("<think>",), close=("</think>",), calls_end=True),
        calls=Calls(
            syntax=INVOKE,
            open=("<minimax:tool_call>",),
            close=("</minimax:tool_call>",),
            loose=True,
        ),
        evidence=Evidence(
            template=("<minimax:tool_call>",),
            tokens=("<minimax:tool_call>",),
            architectures=("MiniMaxM2", "minimax_m2"),
            names=("minimax-m2", "mm-m2", "minimax"),
        ),
        example='<think>\nlook\n</think>\n<minimax:tool_call>\n<invoke name="tide">\n'
        '<parameter name="port">Brest</parameter>\n</invoke>\n</minimax:tool_call>',
    ),
    Format(
        reasoning_names=("minimax_m2_append_think",),
        family="MiniMax-M2, its reasoning left in the answer",
        reasoning=Reasoning(open=(), close=(), starts_open=False, shown_open="<think>"),
        example="look\n</think>\n\nIt is high.",
    ),
    Format(
        reasoning_names=("minimax_m3",),
        family="MiniMax-M3",
        reasoning=Reasoning(open=("<mm:think>",), close=("</mm:think>",), starts_open=False),
        evidence=Evidence(
            template=("<mm:think>",),
            tokens=("<mm:think>",),
            architectures=("MiniMaxM3", "minimax_m3"),
            names=("minimax-m3", "mm-m3"),
        ),
        example="<mm:think>look</mm:think>It is high.",
    ),
)
