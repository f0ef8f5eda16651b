"""Tencent Hy 3 and 4: GLM's keys and values, in markers that checkpoints spell with a suffix."""

from dataclasses import replace
from typing import Final

from rillm.formats.catalogue.glm import KEYS_AND_VALUES
from rillm.formats.description import Calls, Evidence, Format, Reasoning

_SUFFIX: Final = r":[^\s<>]+"
_THINK: Final = Reasoning(open=("<think>",), close=("</think>",))
_CALLS: Final = Calls(
    syntax=KEYS_AND_VALUES,
    open=("<tool_calls>",),
    close=("</tool_calls>",),
    item_open=("<tool_call>",),
    item_close=("</tool_call>",),
    loose=True,
    space="blank",
)
_ARGUMENTS: Final = (
    "\n<arg_key>port</arg_key>\n<arg_value>Brest</arg_value>\n</tool_call></tool_calls>"
)

FORMATS: Final = (
    Format(
        names=("hy_v3",),
        reasoning_names=("hy_v3",),
        family="Tencent Hy 3",
        reasoning=replace(_THINK, starts_open=False),
        calls=replace(_CALLS, syntax=replace(KEYS_AND_VALUES, name_end=("<tool_sep>",))),
        suffix=_SUFFIX,
        evidence=Evidence(
            template=("<tool_sep",),
            architectures=("HYV3", "hy_v3", "HunYuanV3"),
            names=("hy3", "hy-3"),
            rank=1,
        ),
        example="<think>look</think><tool_calls><tool_call>tide<tool_sep>" + _ARGUMENTS,
    ),
    Format(
        names=("hy_v4",),
        reasoning_names=("hy_v4",),
        family="Tencent Hy 4",
        reasoning=_THINK,
        calls=_CALLS,
        suffix=_SUFFIX,
        evidence=Evidence(
            template=("<arg_key",),
            template_all=("<tool_calls",),
            architectures=("HYV4", "hy_v4", "HunYuanV4"),
            names=("hy4", "hy-4"),
            rank=1,
        ),
        example="look</think><tool_calls><tool_call>tide" + _ARGUMENTS,
    ),
)
