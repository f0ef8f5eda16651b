"""A description made ready for the machine: sets of markers, and what each of them does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, get_args

from rillm.formats.description import Calls, Format
from rillm.formats.source import Markers
from rillm.formats.syntax.base import CallParser
from rillm.formats.tokens import TokenMarkers

FrameKind = Literal["content", "reasoning", "header", "tools", "drop"]
Action = Literal[FrameKind, "calls", "message", "inline", "absorb", "citation"]
"""What a marker does: open a frame, begin calls, end a header, or nothing that shows."""
Rule = tuple[Iterable[str], Action]
"""Some markers, and what all of them do."""

_CACHED_FORMATS: Final = 256
_JUNK: Final = frozenset(" \t\r\n]})\"',;")
"""What models write too much of at the end of a call."""
_STAND_INS: Final = "\ud800-\udfff"


@dataclass(frozen=True, slots=True)
class Frame:
    """One place the output can be in."""

    markers: Markers
    special: re.Pattern[str]
    """Any character that a marker can begin with, or that stands for a token."""
    actions: dict[str, Action]
    at_start: str


class CompiledCalls:
    """The tool half."""

    def __init__(self, calls: Calls, frame: Sequence[str] = ()) -> None:
        """Compile.

        Args:
            calls: the description.
            frame: markers of the message around the calls: calls never reach beyond them.
        """
        syntax = calls.syntax
        self.description = calls
        self.leads = frozenset(syntax.leads())
        self.open = frozenset(calls.open)
        self.close = frozenset(calls.close)
        self.starts = frozenset((*calls.item_open, *self.leads))
        self.needs_start = bool(calls.item_open or self.leads)
        self.outer = frozenset(calls.open or calls.item_open or syntax.leads())
        loose = (*calls.item_open, *syntax.leads()) if calls.loose else ()
        self.triggers = self.outer.union(loose)
        self.frame = frozenset(frame)
        self.starts_or_close = Markers((*self.starts, *calls.close))
        self.starts_or_ends = Markers((*self.starts, *calls.close, *frame))
        self.closers_or_leads = Markers((*calls.item_close, *calls.close, *self.leads))
        self.section = Markers((*calls.open, *calls.close))
        beginnings = {marker[0] for marker in self.closers_or_leads.literals}
        self.junk = re.compile(f"[{re.escape(''.join(sorted(_JUNK - beginnings)))}]+")
        self.is_fenced = bool(calls.item_close or calls.close)
        self.strays = frozenset((*calls.close, *calls.item_close)) - self.triggers
        stops = (*calls.item_close, *calls.close, *calls.item_open, *frame)
        self.parser: CallParser = syntax.parser(stops)

    def is_bare(self, lead: str) -> bool:
        """Whether what follows `lead` is a call only if it names a function that was offered."""
        is_framed = bool(self.description.open or self.description.item_open)
        return lead in self.description.bare or (lead in self.leads and is_framed)


class CompiledFormat:
    """A format with its frames."""

    def __init__(self, format: Format, tokens: TokenMarkers) -> None:
        self.format = format
        self.reasoning = tokens.encode_all(format.reasoning)
        self.header = tokens.encode_all(format.header)
        self._absorbed = tokens.encode_all(format.absorbed)
        calls = tokens.encode_all(format.calls)
        frame = () if self.header is None else (*self.header.message_end, *self.header.open)
        self.calls = None if calls is None else CompiledCalls(calls, frame)
        at_start = "" if calls is None else calls.at_start
        self.message_stops = Markers(frame)
        opening: tuple[str, ...] = ()
        if self.reasoning is not None:
            is_only = self.reasoning.only_at_start
            opening = self.reasoning.open if is_only else self.reasoning.open_at_start
        self.opening = Markers(opening) if opening else None
        self.header_end = Markers(() if self.header is None else self.header.end)
        self.frames: dict[FrameKind, Frame] = {}
        for kind in get_args(FrameKind):
            actions = self._actions(kind)
            bare = at_start if kind in ("content", "tools") else ""
            beginnings = "".join(sorted({re.escape(marker[0]) for marker in actions}))
            special = re.compile(f"[{_STAND_INS}{beginnings}]")
            self.frames[kind] = Frame(Markers(actions), special, actions, bare)

    def start(self, start: Literal["content", "reasoning"] | None) -> FrameKind:
        """The frame in which an output begins."""
        if start is not None:
            return start
        if self.header is not None:
            return "header" if self.header.starts_open else "content"
        is_open = self.reasoning is not None and self.reasoning.starts_open
        return "reasoning" if is_open else "content"

    def _actions(self, kind: FrameKind) -> dict[str, Action]:
        """What the markers do in one frame; the last that names a marker wins."""
        calls = self.calls if self._holds_calls(kind) else None
        # Inside reasoning, a call without its frame is a quotation.
        is_inside = kind == "reasoning"
        rules: list[Rule] = [
            (self._absorbed, "content" if kind == "header" else "absorb"),
            (() if calls is None or is_inside else calls.strays, "absorb"),
            *self._reasoning_rules(is_inside),
            *self._header_rules(kind == "header"),
            (self.format.citations if kind in ("content", "reasoning") else (), "citation"),
        ]
        if calls is not None:
            rules.append((calls.outer if is_inside else calls.triggers, "calls"))
        return {marker: action for markers, action in rules for marker in markers if marker}

    def _reasoning_rules(self, is_inside: bool) -> list[Rule]:
        reasoning = self.reasoning
        if reasoning is None:
            return []
        if reasoning.only_at_start:
            return [(reasoning.close, "content")] if is_inside else []
        if is_inside:
            return [(reasoning.open, "absorb"), (reasoning.close, "content")]
        return [(reasoning.close, "absorb"), (reasoning.open, "reasoning")]

    def _header_rules(self, is_inside: bool) -> list[Rule]:
        header = self.header
        if header is None:
            return []
        rules: list[Rule] = [((*header.message_end, *header.open), "header")]
        if is_inside:
            return [*rules, (header.end, "message")]
        return [*rules, (header.end, "absorb"), (header.inline, "inline")]

    def _holds_calls(self, kind: FrameKind) -> bool:
        if kind == "reasoning":
            return self.reasoning is not None and self.reasoning.calls_end
        if self.header is not None and self.header.holds_calls:
            return kind == "header"
        if self.header is not None and self.header.route is not None:
            return kind == "tools"
        return kind in ("content", "header", "drop")


@lru_cache(_CACHED_FORMATS)
def compile_format(format: Format, tokens: TokenMarkers) -> CompiledFormat:
    """Compile a format for a vocabulary; the result is shared, and is not changed."""
    return CompiledFormat(format, tokens)
