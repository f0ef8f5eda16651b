"""What a description's example shows of how its family writes, where readers are not particular."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """The example of one format."""

    example: str

    def shows(self, text: str) -> bool:
        """Whether the example holds a text."""
        return text in self.example

    def shown(self, markers: Sequence[str]) -> tuple[str, ...]:
        """Those of several markers that the example holds, or else the first of them."""
        return tuple(filter(self.shows, markers)) or tuple(markers[:1])

    def key(self, keys: Sequence[str]) -> str:
        """The one of several keys of a JSON object that the example has."""
        return next((each for each in keys if self.shows(f'"{each}"')), keys[0])

    def quoted(self, opener: str, text: str) -> str:
        """A name or a key after the marker before it, with quotation marks if it has them."""
        return f'{opener}"{text}"' if self.shows(f'{opener}"') else f"{opener}{text}"
