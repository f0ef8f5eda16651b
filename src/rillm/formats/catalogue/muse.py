"""Muse Spark and Muse Glimmer: addressed messages, calls as ATEM tags in those to a tool."""

import re
from collections.abc import Callable
from typing import Final, Literal

from rillm.formats.description import Calls, Evidence, Format, Header, Route
from rillm.formats.syntax.tagged import Tagged

_RECIPIENT: Final = re.compile(r"\bto=(\S+)")
_CALLS: Final = Calls(
    syntax=Tagged(
        open=("<atem:invoke name=",),
        name_end=(">",),
        close=("</atem:invoke>",),
        key_open=("<atem:parameter name=",),
        key_end=(">",),
        value_close=("</atem:parameter>",),
        typing="json",
        has_namespace=True,
    ),
    open=("<atem:function_calls>",),
    close=("</atem:function_calls>",),
    loose=True,
)
_EXAMPLE: Final = (
    " to=self<|message|>look<|eom|><|start|>assistant to=tide.tide<|message|>"
    '<atem:function_calls>\n<atem:invoke name="tide.tide">\n'
    '<atem:parameter name="port">Brest</atem:parameter>\n</atem:invoke>\n'
    "</atem:function_calls><|eom|>"
)


def _header(unaddressed: Literal["reasoning", "content"]) -> Header:
    """Headers of messages, and where those go that say no recipient."""
    routes: dict[str, Route] = {
        "self": Route("reasoning"),
        "user": Route("content"),
        "commentary": Route("content"),
        "developer": Route("drop"),
    }

    def route(header: str) -> Route:
        recipient = _RECIPIENT.search(header)
        if recipient is None:
            return Route(unaddressed)
        return routes.get(recipient[1], Route("calls"))

    read: Callable[[str], Route] = route
    return Header(
        open=("<|start|>",),
        end=("<|message|>",),
        message_end=("<|eom|>", "<|eot|>"),
        inline=(" to=",),
        route=read,
    )


FORMATS: Final = (
    Format(
        names=("muse", "musespark1x"),
        reasoning_names=("muse", "musespark1x"),
        family="Muse Spark",
        header=_header("reasoning"),
        calls=_CALLS,
        evidence=Evidence(
            template=("<atem:",),
            architectures=("MuseSpark", "muse_spark"),
            names=("muse-spark", "musespark"),
            rank=1,
        ),
        mixes=False,
        example=_EXAMPLE,
    ),
    Format(
        names=("muse_glimmer",),
        reasoning_names=("muse_glimmer",),
        family="Muse Glimmer",
        header=_header("content"),
        calls=_CALLS,
        evidence=Evidence(
            template=("<atem:",), architectures=("MuseGlimmer", "muse_glimmer"), names=("glimmer",)
        ),
        mixes=False,
        example=_EXAMPLE,
    ),
)
