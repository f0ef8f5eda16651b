"""GigaChat 3: a JSON object in a message of a role of its own."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.json_calls import JsonCall

FORMATS: Final = (
    Format(
        names=("gigachat3",),
        family="GigaChat 3",
        calls=Calls(
            syntax=JsonCall(lenient=True),
            item_open=(
                "<|message_sep|>\n\nfunction call<|role_sep|>",
                "<|message_sep|>function call<|role_sep|>",
                "<|function_call|>",
            ),
            item_close=("</s>",),
        ),
        evidence=Evidence(
            template=("<|message_sep|>", "<|function_call|>"),
            tokens=("<|message_sep|>", "<|function_call|>"),
            names=("gigachat3", "gigachat-3"),
        ),
        example='<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "tide", "arguments": '
        '{"port": "Брест"}}',
    ),
)
