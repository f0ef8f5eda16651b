"""Kimi K2: the call's id, which holds the name, then arguments in JSON."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.header import HeaderJson

FORMATS: Final = (
    Format(
        names=("kimi_k2",),
        reasoning_names=("kimi_k2",),
        family="Kimi K2",
        reasoning=Reasoning(open=("<think>",), close=("</think>",), calls_end=True),
        calls=Calls(
            syntax=HeaderJson(
                name_end=("<|tool_call_argument_begin|>",),
                header=r"(?P<id>(?:functions\.)?(?P<name>[^:]+):\d+)",
            ),
            open=("<|tool_calls_section_begin|>",),
            close=("<|tool_calls_section_end|>",),
            item_open=("<|tool_call_begin|>",),
            item_close=("<|tool_call_end|>",),
            noise="drop",
            after="drop",
            space="blank",
        ),
        turn=("<|im_assistant|>",),
        evidence=Evidence(
            template=("<|tool_calls_section_begin|>",),
            tokens=("<|tool_calls_section_begin|>",),
            names=("kimi-k2",),
        ),
        example="<|tool_calls_section_begin|><|tool_call_begin|>functions.tide:0"
        '<|tool_call_argument_begin|>{"port": "Brest"}<|tool_call_end|>'
        "<|tool_calls_section_end|>",
    ),
)
