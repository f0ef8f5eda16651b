"""Stream events to Replies.

Content stands in `message` and in a `ChatDelta`, each piece once; reasoning and tool calls in
`ChatDelta`s only. Every Reply has the counts so far; the last one has nothing else but times and
logprobs. No Reply repeats what an earlier one said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

import msgspec

from rillm.chat_logprobs import TokenVocabulary, chat_logprobs
from rillm.formats.events import (
    ContentDelta,
    ReasoningDelta,
    StreamEvent,
    ToolCallArguments,
    ToolCallBegin,
)
from rillm.localai.backend_pb2 import ChatDelta, Reply, ToolCallDelta
from rillm.outputs import LogprobsDict
from rillm.streams import ChoiceDelta, EventStream

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_MS: Final = 1000.0


class ReplyEncoder:
    """Makes the Replies of one answer."""

    def __init__(
        self,
        stream: EventStream,
        vocabulary: TokenVocabulary,
        *,
        has_message: bool,
        top_logprobs: int | None,
    ) -> None:
        """Start an answer.

        Args:
            stream: of one choice; tells the counts.
            vocabulary: the model's tokenizer.
            has_message: whether content stands in `message` as well.
            top_logprobs: alternatives to list for each token; None: no logprobs.
        """
        self._stream = stream
        self._vocabulary = vocabulary
        self._has_message = has_message
        self._top_logprobs = top_logprobs
        self._logprobs: list[LogprobsDict] = []

    def encode(self, deltas: Sequence[ChoiceDelta]) -> Reply | None:
        """Encode what one engine output changed; None where that says nothing."""
        reply = self._reply(deltas)
        return reply if reply.chat_deltas else None

    def end(self, deltas: Sequence[ChoiceDelta] = ()) -> Reply:
        """The last Reply.

        Args:
            deltas: what was not encoded before; all of an answer that is not streamed.
        """
        reply = self._reply(deltas)
        metrics = self._stream.metrics[0]
        if metrics is not None:
            first_s = metrics.first_token_ts
            reply.timing_prompt_processing = (first_s - metrics.scheduled_ts) * _MS
            reply.timing_token_generation = (metrics.last_token_ts - first_s) * _MS
        if self._top_logprobs is not None:
            listed = chat_logprobs(
                self._logprobs, self._top_logprobs, self._vocabulary, with_ids=True
            )
            reply.logprobs = msgspec.json.encode(listed)
        return reply

    def _reply(self, deltas: Sequence[ChoiceDelta]) -> Reply:
        for delta in deltas:
            self._logprobs.extend(delta.logprobs or ())
        chat_deltas = _chat_deltas(event for delta in deltas for event in delta.events)
        content = "".join(each.content for each in chat_deltas) if self._has_message else ""
        usage = self._stream.usage()
        return Reply(
            message=content.encode(),
            chat_deltas=chat_deltas,
            tokens=usage.completion_tokens,
            prompt_tokens=usage.prompt_tokens,
        )


_KINDS: Final = {
    ContentDelta: "content",
    ReasoningDelta: "reasoning",
    ToolCallBegin: "call",
    ToolCallArguments: "call",
}


def _chat_deltas(events: Iterable[StreamEvent]) -> list[ChatDelta]:
    """One delta for each run of events of a kind, so that their order is kept.

    None has both content and calls.
    """
    told = (event for event in events if type(event) in _KINDS)
    return [_chat_delta(list(run)) for _, run in groupby(told, lambda event: _KINDS[type(event)])]


def _chat_delta(run: list[StreamEvent]) -> ChatDelta:
    content: list[str] = []
    reasoning: list[str] = []
    calls: dict[int, ToolCallDelta] = {}
    arguments: dict[int, list[str]] = {}
    for event in run:
        match event:
            case ContentDelta(text):
                # LocalAI takes this character for half of one, and waits for the rest for ever.
                content.append(text.replace(_REPLACEMENT, "?"))
            case ReasoningDelta(text):
                reasoning.append(text)
            case ToolCallBegin(index, id, name):
                calls[index] = ToolCallDelta(index=index, id=id, name=name)
            case ToolCallArguments(index, fragment):
                calls.setdefault(index, ToolCallDelta(index=index))
                arguments.setdefault(index, []).append(fragment)
    for index, fragments in arguments.items():
        calls[index].arguments = "".join(fragments)
    return ChatDelta(
        content="".join(content), reasoning_content="".join(reasoning), tool_calls=calls.values()
    )
