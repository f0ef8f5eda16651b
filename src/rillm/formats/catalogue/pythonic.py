"""Calls as a list of Python calls: Llama 3.2, Llama 4 and ToolACE."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.python_calls import PythonCalls

FORMATS: Final = (
    Format(
        names=("pythonic",),
        family="Llama 3.2 (1B, 3B), ToolACE, Ultravox-ToolACE",
        calls=Calls(syntax=PythonCalls(), at_start="["),
        evidence=Evidence(
            template=("[func_name1(params_name1=",), names=("toolace", "pythonic"), rank=1
        ),
        example="[tide(port='Brest', days=2), moon()]",
    ),
    Format(
        names=("llama4_pythonic",),
        family="Llama 4",
        calls=Calls(
            syntax=PythonCalls(),
            open=("<|python_start|>",),
            close=("<|python_end|>",),
            at_start="[",
        ),
        evidence=Evidence(
            template=("<|python_start|>",),
            tokens=("<|python_start|>",),
            architectures=("Llama4",),
            names=("llama-4", "llama4"),
        ),
        example="<|python_start|>[tide(port='Brest', days=2), moon()]<|python_end|>",
    ),
)
