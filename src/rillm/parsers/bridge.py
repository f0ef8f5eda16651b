"""Runs a tool parser written for vLLM's interface, and makes stream events of what it says."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

from rillm.formats.events import ContentDelta, ReasoningDelta, StreamEvent
from rillm.formats.machine import Machine, ToolChoice
from rillm.formats.sink import NewId, random_id
from rillm.parsers.writer import Writer, as_json

_log = logging.getLogger(__name__)


class ParserBridge:
    """Parses one choice with a vLLM-style tool parser; interchangeable with `Machine`.

    Every delta goes to the parser's streaming method. Where it has none, or fails before it has
    said anything, the text is buffered; where it fails later, the rest of the text is content.
    At the end the whole text is parsed once more, unless the stream failed in the middle, and
    what the stream has not said of it is added.

    Attributes:
        faults: how often the parser failed.
    """

    def __init__(
        self,
        new_parser: Callable[[], Any],
        request: Any,
        *,
        reasoning: Machine | None = None,
        decode: Callable[[list[int]], str] | None = None,
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = True,
        new_id: NewId = random_id,
    ) -> None:
        """Start a choice.

        Args:
            new_parser: makes a parser; once for the stream, once for the whole text.
            request: what the parser's methods get for a request.
            reasoning: a machine of a format without calls; its content goes to the parser.
            decode: token ids to text, to tell the tokens of reasoning from those of content.
            tool_choice: `none` parses calls and drops them.
            parallel_tool_calls: whether there may be several calls; later ones are dropped if not.
            new_id: makes ids of calls to which the parser gives none.
        """
        self.faults = 0
        self._new_parser = new_parser
        self._request = request
        self._reasoning = reasoning
        self._decode = decode
        self._writer = Writer(
            new_id, is_muted=tool_choice == "none", is_parallel=parallel_tool_calls
        )
        self._mode: Literal["stream", "buffer", "content"] = "buffer"
        self._parser: Any = None
        self._text = ""
        self._token_ids: list[int] = []
        self._waiting_ids: list[int] = []
        self._is_mixed = False
        self._buffer: list[str] = []
        try:
            self._parser = new_parser()
        except Exception as error:  # noqa: BLE001
            self._fault(error)
        if callable(getattr(self._parser, "extract_tool_calls_streaming", None)):
            self._mode = "stream"

    @property
    def steady_place(self) -> None:
        """Unknown: the parsers are somebody else's."""
        return None

    @property
    def is_reasoning(self) -> bool:
        """Whether the output stands inside reasoning."""
        return self._reasoning is not None and self._reasoning.is_reasoning

    def feed(self, text: str, token_ids: Sequence[int] = ()) -> list[StreamEvent]:
        """Add a delta.

        Args:
            text: of any length; may be empty.
            token_ids: its tokens; where text was held back, it comes with later tokens.

        Returns:
            The events that have become certain.
        """
        if self._reasoning is None:
            self._add(text, list(token_ids))
        else:
            self._waiting_ids += token_ids
            was_reasoning = self._reasoning.is_reasoning
            self._add_events(self._reasoning.feed(text), was_reasoning)
        return self._writer.take()

    def finish(self, *, is_cut: bool = False) -> list[StreamEvent]:
        """End the text.

        Args:
            is_cut: whether the end was forced on the model, by a limit of length for one.

        Returns:
            The last events, with everything that was held back.
        """
        if self._reasoning is not None:
            was_reasoning = self._reasoning.is_reasoning
            self._add_events(self._reasoning.finish(is_cut=is_cut), was_reasoning)
        if self._mode == "stream":
            self._end_stream()
        if self._mode != "content":
            self._add_whole(self._text + "".join(self._buffer), is_cut=is_cut)
        self._writer.end(is_cut=is_cut)
        return self._writer.take()

    def _add_events(self, events: list[StreamEvent], was_reasoning: bool) -> None:
        """Write reasoning, and pass content on with the tokens that it is made of."""
        assert self._reasoning is not None
        self._is_mixed |= was_reasoning
        for event in events:
            if isinstance(event, ReasoningDelta):
                self._is_mixed = True
                self._writer.reasoning(event.text)
        content = "".join(each.text for each in events if isinstance(each, ContentDelta))
        if content:
            token_ids, self._waiting_ids = self._waiting_ids, []
            if (self._is_mixed or self._reasoning.is_reasoning) and self._decode is not None:
                token_ids = _last_tokens(token_ids, content, self._decode)
            self._is_mixed = False
            self._add(content, token_ids)
        elif self._reasoning.is_reasoning:
            self._waiting_ids = []

    def _add(self, text: str, token_ids: list[int]) -> None:
        if self._mode == "content":
            self._writer.content(text)
        elif self._mode == "buffer":
            self._buffer.append(text)
        elif text or token_ids:
            self._stream(text, token_ids)

    def _stream(self, text: str, token_ids: list[int]) -> None:
        """Give a delta to the parser's streaming method."""
        before, ids_before = self._text, self._token_ids
        self._text = before + text
        self._token_ids = ids_before + token_ids
        try:
            self._writer.add(
                self._parser.extract_tool_calls_streaming(
                    *(before, self._text, text),
                    *(ids_before, self._token_ids, token_ids),
                    self._request,
                )
            )
        except Exception as error:  # noqa: BLE001
            # The base class says so where a plug-in has no streaming method of its own.
            if not isinstance(error, NotImplementedError) or self._writer.has_written:
                self._fault(error)
            self._leave_stream(text)

    def _leave_stream(self, text: str) -> None:
        """Go on without the parser's stream; `text` is the delta at which it failed."""
        if not self._writer.has_written:
            self._mode = "buffer"
            return
        self._mode = "content"
        self._writer.end_call(is_cut=True)
        if not self._writer.num_calls and self._text.startswith(self._writer.sent_content):
            # The content shows how much of the text the parser had kept back.
            text = self._text[len(self._writer.sent_content) :]
        self._writer.content(text)

    def _end_stream(self) -> None:
        """Let a parser that keeps text back give it."""
        finish = getattr(self._parser, "finish_streaming", None)
        if callable(finish):
            try:
                self._writer.add(finish())
            except Exception as error:  # noqa: BLE001
                self._fault(error)

    def _add_whole(self, text: str, *, is_cut: bool) -> None:
        """Parse the whole text, and write what has not been written."""
        if not text:
            return
        calls: list[tuple[str | None, str, str]] = []
        content = None
        try:
            found = self._new_parser().extract_tool_calls(text, self._request)
            if found.tools_called:
                functions = [(each.id, each.function) for each in found.tool_calls]
                calls = [(id, each.name, as_json(each.arguments)) for id, each in functions]
            content = found.content
        except Exception as error:  # noqa: BLE001
            self._fault(error)
        if not self._writer.num_calls:
            self._add_content(content or "", "" if calls else text)
        # A call that was cut off stays as it is: the parser may have completed its arguments.
        if not (is_cut and self._writer.num_calls):
            self._add_calls(calls)

    def _add_content(self, *candidates: str) -> None:
        """Write the rest of the first candidate of which the content so far is the beginning."""
        sent = self._writer.sent_content
        for text in candidates:
            if text and text.startswith(sent):
                self._writer.content(text[len(sent) :])
                return

    def _add_calls(self, calls: list[tuple[str | None, str, str]]) -> None:
        """Write the calls that follow those which were sent, if the two agree so far."""
        num_sent = self._writer.num_calls
        for position, (call_id, name, arguments) in enumerate(calls):
            if position >= num_sent:
                self._writer.new_call(call_id, name, arguments)
                continue
            sent_name, sent = self._writer.sent_call(position)
            is_last = position == num_sent - 1
            if sent_name == name and is_last and arguments.startswith(sent):
                self._writer.more_arguments(arguments[len(sent) :])
            elif sent_name != name or not _is_same_json(sent, arguments):
                return

    def _fault(self, error: Exception) -> None:
        self.faults += 1
        if self.faults == 1:
            _log.error("a tool parser plug-in failed", exc_info=error)


def _last_tokens(token_ids: list[int], text: str, decode: Callable[[list[int]], str]) -> list[int]:
    """The fewest tokens at the end that make up `text`."""
    for start in range(len(token_ids) - 1, -1, -1):
        if len(decode(token_ids[start:])) >= len(text):
            return token_ids[start:]
    return token_ids


def _is_same_json(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return False
