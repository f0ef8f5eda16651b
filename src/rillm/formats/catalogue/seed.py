"""Seed-OSS: Qwen's tags in a frame with names of its own."""

from typing import Final

from rillm.formats.catalogue.qwen import FUNCTION_TAGS
from rillm.formats.description import Calls, Evidence, Format, Reasoning

FORMATS: Final = (
    Format(
        names=("seed_oss",),
        reasoning_names=("seed_oss",),
        family="Seed-OSS",
        reasoning=Reasoning(open=("<seed:think>",), close=("</seed:think>",), calls_end=True),
        calls=Calls(
            syntax=FUNCTION_TAGS,
            item_open=("<seed:tool_call>",),
            item_close=("</seed:tool_call>",),
            loose=True,
        ),
        turn=("<seed:bos>", "<seed:eos>"),
        evidence=Evidence(
            template=("<seed:tool_call>", "<seed:think>"),
            tokens=("<seed:tool_call>", "<seed:think>"),
            architectures=("SeedOss", "seed_oss"),
            names=("seed-oss", "seedoss", "seed_oss"),
            rank=3,
        ),
        example="<seed:think>look</seed:think>\n<seed:tool_call>\n<function=tide>\n"
        "<parameter=port>Brest</parameter>\n</function>\n</seed:tool_call>",
    ),
)
