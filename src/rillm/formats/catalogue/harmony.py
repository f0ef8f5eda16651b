"""Harmony, which gpt-oss writes: messages whose headers name a channel and a recipient.

Source: the format's description, https://cookbook.openai.com/articles/openai-harmony.
"""

import re
from typing import Final

from rillm.formats.description import Evidence, Format, Header, Route

_RECIPIENT: Final = re.compile(r"(?:^|\s)to=([^\s<]+)")
_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(\w+)")
_BUILTIN: Final = frozenset({"browser", "python", "container"})
"""Tools of the model's own, which are no functions of the client's."""


def route(header: str) -> Route:
    """Where a message goes.

    Args:
        header: the text between `<|start|>` and `<|message|>`.
    """
    recipient = _RECIPIENT.search(header)
    channel = _CHANNEL.search(header)
    name = "" if recipient is None else recipient[1].removeprefix("functions.")
    is_function = name not in ("", "assistant", "user") and name.split(".")[0] not in _BUILTIN
    if is_function:
        return Route("call", name)
    if channel is not None and channel[1] == "analysis":
        return Route("reasoning")
    return Route("drop" if name.split(".")[0] in _BUILTIN else "content")


FORMATS: Final = (
    Format(
        names=("openai",),
        reasoning_names=("openai_gptoss",),
        family="gpt-oss",
        header=Header(
            open=("<|start|>",),
            end=("<|message|>",),
            route=route,
            parts=("<|channel|>", "<|constrain|>"),
            message_end=("<|end|>", "<|call|>", "<|return|>"),
        ),
        turn=("<|start|>",),
        evidence=Evidence(
            template=("<|channel|>",),
            template_all=("<|message|>",),
            tokens=("<|constrain|>",),
            architectures=("GptOss",),
            names=("gpt-oss",),
        ),
        mixes=False,
        example="<|channel|>analysis<|message|>look<|end|><|start|>assistant<|channel|>commentary"
        ' to=functions.tide <|constrain|>json<|message|>{"port": "Brest"}<|call|>',
    ),
)
