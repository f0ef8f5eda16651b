"""Hermes: a JSON object between tags, used by Nous Research, Qwen and many others."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.json_calls import JsonCall

TAGS: Final = Calls(syntax=JsonCall(), item_open=("<tool_call>",), item_close=("</tool_call>",))

FORMATS: Final = (
    Format(
        names=("hermes", "qwen3_json"),
        family="Hermes 2 and 3, Qwen2.5, QwQ, Qwen3, Kolibri",
        calls=TAGS,
        evidence=Evidence(template=("<tool_call>",), names=("hermes", "qwen2.5", "qwen3", "qwq")),
        example='<tool_call>\n{"name": "tide", "arguments": {"port": "Brest"}}\n</tool_call>',
    ),
    Format(
        names=("longcat",),
        family="LongCat-Flash",
        calls=Calls(
            syntax=JsonCall(),
            item_open=("<longcat_tool_call>",),
            item_close=("</longcat_tool_call>",),
        ),
        evidence=Evidence(
            template=("<longcat_tool_call>",), tokens=("<longcat_tool_call>",), names=("longcat",)
        ),
        example='<longcat_tool_call>\n{"name": "moon", "arguments": {}}\n</longcat_tool_call>',
    ),
    Format(
        names=("granite4",),
        family="Granite 4.0",
        calls=TAGS,
        evidence=Evidence(
            template=("</tool_call>",),
            template_all=("<|start_of_role|>",),
            architectures=("GraniteMoeHybrid",),
            names=("granite-4",),
            rank=1,
        ),
        example='<tool_call>{"name": "tide", "arguments": {"port": "Brest"}}</tool_call>',
    ),
)
