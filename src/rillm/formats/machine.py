"""The one machine: text in, stream events out, for every format.

A machine is one choice's parser. It never looks back: what it has emitted stands, and it holds
back only what may still be markup.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rillm.formats.call_section import CallSection
from rillm.formats.compiled import Frame, FrameKind, compile_format
from rillm.formats.description import Format, Route
from rillm.formats.events import ContentDelta, ReasoningDelta, StreamEvent
from rillm.formats.sink import NewId, Sink, TextRun, random_id
from rillm.formats.source import Emit, Markers, Source, Steps
from rillm.formats.syntax.base import Context, Schema
from rillm.formats.syntax.header import pass_arguments
from rillm.formats.tokens import NO_TOKENS, TokenMarkers

_log = logging.getLogger(__name__)

ToolChoice = Literal["auto", "none"]
_NINE: Final = 9


class Machine:
    """Parses one choice.

    Attributes:
        faults: how often a parser failed; the text flows as content from there on.
    """

    def __init__(
        self,
        format: Format,
        tools: Iterable[Mapping[str, Any]] = (),
        *,
        tokens: TokenMarkers = NO_TOKENS,
        start: Literal["content", "reasoning"] | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        new_id: NewId | None = None,
    ) -> None:
        """Start a choice.

        Args:
            format: what the model writes.
            tools: the functions offered, as the chat completions protocol has them; empty where
                nothing is known of them.
            tokens: markers that are tokens. Text then has their stand-ins in their place.
            start: where the output begins; None for where the format says.
            tool_choice: `none` parses calls and drops them.
            parallel_tool_calls: whether there may be several calls; later ones are dropped if not.
            new_id: makes ids of calls; random ones by default.
        """
        self._format = compile_format(format, tokens)
        calls = format.calls
        alphabet = calls.id_alphabet if calls is not None else ""
        reasoning = format.reasoning
        self._source = Source()
        self._sink = Sink(
            space=calls.space if calls is not None else "trim" if format.absorbed else "keep",
            reasoning_space=reasoning.space if reasoning is not None else "\n",
            new_id=new_id or (_short_id(alphabet) if alphabet else random_id),
            is_muted=tool_choice == "none",
            is_parallel=parallel_tool_calls,
            shown=tokens.shown,
            hidden=tokens.hidden,
        )
        self._context = Context(self._source, self._sink, _functions(tools))
        self._section: CallSection | None = None
        if self._format.calls is not None:
            self._section = CallSection(self._format.calls, self._context)
        self._kind: FrameKind = self._format.start(start)
        self._header_text = ""
        self._is_between = False
        self._shown_open = reasoning.shown_open if reasoning is not None else ""
        self.faults = 0
        self._shortcut: _Shortcut | None = None
        frames, source, sink = self._format.frames, self._source, self._sink
        self._shortcuts: dict[FrameKind, _Shortcut] = {
            "content": _Shortcut(
                frames["content"].special.search, source, sink.content_run, ContentDelta
            ),
            "reasoning": _Shortcut(
                frames["reasoning"].special.search, source, sink.reasoning_run, ReasoningDelta
            ),
        }
        self._steps = self._run()
        next(self._steps)

    @property
    def place(self) -> FrameKind:
        """Which part of an output the text so far ends in."""
        return self._kind

    @property
    def steady_place(self) -> FrameKind | None:
        """As `place`, where what comes next depends on nothing else; otherwise None."""
        # Nothing is held back where a character would flow that no format gives a meaning.
        return self._kind if self._shortcut is not None and self._shortcut.takes("\0") else None

    @property
    def is_reasoning(self) -> bool:
        """Whether the output stands inside reasoning."""
        return self._sink.is_reasoning

    def feed(self, text: str, token_ids: Sequence[int] = ()) -> list[StreamEvent]:
        """Add text.

        Args:
            text: of any length.
            token_ids: its tokens, which say nothing more: those that matter have stand-ins.

        Returns:
            The events that have become certain.
        """
        if not text:
            return self._sink.take()
        shortcut = self._shortcut
        if shortcut is not None and shortcut.takes(text):
            return [shortcut.event(text)]
        if self._shown_open:
            self._sink.content(self._shown_open)
            self._shown_open = ""
        self._source.push(text)
        self._advance()
        return self._sink.take()

    def finish(self, *, is_cut: bool = False) -> list[StreamEvent]:
        """End the text.

        Args:
            is_cut: whether the end was forced on the model, by a limit of length for one. A call
                that lacks its end is not complete then.

        Returns:
            The last events, with everything that was held back.
        """
        self._source.push("")
        self._source.ended = True
        self._source.is_cut = is_cut
        self._advance()
        return self._sink.take()

    def skip_prompt(self, text: str) -> None:
        """Start where the prompt ends.

        Args:
            text: the end of the prompt, from its last turn on; what it means is not emitted, but
                an open fence or header in it stays open.
        """
        shown_open, self._shown_open = self._shown_open, ""
        self.feed(text)
        self._sink.forget()
        self._shown_open = shown_open
        if self._is_between:
            # What counts at the start of an answer counts after the prompt.
            self._source.drop_raw()
            self._steps = self._run()
            next(self._steps)

    def _advance(self) -> None:
        try:
            next(self._steps)
        except StopIteration:
            pass
        except Exception:  # noqa: BLE001
            self.faults += 1
            self._shortcut = None
            _log.exception("a parser failed; the rest of the text is content")
            self._sink.raw(self._source.drop_raw())
            self._steps = self._pass_through()
            self._advance()

    def _pass_through(self) -> Steps[None]:
        source, sink = self._source, self._sink
        sink.cut()
        while True:
            if source.position < len(source.text):
                sink.raw(source.take(len(source.text)))
            if source.ended:
                sink.end()
                return
            yield

    def _run(self) -> Steps[None]:
        source, sink = self._source, self._sink
        emits = {
            "content": sink.content,
            "tools": sink.content,
            "reasoning": sink.reasoning,
            "drop": sink.drop,
        }
        self._enter(self._kind)
        yield
        if self._format.opening is not None and self._kind in ("content", "reasoning"):
            yield from self._opening(self._format.opening, emits[self._kind])
        while True:
            frame = self._format.frames[self._kind]
            is_bare = frame.at_start and sink.is_at_start
            if is_bare and (yield from self._bare_calls(frame)):
                self._enter(self._kind_after_calls())
                continue
            if self._kind == "header":
                marker = yield from self._header(frame)
            else:
                self._is_between = True
                self._shortcut = self._shortcuts.get(self._kind)
                marker = yield from source.until(frame.markers, emits[self._kind])
                self._shortcut = None
                self._is_between = False
            if marker is None:
                sink.end()
                return
            yield from self._act(frame, marker)

    def _enter(self, kind: FrameKind) -> None:
        self._kind = kind
        if kind == "reasoning":
            self._sink.open_reasoning()
        elif self._sink.is_reasoning:
            self._sink.close_reasoning()

    def _act(self, frame: Frame, marker: str) -> Steps[None]:
        """Do what a marker asks for."""
        match frame.actions[marker]:
            case "calls":
                assert self._section is not None
                if (yield from self._section.read(marker)):
                    self._enter(self._kind_after_calls())
                elif self._kind == "header":
                    self._enter("content")
            case "citation":
                yield from self._citation(marker)
            case "inline":
                yield from self._inline_header(marker)
            case "message":
                yield from self._message(self._header_text)
            case "absorb":
                self._sink.absorb()
            case action:
                self._enter(action)

    def _skip_lead(self) -> Steps[str]:
        """Skip whitespace at the start of an answer; a prompt may end in the middle of it."""
        self._is_between = True
        first = yield from self._source.skip_space()
        self._is_between = False
        return first

    def _opening(self, opening: Markers, emit: Emit) -> Steps[None]:
        """Look for the fence that opens reasoning at the start only."""
        self._source.keep_raw()
        yield from self._skip_lead()
        found = yield from self._source.accept(opening)
        raw = self._source.drop_raw()
        if found is not None:
            self._enter("reasoning")
        elif raw:
            emit(raw)

    def _citation(self, marker: str) -> Steps[None]:
        """Leave out a tag, if it is one."""
        self._source.keep_raw(marker)
        yield from self._source.run(_CITED, self._sink.drop)
        found = yield from self._source.accept(_TAG_END)
        raw = self._source.drop_raw()
        if found is None:
            self._sink.raw(raw)

    # Headers

    def _header(self, frame: Frame) -> Steps[str | None]:
        """Read a header; returns the marker that ends it."""
        source, sink = self._source, self._sink
        source.keep_raw()
        self._header_text, marker = yield from source.collect(frame.markers)
        raw = source.drop_raw()
        if marker is None and not source.is_cut:
            sink.raw(raw)
        return marker

    def _inline_header(self, marker: str) -> Steps[None]:
        """Read a header in the middle of a message: one word, then the end of the header."""
        source, format = self._source, self._format
        source.keep_raw(marker)
        word, _ = yield from source.word(_WORD)
        found = yield from source.accept(format.header_end)
        raw = source.drop_raw()
        if found is None:
            self._sink.raw(raw)
        else:
            yield from self._message(marker + word)

    def _message(self, header: str) -> Steps[None]:
        """Go where a header sends its message."""
        assert self._format.header is not None
        read = self._format.header.route
        route = Route("content") if read is None else read(self._sink.spell(header))
        if route.kind != "call":
            self._enter(route.kind)
            return
        self._enter("drop")
        self._sink.begin(route.name)
        yield from pass_arguments(self._context, self._format.message_stops)

    # Calls

    def _kind_after_calls(self) -> FrameKind:
        calls = self._format.format.calls
        assert calls is not None
        if self._kind == "tools":
            return "tools"
        if self._format.header is not None:
            return "header"
        return "drop" if calls.after == "drop" else "content"

    def _bare_calls(self, frame: Frame) -> Steps[bool]:
        """Try to read calls that no marker announces; returns whether there were any."""
        calls, source = self._format.calls, self._source
        assert calls is not None
        source.keep_raw()
        num_calls: int | None = None
        first = yield from self._skip_lead()
        if first and first in frame.at_start:
            marker = yield from source.accept(frame.markers)
            if marker is not None:
                source.give_back(marker)
            else:
                num_calls = yield from calls.parser.parse(self._context, "", True)
        raw = source.drop_raw()
        if num_calls is None:
            self._sink.content(raw)
            return False
        self._sink.cut()
        return True


@dataclass(frozen=True, slots=True)
class _Shortcut:
    """Where text flows between markers: text without any goes past the parsers."""

    special: Callable[[str], object]
    """Finds a character with which a marker can begin."""
    source: Source
    run: TextRun
    event: type[ContentDelta] | type[ReasoningDelta]

    def takes(self, text: str) -> bool:
        """Whether `text` is one event and changes nothing."""
        if self.source.position < len(self.source.text):
            return False
        return self.special(text) is None and self.run.flows(text)


_CITED: Final = re.compile(r"[\d:,\[\] ]+")
_TAG_END: Final = Markers((">",))
_WORD: Final = re.compile(r"[\w.:-]+")


def _functions(tools: Iterable[Mapping[str, Any]]) -> dict[str, Schema]:
    """Names of the functions to the schemas of their arguments."""
    functions: dict[str, Schema] = {}
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            schema = function.get("parameters")
            functions[function["name"]] = schema if isinstance(schema, Mapping) else {}
    return functions


def _short_id(alphabet: str) -> NewId:
    return lambda index, name: "".join(secrets.choice(alphabet) for _ in range(_NINE))
