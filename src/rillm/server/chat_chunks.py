"""Stream events to `chat.completion.chunk` data, and whole choices to `chat.completion`.

Pure functions of events and a little state per choice. Keys, their order and the explicit nulls
are those of vLLM 0.33's Python server, so that its clients find every attribute they read. Two
things are stricter here, because clients break on them: text and finish never share a chunk, and
an empty `content` is sent with the role only.

A plain chunk of content or arguments is a constant prefix, the escaped text and a constant suffix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

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
from rillm.server.chunk_memo import PlainForm
from rillm.server.logprobs import prompt_logprobs_object
from rillm.server.sse import DONE
from rillm.server.usage import timing_object, usage_object
from rillm.streams import ChoiceDelta, ChoiceResult, EventStream

_encode = msgspec.json.encode

_PLAIN_TAIL = (
    b'},"logprobs":null,"finish_reason":null,"token_ids":null}],"kv_transfer_params":null}\n\n'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """What is constant over one chat answer, streamed or not."""

    id: str
    created: int
    """Seconds since the epoch."""
    model: str
    system_fingerprint: str
    role: str = "assistant"
    echo: str = ""
    """Text that every choice begins with."""
    top_logprobs: int | None = None
    """None: no logprobs."""
    return_token_ids: bool = False
    tokens_as_ids: bool = False
    """Logprobs name tokens by their ids."""
    return_prompt_text: bool = False
    names_function: bool = False
    """The request names the function to be called: that it was called is no reason to finish."""
    has_metrics: bool = False
    """The end says how long things took."""
    shows_tokens: bool = True
    """False: neither generated token ids nor logprobs."""
    include_usage: bool = False
    """A stream ends with a usage chunk."""
    continuous_usage: bool = False
    """Every chunk of a stream says the usage so far."""
    reasoning_fields: tuple[str, ...] = ("reasoning_content",)
    """Names under which reasoning is told; none where it is not."""

    def logprobs(
        self, positions: Sequence[LogprobsDict] | None, vocabulary: TokenVocabulary
    ) -> dict[str, Any] | None:
        """The `logprobs` value of some tokens."""
        if self.top_logprobs is None or positions is None or not self.shows_tokens:
            return None
        return chat_logprobs(positions, self.top_logprobs, vocabulary, as_ids=self.tokens_as_ids)

    def finish_reason(self, finish: Finish) -> str:
        """The `finish_reason` of a choice, as the API has it."""
        is_named_call = self.names_function and finish.reason == "tool_calls"
        return "stop" if is_named_call else finish.reason

    @property
    def tells_token_ids(self) -> bool:
        """Whether generated token ids are told."""
        return self.return_token_ids and self.shows_tokens

    def metrics(self, stream: EventStream) -> dict[str, Any]:
        """The `metrics` of a chunk that ends an answer: none at all where not asked for."""
        return {"metrics": timing_object(stream)} if self.has_metrics else {}


class ChatChunkEncoder:
    """Encodes one streamed answer: `encode` for each list of deltas, then `end`."""

    def __init__(
        self, answer: ChatAnswer, stream: EventStream, vocabulary: TokenVocabulary
    ) -> None:
        self._answer = answer
        self._stream = stream
        self._vocabulary = vocabulary
        self._began = False
        head = {
            "id": answer.id,
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": answer.model,
        }
        self._head = b"data: " + _encode(head)[:-1] + b","
        self._choice_heads = [
            self._head + b'"choices":[{"index":%d,"delta":' % index
            for index in range(stream.num_choices)
        ]
        self._has_tokens = answer.shows_tokens and (
            answer.top_logprobs is not None or answer.return_token_ids
        )
        self._is_plain = not (self._has_tokens or answer.continuous_usage)
        self.plain: PlainForm | None = None
        if self._is_plain:
            self.plain = PlainForm(self._choice_heads[0], ("chat", *answer.reasoning_fields))

    def encode(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        """Encode what one engine output changed; empty when no text is certain yet."""
        chunks: list[bytes] = []
        if not self._began:
            self._began = True
            indices = range(self._stream.num_choices)
            chunks += [self._role_chunk(index) for index in indices]
            if self._answer.echo:
                chunks += [self._echo_chunk(index) for index in indices]
        for delta in deltas:
            self._add_chunks(delta, chunks)
        return b"".join(chunks)

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
        return self._chunk(tail) + DONE

    def _add_chunks(self, delta: ChoiceDelta, chunks: list[bytes]) -> None:
        index = delta.index
        # The first chunk of a delta carries all of its tokens, so that none is told twice.
        untold: ChoiceDelta | None = delta
        for event in delta.events:
            # Before the others, and without a pattern: it comes with nearly every token.
            if type(event) is ContentDelta and self._is_plain:
                text = _encode(event.text)
                chunks.append(self._choice_heads[index] + b'{"content":' + text + _PLAIN_TAIL)
                untold = None
                continue
            match event:
                case ToolCallArguments(call, fragment) if self._is_plain:
                    arguments = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]' % (
                        call,
                        _encode(fragment),
                    )
                    chunks.append(self._choice_heads[index] + arguments + _PLAIN_TAIL)
                case ToolCallEnd():
                    continue
                case ReasoningDelta() if not self._answer.reasoning_fields:
                    continue
                case Finish():
                    chunks.append(self._finish_chunk(index, event, untold))
                case _:
                    described = delta_object(event, self._answer.reasoning_fields)
                    chunks.append(self._delta_chunk(index, described, untold))
            untold = None
        if untold is not None and self._has_tokens:
            chunks.append(self._delta_chunk(index, {}, untold))

    def _role_chunk(self, index: int) -> bytes:
        choice = {
            "index": index,
            "delta": {"role": self._answer.role, "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        generation = self._stream.generation_of(index)
        return self._chunk(
            {
                "choices": [choice],
                **self._usage_so_far(index, is_role=True),
                "prompt_token_ids": (
                    generation.prompt_token_ids if self._answer.return_token_ids else None
                ),
                "prompt_text": _prompt_text(self._answer, self._stream, self._vocabulary),
            }
        )

    def _echo_chunk(self, index: int) -> bytes:
        choice = {
            "index": index,
            "delta": {"content": self._answer.echo},
            "logprobs": None,
            "finish_reason": None,
            "token_ids": None,
        }
        usage = self._usage_so_far(index, is_role=True)
        return self._chunk({"choices": [choice], **usage, "kv_transfer_params": None})

    def _delta_chunk(self, index: int, delta: dict[str, Any], tokens: ChoiceDelta | None) -> bytes:
        logprobs, token_ids = self._tokens(tokens)
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": None,
            "token_ids": token_ids,
        }
        return self._chunk(
            {"choices": [choice], **self._usage_so_far(index), "kv_transfer_params": None}
        )

    def _finish_chunk(self, index: int, finish: Finish, tokens: ChoiceDelta | None) -> bytes:
        logprobs, token_ids = self._tokens(tokens)
        choice = {
            "index": index,
            "delta": {},
            "logprobs": logprobs,
            "finish_reason": self._answer.finish_reason(finish),
            "stop_reason": finish.stop_reason,
            "token_ids": token_ids,
            "weight_versions": None,
        }
        chunk = {"choices": [choice], **self._usage_so_far(index)}
        if not self._answer.include_usage:
            chunk["system_fingerprint"] = self._answer.system_fingerprint
            chunk |= self._answer.metrics(self._stream)
        return self._chunk(chunk | {"kv_transfer_params": None})

    def _tokens(self, delta: ChoiceDelta | None) -> tuple[dict[str, Any] | None, list[int] | None]:
        """The `logprobs` and `token_ids` of a chunk that carries the tokens of `delta`."""
        if delta is None:
            return None, [] if self._answer.tells_token_ids else None
        return (
            self._answer.logprobs(delta.logprobs, self._vocabulary),
            delta.token_ids if self._answer.tells_token_ids else None,
        )

    def _usage_so_far(self, index: int, is_role: bool = False) -> dict[str, Any]:
        if not self._answer.continuous_usage:
            return {}
        usage = self._stream.usage_of(index)
        if is_role:
            usage = replace(usage, completion_tokens=0)
        return {"usage": usage_object(usage)}

    def _chunk(self, rest: dict[str, Any]) -> bytes:
        return self._head + _encode(rest)[1:] + b"\n\n"


def _prompt_text(
    answer: ChatAnswer, stream: EventStream, vocabulary: TokenVocabulary
) -> str | None:
    if not answer.return_prompt_text:
        return None
    prompt_token_ids = stream.generation_of(0).prompt_token_ids
    return b"".join(map(vocabulary.token_bytes, prompt_token_ids)).decode(errors="replace")


def delta_object(event: StreamEvent, reasoning_fields: Sequence[str]) -> dict[str, Any]:
    """The `delta` that tells one event; empty for an event that is told otherwise."""
    match event:
        case ContentDelta(text):
            return {"content": text}
        case ReasoningDelta(text):
            return dict.fromkeys(reasoning_fields, text)
        case ToolCallBegin(index, id, name):
            function = {"name": name, "arguments": ""}
            return {
                "tool_calls": [{"id": id, "type": "function", "index": index, "function": function}]
            }
        case ToolCallArguments(index, fragment):
            return {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}
        case ToolCallEnd() | Finish():
            return {}


def chat_completion(
    answer: ChatAnswer,
    stream: EventStream,
    results: Sequence[ChoiceResult],
    vocabulary: TokenVocabulary,
) -> bytes:
    """Encode a whole answer as one `chat.completion` object."""
    prompt_token_ids = stream.generation_of(0).prompt_token_ids
    return _encode(
        {
            "id": answer.id,
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.model,
            "choices": [_whole_choice(answer, result, vocabulary) for result in results],
            "service_tier": None,
            "system_fingerprint": answer.system_fingerprint,
            "usage": usage_object(stream.usage()),
            "prompt_logprobs": prompt_logprobs_object(stream.prompt_logprobs[0]),
            "prompt_token_ids": prompt_token_ids if answer.return_token_ids else None,
            "prompt_text": _prompt_text(answer, stream, vocabulary),
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "metrics": timing_object(stream) if answer.has_metrics else None,
        }
    )


def _whole_choice(
    answer: ChatAnswer, result: ChoiceResult, vocabulary: TokenVocabulary
) -> dict[str, Any]:
    return {
        "index": result.index,
        "message": message_object(
            replace(result, content=answer.echo + result.content) if answer.echo else result,
            answer.role,
            answer.reasoning_fields,
        ),
        "logprobs": answer.logprobs(result.logprobs, vocabulary),
        "finish_reason": answer.finish_reason(result.finish),
        "stop_reason": result.finish.stop_reason,
        "token_ids": result.token_ids if answer.tells_token_ids else None,
        "routed_experts": None,
        "weight_versions": None,
    }


def message_object(
    result: ChoiceResult, role: str, reasoning_fields: Sequence[str]
) -> dict[str, Any]:
    """The `message` of a whole choice."""
    message: dict[str, Any] = {
        "role": role,
        "content": result.content if result.content or not result.tool_calls else None,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if result.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in result.tool_calls
        ]
    return message | dict.fromkeys(reasoning_fields, result.reasoning or None)
