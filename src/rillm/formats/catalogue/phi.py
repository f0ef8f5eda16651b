"""Phi-4-mini: a JSON array that follows a word."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.json_calls import JsonArray

FORMATS: Final = (
    Format(
        names=("phi4_mini_json",),
        family="Phi-4-mini",
        calls=Calls(syntax=JsonArray(accepts_object=False), open=("functools",)),
        evidence=Evidence(template=("functools",), names=("phi-4-mini",)),
        example='functools[{"name": "tide", "arguments": {"port": "Brest"}}]',
    ),
)
