"""Apertus: a JSON array of objects whose only key is the function."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.json_calls import JsonArray, JsonCall

FORMATS: Final = (
    Format(
        names=("apertus",),
        family="Apertus",
        calls=Calls(
            syntax=JsonArray(item=JsonCall(unnamed=True)),
            open=("<|tools_prefix|>",),
            close=("<|tools_suffix|>",),
        ),
        evidence=Evidence(
            template=("<|tools_prefix|>",),
            tokens=("<|tools_prefix|>",),
            architectures=("Apertus",),
            names=("apertus",),
        ),
        example='<|tools_prefix|>[{"tide": {"port": "Brest"}}, {"moon": {}}]<|tools_suffix|>',
    ),
)
