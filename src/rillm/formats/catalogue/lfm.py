"""LFM2: a list of Python calls between two tokens."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.python_calls import PythonCalls

FORMATS: Final = (
    Format(
        names=("lfm2",),
        family="LFM2, LFM2.5",
        calls=Calls(
            syntax=PythonCalls(repairs_quotes=True),
            open=("<|tool_call_start|>",),
            close=("<|tool_call_end|>",),
            echo="[<",
        ),
        evidence=Evidence(
            template=("<|tool_call_start|>",),
            tokens=("<|tool_call_start|>",),
            architectures=("Lfm2",),
            names=("lfm2",),
        ),
        example='<|tool_call_start|>[tide(port="Brest")]<|tool_call_end|>I will look.',
    ),
)
