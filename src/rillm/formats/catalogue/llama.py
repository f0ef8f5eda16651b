"""Llama 3 and 4: the answer is a call's JSON object, with no other markup."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.json_calls import JsonCall

FORMATS: Final = (
    Format(
        names=("llama3_json", "llama4_json"),
        family="Llama 3.1, 3.2, 3.3, 4",
        calls=Calls(syntax=JsonCall(separator=";"), open=("<|python_tag|>",), at_start="{"),
        evidence=Evidence(
            template=('"parameters": dictionary of argument name', "<|python_tag|>"),
            tokens=("<|python_tag|>",),
            names=("llama-3", "llama-4"),
        ),
        example='{"name": "tide", "parameters": {"port": "Brest"}}; '
        '{"name": "moon", "parameters": {}}',
    ),
)
