"""Gemma: calls in a notation of their own, with marks around strings."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.braces import BraceCall

FORMATS: Final = (
    Format(
        names=("functiongemma",),
        family="FunctionGemma",
        calls=Calls(
            syntax=BraceCall(prefix=("call:",), quote=("<escape>",), strings="json"),
            item_open=("<start_function_call>",),
            item_close=("<end_function_call>",),
        ),
        evidence=Evidence(
            template=("<start_function_call>",),
            tokens=("<start_function_call>",),
            names=("functiongemma",),
        ),
        example="<start_function_call>call:tide{port:<escape>Brest<escape>}<end_function_call>",
    ),
    Format(
        names=("gemma4",),
        reasoning_names=("gemma4",),
        family="Gemma 4",
        reasoning=Reasoning(
            open=("<|channel>thought\n", "<|channel>thought", "<|channel>"),
            open_at_start=("thought\n",),
            close=("<channel|>",),
            starts_open=False,
            calls_end=True,
        ),
        calls=Calls(
            syntax=BraceCall(prefix=("call:", ":"), quote=('<|"|>',)),
            item_open=("<|tool_call>",),
            item_close=("<tool_call|>",),
        ),
        turn=("<|turn>",),
        evidence=Evidence(
            template=("<|tool_call>",),
            tokens=("<|tool_call>",),
            architectures=("Gemma4",),
            names=("gemma-4", "gemma4"),
        ),
        example="<|channel>thought\nlook\n<channel|>"
        '<|tool_call>call:tide{port:<|"|>Brest<|"|>,days:2}<tool_call|>',
    ),
)
