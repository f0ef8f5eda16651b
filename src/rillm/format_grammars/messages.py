"""Outputs of formats that frame every message: a header says what each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rillm.format_grammars.calls import CallWriter, Tool
from rillm.format_grammars.frames import FrameWriter, Start, fences
from rillm.format_grammars.headers import AUTHOR, HEADERS
from rillm.format_grammars.lark import GrammarError, Lark, any_of, optional, repeated, sequence
from rillm.format_grammars.layout import Layout
from rillm.format_grammars.spelling import Spelling
from rillm.formats.description import Format, Header

_OPEN: Final = frozenset({"content", "drop"})
"""Places inside of a message."""


class MessageWriter:
    """Writes such outputs."""

    def __init__(self, format: Format, spelling: Spelling, lark: Lark) -> None:
        assert format.header is not None
        self._format = format
        self._header: Header = format.header
        self._spelling = spelling
        self._lark = lark
        route = self._header.route
        self._headers = None if route is None else HEADERS[route]
        self._inner = FrameWriter(format, spelling, lark)
        self._writer = CallWriter(lark, spelling, Layout(format.example))
        self._markers = (
            *self._inner.markers("content"),
            *self._inner.markers("reasoning"),
            *self._header.parts,
        )

    def required(self, start: Start, tools: Sequence[Tool], *, is_parallel: bool) -> str:
        """A message of reasoning, then calls and nothing else."""
        return self._in_order(start, self._calls(tools, is_parallel=is_parallel))

    def auto(
        self, start: Start, tools: Sequence[Tool], content: str = "", *, is_parallel: bool
    ) -> str:
        """As above, or the answer; calls may follow an answer of no given form."""
        calls = self._calls(tools, is_parallel=is_parallel)
        if content:
            if start.frame in _OPEN:
                return self.answer(start, content)
            answer = sequence(self._opener("content"), content, self._answer_end)
            return self._in_order(start, any_of([calls, answer]))
        ends = self._header.message_end
        text = self._spelling.until(self._lark, "CONTENT", ends, self._markers)
        rest = optional(sequence(self._next, calls))
        if start.frame in _OPEN:
            return any_of([sequence(text, rest), self._last_text()])
        opened = self._opener("content")
        answer = any_of([sequence(opened, text, rest), sequence(opened, self._last_text())])
        return self._in_order(start, any_of([calls, answer]))

    def answer(self, start: Start, content: str) -> str:
        """A message of reasoning, then one with content of a given form."""
        content = sequence(content, self._answer_end)
        if start.frame in _OPEN:
            return content
        return self._in_order(start, sequence(self._opener("content"), content))

    @property
    def _answer_end(self) -> str:
        return optional(self._spelling.one_of(self._header.message_end))

    def _in_order(self, start: Start, rest: str) -> str:
        """Reasoning, as far as there is to be some, and what comes after it."""
        reasoning = self._format.reasoning
        ends = self._header.message_end if reasoning is None else fences(reasoning)
        text = self._spelling.until(self._lark, "REASONING", ends, self._markers)
        if start.frame == "reasoning":
            return sequence(text, self._next, rest)
        if start.frame != "header":
            return sequence(self._spelling.one_of(self._header.message_end), self._next, rest)
        if not start.may_reason:
            return rest
        return sequence(optional(sequence(self._opener("reasoning"), text, self._next)), rest)

    def _opener(self, kind: str) -> str:
        """The header of a message of a kind, and the marker after it."""
        mark, header = self._spelling.mark, self._header
        if self._headers is None:
            reasoning = self._format.reasoning
            assert reasoning is not None
            return mark(reasoning.open[0] if kind == "reasoning" else header.end[0])
        return mark(getattr(self._headers, kind) + header.end[0])

    @property
    def _next(self) -> str:
        """What begins another message."""
        author = "" if self._headers is None else AUTHOR
        return self._spelling.mark(self._header.open[0] + author)

    def _last_text(self) -> str:
        return self._lark.terminal("CONTENT", self._spelling.free(self._markers))

    def _calls(self, tools: Sequence[Tool], *, is_parallel: bool) -> str:
        """Messages with calls."""
        call = self._lark.rule("message", self._message(tools, is_parallel=is_parallel))
        ends = self._writer.layout.shown(self._header.message_end)
        is_framed = self._headers is not None
        last = self._spelling.last(ends) if is_framed else ""
        if not is_parallel:
            return sequence(call, last)
        end = self._spelling.one_of(ends) if is_framed else ""
        return sequence(call, repeated(sequence(end, self._next, call)), last)

    def _message(self, tools: Sequence[Tool], *, is_parallel: bool) -> str:
        """One message with calls, but for what ends it."""
        mark, header, headers = self._spelling.mark, self._header, self._headers
        if headers is None or header.route is None:
            return self._section(tools, is_parallel=False)
        if header.route(headers.calls[0].format(name="f")).kind == "call":
            return any_of(self._call(each) for each in tools)
        named = [each.format(name=tool.name) for each in headers.calls for tool in tools]
        return sequence(
            any_of(map(mark, named)),
            mark(header.end[0]),
            self._section(tools, is_parallel=is_parallel),
        )

    def _call(self, tool: Tool) -> str:
        """A message that is the arguments of one function."""
        mark, header, headers = self._spelling.mark, self._header, self._headers
        assert headers is not None
        assert header.route is not None
        named = [each.format(name=tool.name) for each in headers.calls]
        if any(header.route(each).name != tool.name for each in named):
            raise GrammarError(f"{tool.name!r} cannot be a function's name in this model's format")
        marks = any_of(mark(each + header.end[0]) for each in headers.json_mark)
        return sequence(any_of(map(mark, named)), marks, self._writer.json_arguments(tool))

    def _section(self, tools: Sequence[Tool], *, is_parallel: bool) -> str:
        sections = self._inner.sections(tools, is_parallel=is_parallel)
        return any_of(sequence(self._spelling.mark(each.opener), each.rest) for each in sections)
