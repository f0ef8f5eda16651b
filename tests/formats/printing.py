"""What models write, printed from descriptions of their formats by people, not by the parser.

`Choices` turns bytes into decisions: fewer bytes make a simpler conversation, so that failures
shrink.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from rillm.formats.tokens import NO_TOKENS, TokenMarkers

T = TypeVar("T")


class Choices:
    """Decisions read from bytes; the first alternative always once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def below(self, limit: int) -> int:
        """A number from 0 up to `limit`, at most 256."""
        if self._position >= len(self._data):
            return 0
        self._position += 1
        return self._data[self._position - 1] % limit

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def chance(self, one_in: int) -> bool:
        return self.below(one_in) == one_in - 1

    def random(self) -> random.Random:
        """A generator for what need not shrink."""
        return random.Random(self.below(256))


@dataclass
class Call:
    """One call as it was meant; `exact` is its JSON text where the format passes that through."""

    name: str
    arguments: dict[str, Any]
    schema: dict[str, Any] | None = None
    exact: str | None = None
    id: str | None = None

    def tool(self) -> dict[str, Any]:
        function: dict[str, Any] = {"name": self.name}
        if self.schema is not None:
            function["parameters"] = {"type": "object", "properties": self.schema}
        return {"type": "function", "function": function}


@dataclass
class Conversation:
    """A turn: reasoning, then texts and groups of calls."""

    reasoning: str = ""
    parts: list[str | list[Call]] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        return [call for part in self.parts if isinstance(part, list) for call in part]

    @property
    def texts(self) -> list[str]:
        return [part for part in self.parts if isinstance(part, str)]


class Writer:
    """Collects what the model writes: markers, and text that only may look like them."""

    def __init__(self, choices: Choices, tokens: TokenMarkers = NO_TOKENS) -> None:
        self.choices = choices
        self._tokens = tokens
        self._pieces: list[str] = []

    def mark(self, *markers: str) -> Writer:
        """Write markup; of several spellings, one."""
        marker = self.choices.one_of(markers) if len(markers) > 1 else markers[0]
        self._pieces.append(self._tokens.encode(marker))
        return self

    def text(self, text: str) -> Writer:
        self._pieces.append(text)
        return self

    def space(self, *options: str) -> Writer:
        """Write whitespace that means nothing; the first is the template's own."""
        self._pieces.append(self.choices.one_of(options or ("\n", "", " ", "\n\n")))
        return self

    def json(self, value: Any) -> str:
        """JSON text in one of the ways in which models write it."""
        choices = self.choices
        return json.dumps(
            value,
            ensure_ascii=choices.chance(3),
            indent=choices.one_of((None, None, None, 2)),
            separators=choices.one_of((None, (",", ":"), (", ", ": "))),
        )

    def arguments(self, call: Call) -> str:
        """A call's arguments as JSON, which must arrive as they are."""
        call.exact = self.json(call.arguments)
        return call.exact

    def quoted_json(self, text: str) -> None:
        """Write JSON; a model may use the tokens of markers inside of strings as well."""
        self._pieces.append(self._tokens.encode(text) if self.choices.chance(3) else text)

    def result(self) -> str:
        return "".join(self._pieces)


Values = Literal["json", "typed", "python", "flat"]
"""How arguments are written: as JSON, as text typed by a schema, as Python literals, as text typed
by a schema without arrays and objects."""

WriteCalls = Callable[[Writer, list[Call]], None]


@dataclass(frozen=True, kw_only=True)
class CallStyle:
    """How one family writes calls, and what may go before, between and after them."""

    names: tuple[str, ...]
    write: WriteCalls
    reasoning: str | None = None
    """The reasoning format that goes with it."""
    tokens: tuple[str, ...] = ()
    """Markers that are tokens in the family's vocabularies."""
    values: Values = "json"
    stops: tuple[str, ...] = ()
    """What a raw value cannot hold."""
    edges: bool = True
    """Whether whitespace at the ends of raw values is data."""
    max_calls: int = 3
    text_before: bool = True
    text_after: bool = True
    offered: bool = False
    """Whether only functions that were offered are called: no marker goes before the call."""
    must_have_arguments: bool = False


@dataclass(frozen=True, kw_only=True)
class ReasoningStyle:
    """How one family fences its reasoning."""

    names: tuple[str, ...]
    open: str
    close: str
    space: tuple[str, ...] = ("\n", "", "\n\n")
    """Whitespace around the fences."""
    after: str = ""
    """What is written after the answer."""
    tokens: tuple[str, ...] = ()
    wrap: tuple[str, str] | None = None
    """What may be around the answer."""


@dataclass(frozen=True, kw_only=True)
class MessageStyle:
    """A family that frames every message, and so is printed as a whole."""

    names: tuple[str, ...]
    reasoning_names: tuple[str, ...]
    write: Callable[[Writer, Conversation], None]
    tokens: tuple[str, ...] = ()
    values: Values = "json"
    stops: tuple[str, ...] = ()
    edges: bool = True
    max_calls: int = 3
    text_before: bool = True
    text_after: bool = True
    offered: bool = False
    must_have_arguments: bool = False


def without(text: str, stops: Sequence[str], following: str = "") -> str:
    """The text without the stops, and without one that `following` would complete."""
    while any(stop in text for stop in stops):
        for stop in stops:
            text = text.replace(stop, "")
    whole = text + following
    for stop in stops:
        if 0 <= whole.find(stop) < len(text):
            return without(text[:-1], stops, following)
    return text


_ATOMS = (
    "tide", "Brest", " ", "\n", '"', "'", "\\", "{", "}", "[", "]", "<", ">", "|", ":", ",", "=",
    "(", ")", "潮汐", "🌊", "👩‍👩‍👧", "e\u0301", "\t", "\r\n", "&amp;", "</", "<|", "null",
    "0", "\u2028", "｜", "▁", '{"a": [1, "b"]}', "```", "\\n", "\\u00e9", "ﬁ", "two words", "//",
    "\n\n", "  ", "a" * 40, "/>", "<b>", "]]>", "true", "${x}", "%s", "\x7f", "ꙮ",
)  # fmt: skip


def make_text(choices: Choices, markers: Sequence[str], size: int = 5) -> str:
    """Text of any kind; markers and their beginnings in it are those of the format."""
    parts: list[str] = []
    for _ in range(choices.below(size + 1)):
        kind = choices.below(5)
        if kind == 4 and markers:
            parts.append(choices.one_of(markers))
        elif kind == 3 and markers:
            marker = choices.one_of(markers)
            parts.append(marker[: 1 + choices.below(len(marker))])
        else:
            parts.append(choices.one_of(_ATOMS))
    return "".join(parts)


def make_json(choices: Choices, markers: Sequence[str], depth: int = 2) -> Any:
    """A JSON value."""
    kind = choices.below(8 if depth else 6)
    match kind:
        case 0 | 1:
            return make_text(choices, markers)
        case 2:
            return choices.one_of((0, 2, -7, 10**20, 255))
        case 3:
            return choices.one_of((0.5, -2.25, 1e-07, 3.5e22))
        case 4:
            return choices.one_of((True, False))
        case 5:
            return None
        case 6:
            return [make_json(choices, markers, depth - 1) for _ in range(choices.below(3))]
    return {
        make_text(choices, markers, 2): make_json(choices, markers, depth - 1)
        for _ in range(choices.below(3))
    }
