"""Cohere Command: every part of an answer between tokens, and citations within the text."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.json_calls import JsonArray, JsonCall

FORMATS: Final = (
    Format(
        names=("cohere_command3", "cohere_command4"),
        reasoning_names=("cohere_command3", "cohere_command4"),
        family="Command A, Command A+, North",
        reasoning=Reasoning(
            open=("<|START_THINKING|>",),
            close=("<|END_THINKING|>",),
            starts_open=False,
            calls_end=True,
            space=" \t\r\n",
        ),
        calls=Calls(
            syntax=JsonArray(
                item=JsonCall(
                    name=("tool_name", "name"),
                    arguments=("parameters", "arguments"),
                    id=("tool_call_id",),
                )
            ),
            open=("<|START_ACTION|>",),
            close=("<|END_ACTION|>",),
        ),
        absorbed=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        citations=("<co", "</co"),
        turn=("<|CHATBOT_TOKEN|>",),
        evidence=Evidence(
            template=("<|START_ACTION|>",),
            tokens=("<|START_ACTION|>",),
            architectures=("Cohere",),
            names=("command-a", "command-r7b", "north"),
        ),
        mixes=False,
        example='<|START_THINKING|>look<|END_THINKING|><|START_ACTION|>[\n    {"tool_call_id": '
        '"0", "tool_name": "tide", "parameters": {"port": "Brest"}}\n]<|END_ACTION|>',
    ),
)
