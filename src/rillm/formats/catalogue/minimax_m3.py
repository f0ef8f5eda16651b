"""MiniMax-M3: nested elements, with a prefix before every tag."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.elements import Elements

_TAG: Final = "]<]minimax[>["

FORMATS: Final = (
    Format(
        names=("minimax_m3",),
        family="MiniMax-M3",
        calls=Calls(
            syntax=Elements(
                open=(f"{_TAG}<invoke name=",),
                close=(f"{_TAG}</invoke>",),
                element_open=(f"{_TAG}<",),
                element_close=(f"{_TAG}</",),
            ),
            open=(f"{_TAG}<tool_call>",),
            close=(f"{_TAG}</tool_call>",),
            after="drop",
            space="keep",
        ),
        evidence=Evidence(
            template=(_TAG,),
            architectures=("MiniMaxM3",),
            names=("minimax-m3", "mm-m3"),
            rank=1,
        ),
        example=f'{_TAG}<tool_call>\n{_TAG}<invoke name="tide">{_TAG}<port>Brest{_TAG}</port>'
        f"{_TAG}</invoke>\n{_TAG}</tool_call>",
    ),
)
