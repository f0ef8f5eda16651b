"""InternLM2: a JSON object between action tokens."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.json_calls import JsonCall

FORMATS: Final = (
    Format(
        names=("internlm",),
        family="InternLM2 and 2.5",
        calls=Calls(
            syntax=JsonCall(),
            item_open=("<|action_start|><|plugin|>",),
            item_close=("<|action_end|>",),
        ),
        evidence=Evidence(
            template=("<|plugin|>",),
            tokens=("<|plugin|>",),
            architectures=("InternLM2",),
            names=("internlm2",),
        ),
        example='<|action_start|><|plugin|>\n{"name": "tide", "parameters": {"port": "Brest"}}'
        "<|action_end|>",
    ),
)
