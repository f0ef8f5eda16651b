"""K2 Horizon: calls as JSON or as keys and values, with the values' types or without."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format, Reasoning
from rillm.formats.syntax.either import Either
from rillm.formats.syntax.tagged import Tagged

_EFFORTS: Final = ("think", "think_fast", "think_faster")

FORMATS: Final = (
    Format(
        names=("k2_horizon",),
        reasoning_names=("k2_horizon",),
        family="K2 Horizon",
        reasoning=Reasoning(
            open=tuple(f"<ifm|{effort}>" for effort in _EFFORTS),
            close=tuple(f"</ifm|{effort}>" for effort in _EFFORTS),
            calls_end=True,
        ),
        calls=Calls(
            syntax=Either(
                tags=Tagged(
                    key_open=("<ifm|arg_key>",),
                    key_end=("</ifm|arg_key>",),
                    type_open=("<ifm|arg_type>",),
                    type_close=("</ifm|arg_type>",),
                    value_open=("<ifm|arg_value>",),
                    value_close=("</ifm|arg_value>",),
                )
            ),
            open=("<ifm|tool_calls>",),
            close=("</ifm|tool_calls>",),
            item_open=("<ifm|tool_call>",),
            item_close=("</ifm|tool_call>",),
            space="blank",
        ),
        evidence=Evidence(
            template=("<ifm|tool_calls>", "<ifm|think"),
            tokens=("<ifm|tool_calls>", "<ifm|think>"),
            names=("k2-horizon", "k2_horizon"),
        ),
        example="<ifm|think>look</ifm|think><ifm|tool_calls><ifm|tool_call>tide"
        "<ifm|arg_key>port</ifm|arg_key><ifm|arg_value>Brest</ifm|arg_value>"
        "</ifm|tool_call></ifm|tool_calls>",
    ),
)
