"""Inkling: blocks, each of which begins with a token for its kind."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Header, Reasoning
from rillm.formats.syntax.json_calls import JsonCall

_END: Final = ("<|end_message|>", "<|content_model_end_sampling|>")

FORMATS: Final = (
    Format(
        names=("inkling",),
        reasoning_names=("inkling",),
        family="Inkling",
        reasoning=Reasoning(open=("<|content_thinking|>",), close=_END, calls_end=True),
        calls=Calls(
            syntax=JsonCall(arguments=("args", "arguments", "parameters")),
            item_open=("<|content_invoke_tool_json|>",),
            item_close=_END,
            space="blank",
        ),
        header=Header(
            open=("<|message_model|>",),
            end=("<|content_text|>", "<|content_invoke_tool_text|>", "<|content_tool_error|>"),
            message_end=_END,
        ),
        turn=("<|message_model|>",),
        evidence=Evidence(
            template=("<|content_invoke_tool_json|>",),
            tokens=("<|content_invoke_tool_json|>",),
            names=("inkling",),
        ),
        mixes=False,
        example="<|content_thinking|>look<|end_message|><|message_model|>"
        '<|content_invoke_tool_json|>{"name": "tide", "args": {"port": "Brest"}}<|end_message|>',
    ),
)
