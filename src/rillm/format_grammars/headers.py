"""How headers are written: the way back of `rillm.formats.routes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rillm.formats import routes
from rillm.formats.description import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """The headers of one family; `{name}` stands for a function's name."""

    reasoning: str
    content: str
    calls: tuple[str, ...]
    """In these, the function is named, and calls follow."""
    json_mark: tuple[str, ...] = ("",)
    """What may follow that: it says that the message is JSON."""


_HARMONY: Final = Headers(
    reasoning="<|channel|>analysis",
    content="<|channel|>final",
    calls=(
        "<|channel|>commentary to=functions.{name}",
        " to=functions.{name}<|channel|>commentary",
    ),
    json_mark=(" <|constrain|>json", "<|constrain|>json", " json", ""),
)
_MUSE: Final = Headers(reasoning=" to=self", content=" to=user", calls=(" to={name}.{name}",))

HEADERS: Final[Mapping[Callable[[str], Route], Headers]] = {
    routes.harmony: _HARMONY,
    routes.muse_spark: _MUSE,
    routes.muse_glimmer: _MUSE,
}
AUTHOR: Final = "assistant"
"""Goes before a header that is routed, but for the first, which the prompt has begun."""
