"""What a format is: data. `Machine` interprets it.

A format has two halves that can be mixed, `Reasoning` and `Calls`; families that frame every
message have a `Header` as well. All strings in them are markers, written as the model writes them;
where the tokenizer has a marker, or a part of one, as a token, only that token counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from rillm.formats.sink import Space
from rillm.formats.syntax.base import CallSyntax


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """How a model's own files show that it uses a format."""

    markers: tuple[str, ...] = ()
    """Texts in the chat template or among the added tokens, each of which is enough for both."""
    template: tuple[str, ...] = ()
    """Texts in the chat template, each of which is enough."""
    template_all: tuple[str, ...] = ()
    """Texts that the chat template must hold as well."""
    tokens: tuple[str, ...] = ()
    """Added tokens, each of which is enough."""
    architectures: tuple[str, ...] = ()
    """Beginnings of `architectures` or `model_type` in config.json, but for case and `_`."""
    names: tuple[str, ...] = ()
    """Parts of the model's name in lower case, with `-` for `_`: the weakest hint."""
    rank: int = 0
    """Formats that match equally well: the highest is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """How reasoning is told from the answer."""

    open: tuple[str, ...]
    close: tuple[str, ...]
    starts_open: bool = True
    """Whether the output begins inside, where nothing is known of the prompt."""
    calls_end: bool = False
    """Whether a call ends reasoning that was not closed; else it is a quotation there."""
    space: str = "\n"
    """Characters that belong to a fence they touch; usually newlines."""
    shown_open: str = ""
    """What goes before an output that is content altogether: clients part it themselves."""
    open_at_start: tuple[str, ...] = ()
    """Other fences, which open reasoning at the start of the output only."""
    only_at_start: bool = False
    """Whether reasoning begins at the start of the output only: later fences are text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """How tool calls are framed, and in which syntax they are written."""

    syntax: CallSyntax
    open: tuple[str, ...] = ()
    """Before all calls."""
    close: tuple[str, ...] = ()
    """After all calls; may be missing."""
    item_open: tuple[str, ...] = ()
    """Before each call."""
    item_close: tuple[str, ...] = ()
    """After each call; may be missing."""
    bare: tuple[str, ...] = ()
    """Those of `open` that other text has as well: only a function that was offered is called."""
    loose: bool = False
    """Whether calls are accepted without the outer markers."""
    at_start: str = ""
    """The characters with which an unmarked call at the very start of the answer begins."""
    echo: str = ""
    """The characters with which a repetition of the calls begins. What the model writes from
    there to another `close` is dropped; it is content if none comes."""
    noise: Literal["content", "drop"] = "content"
    """What other text between calls is."""
    after: Literal["content", "drop"] = "content"
    """What other text after the calls is; dropped where the turn is over."""
    space: Space = "trim"
    id_alphabet: str = ""
    """Characters of ids where templates insist on nine of them; empty for ordinary ids."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message goes."""

    kind: Literal["reasoning", "content", "tools", "call", "drop"]
    """`call`: the message is the arguments of a call; `tools`: it holds calls in their markup."""
    name: str = ""
    """The function of a `call`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header that says where the message after it goes."""

    open: tuple[str, ...]
    end: tuple[str, ...]
    """Markers after the header; the message follows."""
    route: Callable[[str], Route] | None = None
    """Reads a header; without it, markers of the other halves say where the message goes."""
    parts: tuple[str, ...] = ()
    """Markers inside a header, which `route` sees."""
    message_end: tuple[str, ...] = ()
    inline: tuple[str, ...] = ()
    """Text that begins a header in the middle of a message, if `end` follows one word later."""
    starts_open: bool = True
    """Whether the output begins in a header, where nothing is known of the prompt."""
    holds_calls: bool = False
    """Whether calls begin in headers only, so that a message may quote their markup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A whole format, or one of its halves; the names by which users choose it."""

    names: tuple[str, ...] = ()
    """Names of the tool half, the first of them the usual one."""
    reasoning_names: tuple[str, ...] = ()
    """Names of the reasoning half."""
    family: str
    """The models that write so, for people."""
    reasoning: Reasoning | None = None
    calls: Calls | None = None
    header: Header | None = None
    absorbed: tuple[str, ...] = ()
    """Other markers, which are not shown."""
    citations: tuple[str, ...] = ()
    """Beginnings of tags around what is cited; numbers follow, and `>`. They are not shown."""
    turn: tuple[str, ...] = ()
    """Markers that begin a turn in a prompt."""
    suffix: str = ""
    """What each checkpoint puts before the last character of every marker, as a regular
    expression: see `rillm.model_formats.suffix`."""
    evidence: Evidence = field(default_factory=Evidence)
    mixes: bool = True
    """Whether its halves can be mixed with those of other formats."""
    from_checkpoint: bool = False
    """Whether the checkpoint declares the format: see `rillm.model_formats.response_template`."""
    example: str = ""
    """What a model writes, for the table of formats."""

    @property
    def has_markup(self) -> bool:
        """Whether there is anything but content."""
        return not (self.reasoning is None and self.calls is None and self.header is None)

    @property
    def reads_calls(self) -> bool:
        """Whether calls are told from content."""
        return self.calls is not None or (self.header is not None and self.header.route is not None)
