"""GLM from 4.5 on, Ling 3 and Poolside Laguna: the name, then keys and values as tags."""

from dataclasses import replace
from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.tagged import Tagged

KEYS_AND_VALUES: Final = Tagged(
    key_open=("<arg_key>",),
    key_end=("</arg_key>",),
    value_open=("<arg_value>",),
    value_close=("</arg_value>",),
)
_CALLS: Final = Calls(
    syntax=KEYS_AND_VALUES, item_open=("<tool_call>",), item_close=("</tool_call>",)
)
_THINK: Final = Reasoning(open=("<think>",), close=("</think>",), calls_end=True)
_EXAMPLE: Final = (
    "<think>look</think>\n<tool_call>tide\n<arg_key>port</arg_key>\n"
    "<arg_value>Brest</arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"
)

FORMATS: Final = (
    Format(
        names=("glm45", "glm47", "ling3"),
        reasoning_names=("glm45", "glm47", "ling3"),
        family="GLM-4.5, GLM-4.6, GLM-4.7, GLM-5, Ling 3",
        reasoning=_THINK,
        calls=_CALLS,
        turn=("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        evidence=Evidence(
            template=("<arg_key>",),
            tokens=("<arg_key>",),
            architectures=("Glm4Moe", "glm4_moe", "Glm5", "glm_moe"),
            names=("glm-4.5", "glm-4.6", "glm-4.7", "glm-5", "ling-3"),
        ),
        example=_EXAMPLE,
    ),
    Format(
        names=("poolside_v1",),
        reasoning_names=("poolside_v1",),
        family="Poolside Laguna",
        reasoning=replace(_THINK, starts_open=False, calls_end=False),
        calls=replace(_CALLS, syntax=replace(KEYS_AND_VALUES, typing="json"), space="blank"),
        turn=("<assistant>",),
        evidence=Evidence(
            template=("<arg_key>",),
            template_all=("<assistant>",),
            architectures=("Laguna",),
            names=("laguna", "poolside"),
            rank=1,
        ),
        example=_EXAMPLE,
    ),
)
