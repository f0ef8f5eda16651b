"""What goes around calls: reasoning, text, and the markers between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rillm.format_grammars.calls import CallWriter, Tool
from rillm.format_grammars.lark import (
    ANY,
    GrammarError,
    Lark,
    any_of,
    literal,
    optional,
    regex,
    repeated,
    sequence,
)
from rillm.format_grammars.layout import Layout
from rillm.format_grammars.spelling import Spelling
from rillm.formats.compiled import FrameKind, compile_format
from rillm.formats.description import Calls, Format, Reasoning
from rillm.formats.syntax.base import CallSyntax
from rillm.formats.syntax.json_calls import JsonArray, JsonCall
from rillm.formats.syntax.python_calls import PythonCalls
from rillm.formats.tokens import NO_TOKENS

Choice = Literal["auto", "required"]
"""Whether there may be calls, or must be."""

_HARMLESS: Final = frozenset({"citation", "inline"})
"""What markers in text do that does not end it."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a prompt ends."""

    frame: FrameKind = "content"
    may_reason: bool = True
    """Whether reasoning may begin there: the prompt has not closed it."""


@dataclass(frozen=True, slots=True)
class Section:
    """Calls in their frame: a marker, and what follows it."""

    opener: str
    rest: str


class FrameWriter:
    """Writes outputs of a format that does not frame its messages."""

    def __init__(self, format: Format, spelling: Spelling, lark: Lark) -> None:
        self._format = format
        self._spelling = spelling
        self._lark = lark
        self._frames = compile_format(format, NO_TOKENS).frames
        calls = format.calls
        before = () if calls is None else calls.item_open[:1]
        self._writer = CallWriter(lark, spelling, Layout(format.example), before)

    def required(self, start: Start, tools: Sequence[Tool], *, is_parallel: bool) -> str:
        """Reasoning, then calls and nothing else."""
        sections = self.sections(tools, is_parallel=is_parallel)
        found = [sequence(self._spelling.mark(each.opener), each.rest) for each in sections]
        bare = self.bare(tools, is_parallel=is_parallel)
        if bare:
            found.append(bare)
        return sequence(self.reasoning(start), self._lines, any_of(found))

    def auto(
        self, start: Start, tools: Sequence[Tool], content: str = "", *, is_parallel: bool
    ) -> str:
        """Reasoning, then text in which calls may begin, or content of a given form in its place.

        Raises:
            GrammarError: calls and content of that form cannot be told apart.
        """
        calls = self._format.calls
        assert calls is not None
        bare = self.bare(tools, is_parallel=is_parallel)
        if content:
            if bare:
                raise GrammarError("nothing tells a call from an answer of a given form")
            sections = self.sections(tools, is_parallel=is_parallel)
            called = [sequence(self._spelling.mark(each.opener), each.rest) for each in sections]
            answers = any_of([*called, self._wrapped(content)])
            return sequence(self.reasoning(start), self._lines, answers)
        body = self._text_and_calls(calls, tools, has_bare=bool(bare), is_parallel=is_parallel)
        if bare:
            body = any_of([sequence(optional("/\\n{1,2}/"), bare), body])
        return sequence(self.reasoning(start), body)

    def _text_and_calls(
        self, calls: Calls, tools: Sequence[Tool], *, has_bare: bool, is_parallel: bool
    ) -> str:
        spelling, lark = self._spelling, self._lark
        text = self._text(tools, has_bare=has_bare)
        excluded = self.markers("content")
        absorbed = self._absorbed()
        last = lark.terminal("CONTENT", f"{text} & {spelling.free(excluded)}")
        marked = spelling.until(lark, "CONTENT", absorbed, excluded, text) if absorbed else ""
        called = [
            sequence(spelling.until(lark, "CONTENT", [each.opener], excluded, text), each.rest)
            for each in self.sections(tools, is_parallel=is_parallel)
        ]
        if calls.after == "content" and is_parallel and not calls.at_start:
            parts = [each for each in (marked, *called) if each]
            return sequence(repeated(any_of(parts)), last)
        before = repeated(marked) if marked else ""
        return sequence(before, any_of([*called, last]))

    def answer(self, start: Start, content: str) -> str:
        """Reasoning, then content of a given form."""
        reasoning, content = self.reasoning(start), self._wrapped(content)
        return sequence(reasoning, self._lines, content) if reasoning else content

    def _wrapped(self, content: str) -> str:
        """Content, perhaps between markers that mean nothing."""
        absorbed = self._absorbed()
        if not absorbed:
            return content
        marks = self._spelling.one_of(absorbed)
        before = optional(sequence(marks, self._lines))
        return sequence(before, content, optional(sequence(self._lines, marks)))

    def reasoning(self, start: Start) -> str:
        """Reasoning up to its end, where there may be some."""
        reasoning = self._format.reasoning
        if reasoning is None or not reasoning.close:
            return ""
        if start.frame != "reasoning" and not (start.may_reason and reasoning.open):
            return ""
        excluded = set(self.markers("reasoning")) - set(reasoning.close)
        closes = fences(reasoning)
        excluded |= set(reasoning.close) - set(closes)
        text = self._spelling.until(self._lark, "REASONING", closes, excluded)
        if start.frame == "reasoning":
            return text
        return optional(sequence(self._spelling.one_of(reasoning.open), text))

    def sections(self, tools: Sequence[Tool], *, is_parallel: bool) -> list[Section]:
        """Calls in their frame, in each way in which it is written."""
        calls, space = self._format.calls, self._writer.space
        assert calls is not None
        if not calls.open and not calls.item_open:
            lead = self._writer.lead(calls.syntax)
            rest = self._writer.calls(calls.syntax, tools, is_parallel=is_parallel, is_opened=True)
            return [Section(lead, rest)] if lead else []
        rest, openers = self._items(calls, tools, is_parallel=is_parallel)
        if not calls.open:
            return [Section(each, rest) for each in openers]
        if openers:
            rest = sequence(self._spelling.one_of(openers), rest)
        inner = self._lark.rule("inner", sequence(space, rest, space))
        if len(calls.open) == len(calls.close):
            pairs = zip(calls.open, calls.close, strict=True)
            return [Section(o, sequence(inner, self._spelling.last([c]))) for o, c in pairs]
        end = optional(self._spelling.one_of(calls.close)) if calls.close else ""
        return [Section(each, sequence(inner, end)) for each in calls.open]

    def _items(
        self, calls: Calls, tools: Sequence[Tool], *, is_parallel: bool
    ) -> tuple[str, tuple[str, ...]]:
        """Calls, each in the frame of its own, without the first marker; the first markers."""
        layout, space = self._writer.layout, self._writer.space
        inner = self._writer.calls(calls.syntax, tools, is_parallel=is_parallel)
        if not calls.item_open:
            return inner, ()
        prefix = getattr(calls.syntax, "prefix", ())
        openers = [each for each in calls.item_open if each not in prefix] or calls.item_open
        shown = sorted(filter(layout.shows, calls.item_close), key=layout.example.find)
        closes = [self._spelling.last([each]) for each in shown]
        if calls.item_close and not shown:
            closes = [optional(self._spelling.mark(calls.item_close[0]))]
        item = self._lark.rule("item", sequence(space, inner, space if closes else "", *closes))
        if not is_parallel:
            return item, tuple(openers)
        others = sequence(space, self._spelling.one_of(openers), item)
        return sequence(item, repeated(others)), tuple(openers)

    def bare(self, tools: Sequence[Tool], *, is_parallel: bool) -> str:
        """Calls without a frame, if that is how the family writes them; else empty."""
        calls = self._format.calls
        assert calls is not None
        if not calls.at_start or any(map(self._writer.layout.shows, calls.open)):
            return ""
        return self._writer.calls(calls.syntax, tools, is_parallel=is_parallel)

    @property
    def _lines(self) -> str:
        return optional(self._lark.terminal("LINES", "/\\n{1,2}/"))

    def markers(self, kind: FrameKind) -> tuple[str, ...]:
        """The markers that mean something in a frame."""
        actions = self._frames[kind].actions
        bare = () if self._format.calls is None else self._format.calls.bare
        return tuple(
            each for each in actions if actions[each] not in _HARMLESS and each not in bare
        )

    def _absorbed(self) -> tuple[str, ...]:
        """Markers around an answer, which mean nothing."""
        reasoning = self._format.reasoning
        extra = () if reasoning is None else reasoning.close[len(fences(reasoning)) :]
        return (*self._format.absorbed, *extra)

    def _text(self, tools: Sequence[Tool], *, has_bare: bool) -> str:
        """The regular expression of text that cannot be taken for calls without a marker."""
        calls = self._format.calls
        assert calls is not None
        if not (calls.at_start or calls.bare):
            return ANY
        parts = []
        shape = bare_shape(calls.syntax, tools)
        if calls.at_start:
            parts.append(regex(rf"\s*{shape}(?s:.*)"))
        if has_bare and "[" in calls.at_start:
            # The first character tells them apart.
            parts.append(regex(r"\s*\[(?s:.*)"))
        for marker in calls.bare:
            after = regex(rf"\s*{shape}(?s:.*)")
            parts.append(f"({ANY} {literal(marker)} {after})")
        return " & ".join([ANY, *(f"~{each}" for each in parts)])


def fences(reasoning: Reasoning) -> tuple[str, ...]:
    """The markers that end reasoning; one without an opener is an answer's."""
    return reasoning.close[: max(len(reasoning.open), 1)]


def bare_shape(syntax: CallSyntax, tools: Sequence[Tool]) -> str:
    """With what a call begins that no marker announces, as a regular expression."""
    names = "|".join(re.escape(each.name) for each in tools)
    if isinstance(syntax, PythonCalls):
        return rf"\[?\s*({names})\("
    item = syntax.item if isinstance(syntax, JsonArray) else syntax
    assert isinstance(item, JsonCall)
    keys = "|".join((*item.name, *item.arguments, *item.id, "type"))
    start = r"\[[\s,]*" if isinstance(syntax, JsonArray) else ""
    return rf'{start}\{{[\s,}}]*"({keys})"'
