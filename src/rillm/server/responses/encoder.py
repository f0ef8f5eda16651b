"""Stream events of one choice to the events of a response.

The whole answer is the last state of the same encoder, so it cannot differ from the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rillm.chat_logprobs import TokenVocabulary, chat_logprobs
from rillm.formats.events import (
    ContentDelta,
    Finish,
    ReasoningDelta,
    StreamEvent,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from rillm.outputs import LogprobsDict
from rillm.server.errors import ErrorBody
from rillm.server.responses import events
from rillm.server.responses.answer import SERVER_ERROR, ResponseAnswer, Status
from rillm.server.responses.events import EventWriter
from rillm.server.responses.items import Item, item_id
from rillm.server.responses.output import (
    ItemStatus,
    OpenCall,
    OpenCustomCall,
    OpenText,
)
from rillm.streams import ChoiceDelta, EventStream

_LAST: dict[Status, str] = {
    "completed": events.COMPLETED,
    "incomplete": events.INCOMPLETE,
    "cancelled": events.INCOMPLETE,
    "failed": events.FAILED,
}
_CUT = {"length": "max_output_tokens"}
"""Finish reasons by what the protocol calls them; it has no name for others."""


class ResponseEncoder:
    """Encodes one response: `encode` for each list of deltas, then `end`, `cancel` or `fail`.

    Attributes:
        response: the response object as it is now.
    """

    plain = None

    def __init__(
        self, answer: ResponseAnswer, stream: EventStream, vocabulary: TokenVocabulary
    ) -> None:
        """Begin; nothing is written yet.

        Args:
            answer: what is constant.
            stream: the stream whose deltas will be encoded; it counts the tokens.
            vocabulary: names tokens in logprobs.
        """
        self.response: dict[str, Any] = answer.object("queued", [])
        self._answer = answer
        self._stream = stream
        self._vocabulary = vocabulary
        self._top_logprobs = answer.request.top_logprobs or 0
        self._has_logprobs = answer.request.has_logprobs
        self._writer = EventWriter()
        self._output: list[Item] = []
        self._item: OpenText | OpenCall | OpenCustomCall | None = None
        self._untold: list[LogprobsDict] = []
        """Of tokens whose text has not come yet."""
        self._reason = "abort"
        self._is_created = self._is_begun = False

    def queue(self) -> list[bytes]:
        """Encode that the response waits; in the background only, before anything else."""
        self._is_created = True
        self._writer.write(events.CREATED, response=self.response)
        self._writer.write(events.QUEUED, response=self.response)
        return self._writer.take()

    def encode(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        """Encode what one engine output changed; empty when no text is certain yet."""
        return b"".join(self.events(deltas))

    def events(self, deltas: Sequence[ChoiceDelta]) -> list[bytes]:
        """As `encode`, event by event."""
        if not self._is_begun:
            self._begin()
        for delta in deltas:
            if self._has_logprobs and delta.logprobs is not None:
                self._untold += delta.logprobs
            for event in delta.events:
                self._add(event)
        return self._writer.take()

    def end(self) -> bytes:
        """Encode the last event of a stream that was read to its end."""
        return b"".join(self.finish())

    def finish(self) -> list[bytes]:
        """As `end`, event by event."""
        if self._reason == "abort":
            return self.cancel()
        if self._reason in ("stop", "tool_calls"):
            return self._last("completed")
        return self._last("incomplete", reason=_CUT.get(self._reason))

    def cancel(self) -> list[bytes]:
        """Encode the end of a response that somebody has ended."""
        return self._last("cancelled")

    def fail(self, body: ErrorBody) -> bytes:
        """Encode the end of a response that failed."""
        return b"".join(self.failure(body))

    def failure(self, body: ErrorBody) -> list[bytes]:
        """As `fail`, event by event."""
        detail = body.error
        code = SERVER_ERROR if detail.code >= 500 else "invalid_prompt"
        code = "rate_limit_exceeded" if detail.code == 429 else code
        return self._last("failed", error={"code": code, "message": detail.message})

    def _begin(self) -> None:
        self._is_begun = True
        self.response = self._answer.object("in_progress", self._output)
        if not self._is_created:
            self._is_created = True
            self._writer.write(events.CREATED, response=self.response)
        self._writer.write(events.IN_PROGRESS, response=self.response)

    def _add(self, event: StreamEvent) -> None:
        match event:
            case ContentDelta(text):
                self._text(is_reasoning=False).add(self._writer, text, self._logprobs())
            case ReasoningDelta(text):
                self._untold.clear()
                self._text(is_reasoning=True).add(self._writer, text)
            case ToolCallBegin(_, call_id, name):
                self._untold.clear()
                self._close("completed")
                is_custom = name in self._answer.custom_tools
                kind = "custom_tool_call" if is_custom else "function_call"
                opened = OpenCustomCall if is_custom else OpenCall
                self._item = opened(
                    self._writer, self._new_id(kind), len(self._output), call_id, name
                )
            case ToolCallArguments(_, fragment):
                assert isinstance(self._item, OpenCall | OpenCustomCall)
                self._item.add(self._writer, fragment)
            case ToolCallEnd():
                self._close("completed")
            case Finish(reason):
                self._reason = reason
                is_call = isinstance(self._item, OpenCall | OpenCustomCall)
                is_cut = is_call or reason not in ("stop", "tool_calls")
                self._close("incomplete" if is_cut else "completed")

    def _text(self, *, is_reasoning: bool) -> OpenText:
        """The open item of text of this kind, a new one if need be."""
        item = self._item
        if isinstance(item, OpenText) and item.is_reasoning == is_reasoning:
            return item
        self._close("completed")
        item = OpenText(
            self._writer,
            self._new_id("reasoning" if is_reasoning else "message"),
            len(self._output),
            is_reasoning=is_reasoning,
            is_sealed=is_reasoning and self._answer.is_sealed,
            has_logprobs=self._has_logprobs,
        )
        self._item = item
        return item

    def _logprobs(self) -> list[dict[str, Any]]:
        """The logprobs of the tokens whose text comes now."""
        if not self._untold:
            return []
        untold, self._untold = self._untold, []
        entries = chat_logprobs(untold, self._top_logprobs, self._vocabulary)
        content: list[dict[str, Any]] = entries["content"]
        return content

    def _close(self, status: ItemStatus) -> None:
        if self._item is not None:
            self._output.append(self._item.close(self._writer, status))
            self._item = None

    def _last(
        self,
        status: Status,
        *,
        reason: str | None = None,
        error: dict[str, Any] | None = None,
    ) -> list[bytes]:
        if not self._is_begun:
            self._begin()
        self._close("incomplete")
        self.response = self._answer.object(
            status,
            self._output,
            usage=self._stream.usage(),
            error=error,
            incomplete_reason=reason,
        )
        self._writer.write(_LAST[status], response=self.response)
        return self._writer.take()

    def _new_id(self, kind: str) -> str:
        return item_id(self._answer.id, kind, f"o{len(self._output)}")
