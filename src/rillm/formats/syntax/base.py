"""What every call syntax gets and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from rillm.formats.sink import Sink
from rillm.formats.source import Source, Steps

Schema = Mapping[str, Any]
"""A JSON schema."""


@dataclass(frozen=True, slots=True)
class Context:
    """One choice, as its parsers see it."""

    source: Source
    sink: Sink
    functions: Mapping[str, Schema]
    """Names of the functions that were offered, to the schemas of their arguments."""

    def offers(self, name: str) -> bool:
        """Whether a call can name this function; true where nothing is known of them."""
        return not self.functions or name in self.functions


class CallParser(Protocol):
    """Parses the calls of one kind of syntax."""

    def parse(self, context: Context, lead: str, is_bare: bool) -> Steps[int | None]:
        """Parse one call, or one list of calls.

        Args:
            context: the choice.
            lead: the marker that was consumed last; empty for none.
            is_bare: whether no frame goes before a call, so that only its shape and the name of a
                function that was offered tell it from text.

        Returns:
            How many calls were begun. None where the text is no call: nothing was begun then, and
            all that was consumed is given back as text.
        """


class CallSyntax:
    """The description of a syntax: data, and the parser that it compiles to."""

    streams: ClassVar[str]
    """What of a call streams, for the table of formats."""

    def leads(self) -> tuple[str, ...]:
        """Markers with which a call itself begins; empty where a frame must go before."""
        return ()

    def parser(self, stops: Sequence[str]) -> CallParser:
        """Compile.

        Args:
            stops: markers that end a call from outside: those of the frame around it.
        """
        raise NotImplementedError
