"""ERNIE 4.5 Thinking: Hermes calls, and an answer between tags of its own."""

from typing import Final

from rillm.formats.catalogue.hermes import TAGS
from rillm.formats.description import Evidence, Format, Reasoning

FORMATS: Final = (
    Format(
        names=("ernie45",),
        reasoning_names=("ernie45",),
        family="ERNIE 4.5 Thinking",
        reasoning=Reasoning(open=("<think>",), close=("</think>",)),
        calls=TAGS,
        absorbed=("<response>", "</response>"),
        evidence=Evidence(
            template=("<response>",),
            architectures=("Ernie4_5",),
            names=("ernie-4.5",),
            rank=1,
        ),
        example='look\n</think>\n\n\n<tool_call>\n{"name": "tide", "arguments": '
        '{"port": "Brest"}}\n</tool_call>\n',
    ),
)
