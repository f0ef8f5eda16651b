"""Granite up to 3.3: a JSON array after a marker; reasoning between English phrases."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.json_calls import JsonArray, JsonCall

FORMATS: Final = (
    Format(
        names=("granite",),
        family="Granite 3.0 to 3.3",
        calls=Calls(
            syntax=JsonArray(accepts_object=False),
            open=("<|tool_call|>", "<tool_call>"),
            space="blank",
        ),
        evidence=Evidence(
            template=("<|tool_call|>", "<tool_call>"),
            template_all=("<|start_of_role|>",),
            tokens=("<|tool_call|>",),
            names=("granite-3",),
        ),
        example='<|tool_call|>[{"name": "tide", "arguments": {"port": "Brest"}}]',
    ),
    Format(
        names=("granite-20b-fc",),
        family="granite-20b-functioncalling",
        calls=Calls(syntax=JsonCall(), item_open=("<function_call>",)),
        evidence=Evidence(template=("<function_call>",), names=("granite-20b-functioncalling",)),
        example='<function_call> {"name": "tide", "arguments": {"port": "Brest"}}',
    ),
    Format(
        reasoning_names=("granite",),
        family="Granite 3.2 and 3.3",
        reasoning=Reasoning(
            open=("Here is my thought process:", "Here's my thought process:"),
            close=("Here is my response:", "Here's my response:"),
            starts_open=False,
            space=" \t\r\n",
            only_at_start=True,
        ),
        evidence=Evidence(
            template=("Here is my thought process:",), names=("granite-3.2", "granite-3.3")
        ),
        example="Here is my thought process: look. Here is my response: It is high.",
    ),
)
