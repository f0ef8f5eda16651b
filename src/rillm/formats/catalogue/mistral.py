"""Mistral, two generations: first a JSON array, later a name and its arguments."""

import string
from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.header import HeaderJson
from rillm.formats.syntax.json_calls import JsonArray

FORMATS: Final = (
    Format(
        names=("mistral",),
        reasoning_names=("mistral",),
        family="Mistral, Mixtral, Magistral, Ministral, Devstral",
        reasoning=Reasoning(
            open=("[THINK]", "<think>"),
            close=("[/THINK]", "</think>"),
            starts_open=False,
            calls_end=True,
        ),
        calls=Calls(
            syntax=HeaderJson(
                prefix=("[TOOL_CALLS]",),
                name_end=("[ARGS]", "{"),
                id_mark=("[CALL_ID]",),
                json=JsonArray(),
            ),
            item_open=("[TOOL_CALLS]",),
            space="blank",
            id_alphabet=string.ascii_letters + string.digits,
        ),
        evidence=Evidence(
            template=("[TOOL_CALLS]",),
            tokens=("[TOOL_CALLS]",),
            architectures=("Mistral", "Mixtral", "Pixtral"),
            names=("mistral", "mixtral", "ministral", "magistral", "devstral"),
        ),
        example='[TOOL_CALLS]tide[ARGS]{"port": "Brest"}[TOOL_CALLS]moon[ARGS]{}',
    ),
)
