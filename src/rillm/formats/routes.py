"""Readers of headers: where a message goes, by what its header says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from rillm.formats.description import Route

_HARMONY_RECIPIENT: Final = re.compile(r"(?:^|\s)to=([^\s<]+)")
_HARMONY_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(\w+)")
_HARMONY_BUILTIN: Final = frozenset({"browser", "python", "container"})
"""Tools of the model's own, which are no functions of the client's."""
_MUSE_RECIPIENT: Final = re.compile(r"\bto=(\S+)")
_MUSE_ROUTES: Final = {
    "self": Route("reasoning"),
    "user": Route("content"),
    "commentary": Route("content"),
    "developer": Route("drop"),
}


def harmony(header: str) -> Route:
    """Headers of gpt-oss name a channel, and a recipient for calls.

    Args:
        header: the text between `<|start|>` and `<|message|>`.

    Source: https://cookbook.openai.com/articles/openai-harmony.
    """
    recipient = _HARMONY_RECIPIENT.search(header)
    channel = _HARMONY_CHANNEL.search(header)
    name = "" if recipient is None else recipient[1].removeprefix("functions.")
    is_builtin = name.split(".")[0] in _HARMONY_BUILTIN
    if name not in ("", "assistant", "user") and not is_builtin:
        return Route("call", name)
    if channel is not None and channel[1] == "analysis":
        return Route("reasoning")
    return Route("drop" if is_builtin else "content")


def muse_spark(header: str) -> Route:
    """Messages of Muse Spark to nobody are reasoning."""
    return _muse(header, Route("reasoning"))


def muse_glimmer(header: str) -> Route:
    """Messages of Muse Glimmer to nobody are the answer."""
    return _muse(header, Route("content"))


def _muse(header: str, unaddressed: Route) -> Route:
    recipient = _MUSE_RECIPIENT.search(header)
    if recipient is None:
        return unaddressed
    return _MUSE_ROUTES.get(recipient[1], Route("tools"))


ROUTES: Final[dict[str, Callable[[str], Route]]] = {
    each.__name__: each for each in (harmony, muse_spark, muse_glimmer)
}
"""The readers, by the names under which descriptions choose them."""
