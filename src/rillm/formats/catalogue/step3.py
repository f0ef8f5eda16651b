"""Step-3: steptml tags inside DeepSeek-like frames."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.tagged import Tagged

_INVOKE: Final = "<steptml:invoke name="
_TYPE: Final = "function<｜tool_sep｜>"

FORMATS: Final = (
    Format(
        names=("step3",),
        reasoning_names=("step3",),
        family="Step-3",
        reasoning=Reasoning(open=("<think>",), close=("</think>",)),
        calls=Calls(
            syntax=Tagged(
                open=(_TYPE + _INVOKE, f"{_TYPE}\n{_INVOKE}"),
                name_end=(">",),
                close=("</steptml:invoke>",),
                key_open=("<steptml:parameter name=",),
                key_end=(">",),
                value_close=("</steptml:parameter>",),
                trim="strip",
            ),
            open=("<｜tool_calls_begin｜>",),
            close=("<｜tool_calls_end｜>",),
            item_open=("<｜tool_call_begin｜>",),
            item_close=("<｜tool_call_end｜>",),
        ),
        evidence=Evidence(
            template=("<steptml:",),
            tokens=("<｜tool_calls_begin｜>",),
            architectures=("Step3",),
            names=("step3", "step-3"),
            rank=1,
        ),
        example="look</think><｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜>"
        '<steptml:invoke name="tide"><steptml:parameter name="port">Brest</steptml:parameter>'
        "</steptml:invoke><｜tool_call_end｜><｜tool_calls_end｜>",
    ),
)
