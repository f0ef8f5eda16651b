"""xLAM: a JSON array, bare at the start of the answer or in one of several wrappers."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.json_calls import JsonArray

_FENCES: Final = ("```json", "```")

FORMATS: Final = (
    Format(
        names=("xlam",),
        family="xLAM 1 and 2",
        calls=Calls(
            syntax=JsonArray(accepts_object=False),
            open=(*_FENCES, "[TOOL_CALLS]", "<tool_call>"),
            close=("```", "</tool_call>"),
            bare=_FENCES,
            at_start="[",
        ),
        evidence=Evidence(names=("xlam",)),
        example='[{"name": "tide", "arguments": {"port": "Brest"}}]',
    ),
)
