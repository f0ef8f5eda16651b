"""DeepSeek V3 to V3.1: the name before a separator token, then arguments in JSON."""

from dataclasses import replace
from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.header import HeaderJson

_THINK: Final = Reasoning(open=("<think>",), close=("</think>",))
_TURN: Final = ("<｜Assistant｜>",)

_CALLS: Final = Calls(
    syntax=HeaderJson(name_end=("<｜tool▁sep｜>", "{")),
    open=("<｜tool▁calls▁begin｜>",),
    close=("<｜tool▁calls▁end｜>",),
    item_open=("<｜tool▁call▁begin｜>",),
    item_close=("<｜tool▁call▁end｜>",),
    space="blank",
)

FORMATS: Final = (
    Format(
        names=("deepseek_v3",),
        family="DeepSeek-V3, DeepSeek-R1",
        calls=replace(
            _CALLS,
            syntax=HeaderJson(
                prefix=("function<｜tool▁sep｜>",),
                name_end=("```json", "```", "{"),
                arguments_close=("```",),
            ),
        ),
        turn=_TURN,
        evidence=Evidence(
            template=("<｜tool▁calls▁begin｜>",),
            template_all=("```json",),
            tokens=("<｜tool▁calls▁begin｜>",),
            names=("deepseek-v3-", "deepseek-r1"),
            rank=1,
        ),
        example="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>tide\n```json\n"
        '{"port": "Brest"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    Format(
        names=("deepseek_v31",),
        family="DeepSeek-V3.1",
        calls=_CALLS,
        turn=_TURN,
        evidence=Evidence(
            template=("<｜tool▁calls▁begin｜>",),
            tokens=("<｜tool▁calls▁begin｜>",),
            names=("deepseek-v3.1",),
        ),
        example="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tide<｜tool▁sep｜>"
        '{"port": "Brest"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    ),
    Format(
        reasoning_names=("deepseek_r1", "step5"),
        family="DeepSeek-R1, QwQ, Step-5",
        reasoning=_THINK,
        turn=_TURN,
        evidence=Evidence(template=("</think>",), names=("deepseek-r1", "qwq", "step-5", "step5")),
        example="look\n</think>\n\nIt is high.",
    ),
    Format(
        reasoning_names=("deepseek_v3",),
        family="DeepSeek-V3.1",
        reasoning=replace(_THINK, starts_open=False),
        turn=_TURN,
        evidence=Evidence(
            template=("</think>",),
            template_all=("<｜Assistant｜>", "thinking"),
            names=("deepseek-v3.1", "deepseek-v3.2"),
            rank=2,
        ),
        example="<think>look</think>It is high.",
    ),
    Format(
        reasoning_names=("holo2",),
        family="Holo2",
        reasoning=_THINK,
        turn=("<|im_start|>",),
        evidence=Evidence(names=("holo2",)),
        example="look\n</think>\n\nIt is high.",
    ),
)
