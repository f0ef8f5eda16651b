"""MiniCPM5: functions and their arguments as XML."""

from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.tagged import Tagged

FORMATS: Final = (
    Format(
        names=("minicpm5",),
        family="MiniCPM5",
        calls=Calls(
            syntax=Tagged(
                # The second is what the tokenizer makes of the first when it drops the space.
                open=("<function name=", "<functionname="),
                name_end=(">",),
                close=("</function>",),
                key_open=("<param name=", "<paramname="),
                key_end=(">",),
                value_close=("</param>",),
                trim="strip",
                wrappers=("properties", "arguments"),
                typing="json",
                is_xml=True,
            ),
        ),
        evidence=Evidence(
            template=("<param name=",),
            architectures=("MiniCPM5", "minicpm5"),
            names=("minicpm5", "minicpm-5"),
        ),
        example='<function name="tide"><param name="port">Brest</param></function>',
    ),
)
