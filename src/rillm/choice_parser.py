"""What a stream asks of the parser of one choice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rillm.formats.events import StreamEvent


class ChoiceParser(Protocol):
    """Tells what one choice's text means; `rillm.formats.machine.Machine` is one."""

    @property
    def is_reasoning(self) -> bool:
        """Whether the text so far ends inside reasoning."""

    @property
    def steady_place(self) -> str | None:
        """Where the text so far ends, if what comes next depends on nothing else; or None."""

    def feed(self, text: str, token_ids: Sequence[int] = ()) -> list[StreamEvent]:
        """Add text, and the tokens it came with; returns what has become certain."""

    def finish(self, *, is_cut: bool = False) -> list[StreamEvent]:
        """End the text; `is_cut` says that the model had more to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """What the choices of one prompt are parsed with."""

    new_parser: Callable[[], ChoiceParser]
    """Makes a parser for each choice, set to where the prompt ends."""
    stand_ins: Mapping[int, str] = field(default_factory=dict)
    """Token ids to the text by which the parsers know them."""
    encode_stop: Callable[[str], str] = str
    """Puts stand-ins into a stop string."""
    name: Hashable = None
    """Equal where the parsers do the same at the same `steady_place`; None: not known."""
