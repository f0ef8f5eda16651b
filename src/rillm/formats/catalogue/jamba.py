"""Jamba: a JSON array between two tokens."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.json_calls import JsonArray

FORMATS: Final = (
    Format(
        names=("jamba",),
        family="Jamba 1.5",
        calls=Calls(syntax=JsonArray(), open=("<tool_calls>",), close=("</tool_calls>",)),
        evidence=Evidence(template=("<tool_calls>",), architectures=("Jamba",), names=("jamba",)),
        example=' <tool_calls>[\n    {"name": "tide", "arguments": {"port": "Brest"}}\n]'
        "</tool_calls>",
    ),
)
