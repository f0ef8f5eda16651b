"""Hunyuan-A13B: a JSON array between tags, in an answer between tags, after reasoning."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.json_calls import JsonArray

FORMATS: Final = (
    Format(
        names=("hunyuan_a13b",),
        reasoning_names=("hunyuan_a13b",),
        family="Hunyuan-A13B",
        reasoning=Reasoning(
            open=("<think>",), close=("</think>",), starts_open=False, only_at_start=True
        ),
        calls=Calls(
            syntax=JsonArray(accepts_object=False),
            open=("<tool_calls>",),
            close=("</tool_calls>",),
            at_start="[",
        ),
        absorbed=("<answer>", "</answer>"),
        evidence=Evidence(
            template=("<answer>",),
            template_all=("<tool_calls>",),
            architectures=("HunYuanMoEV1",),
            names=("hunyuan-a13b",),
        ),
        example='<think>\nlook\n</think>\n<answer>\n<tool_calls>[{"name": "tide", "arguments": '
        '{"port": "Brest"}}]</tool_calls>\n</answer>',
    ),
)
