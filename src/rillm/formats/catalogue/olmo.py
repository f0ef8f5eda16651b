"""OLMo 3: Python calls, one a line."""

import string
from typing import Final

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.python_calls import PythonCalls

FORMATS: Final = (
    Format(
        names=("olmo3",),
        family="OLMo 3",
        calls=Calls(
            syntax=PythonCalls(needs_brackets=False),
            open=("<function_calls>",),
            close=("</function_calls>",),
            at_start=string.ascii_letters + "_",
        ),
        evidence=Evidence(
            template=("<function_calls>",), architectures=("Olmo3",), names=("olmo-3", "olmo3")
        ),
        example='<function_calls>\ntide(port="Brest")\nmoon()\n</function_calls>',
    ),
)
