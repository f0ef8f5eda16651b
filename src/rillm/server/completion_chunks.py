"""Stream events to `text_completion` data, and whole choices to one `text_completion`.

Keys, their order and the explicit nulls are those of vLLM 0.33's Python server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from rillm.chat_logprobs import TokenVocabulary
from rillm.formats.events import ContentDelta, Finish
from rillm.outputs import LogprobsDict
from rillm.server.chunk_memo import PlainForm
from rillm.server.logprobs import CompletionLogprobs, prompt_logprobs_object
from rillm.server.sse import DONE
from rillm.server.usage import timing_object, usage_object
from rillm.streams import ChoiceDelta, ChoiceResult, EventStream

_encode = msgspec.json.encode

_TEXT_TAIL = (
    b',"logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,'
    b'"token_ids":null,"weight_versions":null}],"kv_transfer_params":null}\n\n'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionAnswer:
    """What is constant over one completions answer, streamed or not."""

    id: str
    created: int
    """Seconds since the epoch."""
    model: str
    system_fingerprint: str
    echo: Sequence[str] | None = None
    """The text of each prompt, to be repeated before its choices; None: not repeated."""
    has_logprobs: bool = False
    return_token_ids: bool = False
    tokens_as_ids: bool = False
    """Logprobs name tokens by their ids."""
    return_prompt_logprobs: bool = False
    has_metrics: bool = False
    """The end says how long things took."""
    include_usage: bool = False
    """A stream ends with a usage chunk."""
    continuous_usage: bool = False
    """Every chunk of a stream says the usage so far."""

    def echo_of(self, index: int, stream: EventStream) -> str:
        """What to repeat before choice `index`."""
        if self.echo is None:
            return ""
        return self.echo[stream.prompt_position(index)]

    def metrics(self, stream: EventStream) -> dict[str, Any]:
        """The `metrics` of a chunk that ends an answer: none at all where not asked for."""
        return {"metrics": timing_object(stream)} if self.has_metrics else {}


class _ChoiceText:
    """One choice's text and logprobs, the echoed prompt first."""

    def __init__(
        self,
        answer: CompletionAnswer,
        stream: EventStream,
        index: int,
        vocabulary: TokenVocabulary,
    ) -> None:
        self._answer = answer
        self._stream = stream
        self._index = index
        self._logprobs = CompletionLogprobs(vocabulary, as_ids=answer.tokens_as_ids)
        self.began = False

    def begin(self) -> str:
        """The text before the first token."""
        self.began = True
        return self._answer.echo_of(self._index, self._stream)

    def logprobs(
        self, is_first: bool, token_ids: list[int], positions: Sequence[LogprobsDict] | None
    ) -> dict[str, Any] | None:
        """The `logprobs` value of some tokens, the echoed prompt's before the first of them."""
        if not self._answer.has_logprobs:
            return None
        ids: list[int] = []
        rows: list[LogprobsDict | None] = []
        if is_first and self._answer.echo is not None:
            ids += self._stream.generation_of(self._index).prompt_token_ids
            rows += self._stream.prompt_logprobs_of(self._index) or ()
        return self._logprobs.encode([*ids, *token_ids], [*rows, *(positions or ())])


class CompletionChunkEncoder:
    """Encodes one streamed answer: `encode` for each list of deltas, then `end`."""

    def __init__(
        self, answer: CompletionAnswer, stream: EventStream, vocabulary: TokenVocabulary
    ) -> None:
        self._answer = answer
        self._stream = stream
        self._choices = [
            _ChoiceText(answer, stream, index, vocabulary) for index in range(stream.num_choices)
        ]
        head = {
            "id": answer.id,
            "object": "text_completion",
            "created": answer.created,
            "model": answer.model,
        }
        self._head = b"data: " + _encode(head)[:-1] + b","
        self._text_heads = [
            self._head + b'"choices":[{"index":%d,"text":' % index
            for index in range(stream.num_choices)
        ]
        self._has_tokens = answer.has_logprobs or answer.return_token_ids
        self._is_plain = not (self._has_tokens or answer.continuous_usage)
        self.plain = PlainForm(self._text_heads[0], "text") if self._is_plain else None

    def encode(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        """Encode what one engine output changed; empty when no text is certain yet."""
        return b"".join([self._chunk_of(delta) for delta in deltas])

    def end(self) -> bytes:
        """Encode what follows the last finish: the usage if asked for, and `[DONE]`."""
        if not self._answer.include_usage:
            return DONE
        tail = {
            "choices": [],
            "usage": usage_object(self._stream.usage()),
            "system_fingerprint": self._answer.system_fingerprint,
            **self._answer.metrics(self._stream),
        }
        return self._head + _encode(tail)[1:] + b"\n\n" + DONE

    def _chunk_of(self, delta: ChoiceDelta) -> bytes:
        choice = self._choices[delta.index]
        is_first = not choice.began
        text = choice.begin() if is_first else ""
        finish: Finish | None = None
        for event in delta.events:
            match event:
                case ContentDelta(piece):
                    text += piece
                case Finish():
                    finish = event
        if finish is None and not self._has_tokens:
            if not text:
                return b""
            if self._is_plain:
                return self._text_heads[delta.index] + _encode(text) + _TEXT_TAIL
        return self._chunk(delta, text, finish, is_first)

    def _chunk(self, delta: ChoiceDelta, text: str, finish: Finish | None, is_first: bool) -> bytes:
        answer, stream, index = self._answer, self._stream, delta.index
        with_prompt_ids = is_first and answer.return_token_ids
        choice = {
            "index": index,
            "text": text,
            "logprobs": self._choices[index].logprobs(is_first, delta.token_ids, delta.logprobs),
            "finish_reason": finish and finish.reason,
            "stop_reason": finish and finish.stop_reason,
            "prompt_token_ids": (
                stream.generation_of(index).prompt_token_ids if with_prompt_ids else None
            ),
            "token_ids": delta.token_ids if answer.return_token_ids else None,
            "weight_versions": None,
        }
        chunk: dict[str, Any] = {"choices": [choice]}
        if answer.continuous_usage:
            chunk["usage"] = usage_object(stream.usage_of(index))
        if finish is not None and not answer.include_usage:
            chunk["system_fingerprint"] = answer.system_fingerprint
            chunk |= answer.metrics(stream)
        return self._head + _encode(chunk | {"kv_transfer_params": None})[1:] + b"\n\n"


def completion(
    answer: CompletionAnswer,
    stream: EventStream,
    results: Sequence[ChoiceResult],
    vocabulary: TokenVocabulary,
) -> bytes:
    """Encode a whole answer as one `text_completion` object."""
    return _encode(
        {
            "id": answer.id,
            "object": "text_completion",
            "created": answer.created,
            "model": answer.model,
            "choices": [_whole_choice(answer, stream, result, vocabulary) for result in results],
            "service_tier": None,
            "system_fingerprint": answer.system_fingerprint,
            "usage": usage_object(stream.usage()),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": timing_object(stream) if answer.has_metrics else None,
        }
    )


def _whole_choice(
    answer: CompletionAnswer,
    stream: EventStream,
    result: ChoiceResult,
    vocabulary: TokenVocabulary,
) -> dict[str, Any]:
    choice = _ChoiceText(answer, stream, result.index, vocabulary)
    prompt_token_ids = stream.generation_of(result.index).prompt_token_ids
    return {
        "index": result.index,
        "text": choice.begin() + result.content,
        "logprobs": choice.logprobs(True, result.token_ids, result.logprobs),
        "finish_reason": result.finish.reason,
        "stop_reason": result.finish.stop_reason,
        "token_ids": result.token_ids if answer.return_token_ids else None,
        "prompt_logprobs": (
            prompt_logprobs_object(stream.prompt_logprobs_of(result.index))
            if answer.return_prompt_logprobs
            else None
        ),
        "prompt_token_ids": prompt_token_ids if answer.return_token_ids else None,
        "routed_experts": None,
        "weight_versions": None,
    }
