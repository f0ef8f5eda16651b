"""PLaMo 3: pairs of markers around every part of a call, and around reasoning."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.header import HeaderJson


def _marker(name: str) -> tuple[str]:
    return (f"<|plamo:{name}:plamo|>",)


FORMATS: Final = (
    Format(
        names=("plamo3",),
        reasoning_names=("plamo3",),
        family="PLaMo 3",
        reasoning=Reasoning(
            open=_marker("begin_think"), close=_marker("end_think"), calls_end=True
        ),
        calls=Calls(
            syntax=HeaderJson(
                prefix=_marker("begin_tool_name"),
                name_end=_marker("end_tool_name"),
                arguments_open=(
                    "<|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>",
                    "<|plamo:begin_tool_arguments:plamo|>",
                ),
            ),
            open=_marker("begin_tool_requests"),
            close=_marker("end_tool_requests"),
            item_open=(*_marker("begin_tool_request"), *_marker("begin_tool_name")),
            item_close=(*_marker("end_tool_arguments"), *_marker("end_tool_request")),
            space="blank",
        ),
        absorbed=("<|plamo:tag|>",),
        turn=("<|plamo:tag|>",),
        evidence=Evidence(template=("begin_tool_requests",), names=("plamo-3",)),
        example="<|plamo:begin_tool_requests:plamo|><|plamo:begin_tool_request:plamo|>"
        "<|plamo:begin_tool_name:plamo|>tide<|plamo:end_tool_name:plamo|>"
        "<|plamo:begin_tool_arguments:plamo|><|plamo:constrain|>json<|plamo:msg|>"
        '{"port":"Brest"}<|plamo:end_tool_arguments:plamo|><|plamo:end_tool_request:plamo|>'
        "<|plamo:end_tool_requests:plamo|>",
    ),
)
