"""Kimi K3: XTML, elements whose tags are three tokens each."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.tagged import Tagged


def _open(name: str) -> str:
    return f"<|open|>{name}<|sep|>"


def _close(name: str) -> str:
    return f"<|close|>{name}<|sep|>"


FORMATS: Final = (
    Format(
        names=("kimi_k3",),
        reasoning_names=("kimi_k3",),
        family="Kimi K3",
        reasoning=Reasoning(
            open=(_open("think"),),
            # An answer that begins says as well that there is no more reasoning.
            close=(_close("think"), _open("response")),
            space="",
        ),
        calls=Calls(
            syntax=Tagged(
                open=("<|open|>call",),
                name_end=("<|sep|>",),
                close=(_close("call"),),
                key_open=("<|open|>argument",),
                key_end=("<|sep|>",),
                value_close=(_close("argument"),),
                name_attribute="tool",
                key_attribute="key",
                type_attribute="type",
            ),
            open=(_open("tools"),),
            close=(_close("tools"),),
            space="blank",
        ),
        absorbed=(_close("response"), _close("message")),
        evidence=Evidence(
            template=("<|open|>",),
            tokens=("<|open|>",),
            architectures=("KimiK3", "kimi_k3"),
            names=("kimi-k3", "kimi_k3"),
        ),
        mixes=False,
        example=_open("think")
        + "look"
        + _close("think")
        + _open("tools")
        + '<|open|>call tool="tide" index="1"<|sep|>'
        + '<|open|>argument key="port" type="string"<|sep|>Brest'
        + _close("argument")
        + _close("call")
        + _close("tools"),
    ),
)
