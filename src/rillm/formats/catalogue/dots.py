"""rednote dots: invoke and parameter tags, or a JSON object, in one frame."""

from dataclasses import replace
from typing import Final

from rillm.formats.catalogue.minimax import INVOKE
from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.syntax.either import Either

FORMATS: Final = (
    Format(
        names=("dots",),
        family="rednote dots",
        calls=Calls(
            syntax=Either(
                tags=replace(
                    INVOKE,
                    open=("<invoke",),
                    name_attribute="name",
                    key_open=("<parameter",),
                    key_attribute="name",
                    trim="strip",
                )
            ),
            item_open=("<dots_function_call>",),
            item_close=("</dots_function_call>",),
        ),
        evidence=Evidence(
            template=("<dots_function_call>",),
            tokens=("<dots_function_call>",),
            architectures=("dots",),
            names=("rednote", "dots.", "dots-"),
        ),
        example='<dots_function_call>\n<invoke name="tide">\n'
        '<parameter name="port">Brest</parameter>\n</invoke>\n</dots_function_call>',
    ),
)
