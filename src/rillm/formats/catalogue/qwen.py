"""Qwen and the models that share its tags: functions and parameters as tags, `<think>`."""

from dataclasses import replace
from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.tagged import Tagged

THINK: Final = Reasoning(open=("<think>",), close=("</think>",), calls_end=True)

FUNCTION_TAGS: Final = Tagged(
    open=("<function=",),
    name_end=(">",),
    close=("</function>",),
    key_open=("<parameter=",),
    key_end=(">",),
    value_close=("</parameter>",),
    trim="newline",
)

_CALLS: Final = Calls(
    syntax=FUNCTION_TAGS, item_open=("<tool_call>",), item_close=("</tool_call>",), loose=True
)
_TURN: Final = ("<|im_start|>", "<|im_end|>")
_EXAMPLE: Final = (
    "<tool_call>\n<function=tide>\n<parameter=port>\nBrest\n</parameter>\n</function>\n</tool_call>"
)

FORMATS: Final = (
    Format(
        names=("qwen3_coder", "qwen3_xml", "step3p5"),
        family="Qwen3-Coder, Qwen3.5, MiniCPM-V 4, Nemotron 3, Granite 4.2, Step-3.5",
        calls=_CALLS,
        evidence=Evidence(
            template=("<function=",),
            names=("qwen3-coder", "qwen3.5", "qwen3.6", "nemotron", "step3p5", "step-3.5"),
            rank=2,
        ),
        example=_EXAMPLE,
    ),
    Format(
        names=("step5",),
        family="Step-5",
        calls=replace(_CALLS, space="keep"),
        evidence=Evidence(
            template=("<function=",),
            architectures=("step5",),
            names=("step-5", "step5"),
        ),
        example=_EXAMPLE,
    ),
    Format(
        names=("mimo",),
        reasoning_names=("mimo",),
        family="MiMo-V2",
        reasoning=THINK,
        calls=replace(_CALLS, syntax=replace(FUNCTION_TAGS, trim="none")),
        turn=_TURN,
        evidence=Evidence(
            template=("<function=",),
            template_all=("</think>",),
            architectures=("mimo",),
            names=("mimo-v2", "mimo"),
        ),
        example="<think>\nlook\n</think>\n<tool_call><function=tide><parameter=port>Brest</parameter>"
        "</function></tool_call>",
    ),
    Format(
        reasoning_names=("qwen3", "step3p5", "nemotron_v3", "granite_thinking_parser"),
        family="Qwen3, Step-3.5, Nemotron 3, Granite 4.2",
        reasoning=THINK,
        turn=_TURN,
        evidence=Evidence(
            template=("</think>",),
            architectures=("Qwen3",),
            names=("qwen3", "step3p5", "step-3.5", "nemotron", "granite-4.2"),
            rank=1,
        ),
        example="<think>\nlook\n</think>\n\nIt is high.",
    ),
    Format(
        reasoning_names=("olmo3",),
        family="OLMo 3",
        reasoning=replace(THINK, calls_end=False),
        turn=_TURN,
        evidence=Evidence(
            template=("<think>",), architectures=("Olmo3", "olmo3"), names=("olmo-3", "olmo3")
        ),
        example="<think>look</think>It is high.",
    ),
    Format(
        reasoning_names=("minicpmv",),
        family="MiniCPM-V 4",
        reasoning=THINK,
        absorbed=(
            "<|im_end|>",
            *(f"<reserved_{number}>" for number in range(12, 16)),
            *(f"<|reserved_{number}|>" for number in range(12, 16)),
        ),
        turn=_TURN,
        evidence=Evidence(
            template=("</think>",), architectures=("MiniCPMV",), names=("minicpm-v", "minicpmv")
        ),
        example="<think>\nlook\n</think>\n\nIt is high.",
    ),
)
