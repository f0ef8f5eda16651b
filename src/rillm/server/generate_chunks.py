"""Choice deltas to the chunks of /inference/v1/generate, and whole choices to its answer.

Pure functions of deltas and a little state. Keys, their order and the explicit nulls are those
of vLLM 0.33's Python server. One engine output makes one chunk for each choice that changed. With
output mode `text` the chunk has a `text` as well.

With output mode `derender`, which no other server streams, a chunk of tokens also has a `delta`,
as a chunk of /v1/chat/completions has it: content, reasoning under the names the server gives it,
a call's beginning, a fragment of its arguments, or `{}`. What one engine output made certain is
told one event a chunk; the first of these chunks holds all of the output's tokens and logprobs,
the others have none. The `role` rides on each choice's first delta, and the finish comes with
`{}` and with `tool_calls` as its reason where chat says so. A choice whose reasoning is not
included has null for `token_ids` and `logprobs`, which would tell it.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import msgspec

from rillm.chat_logprobs import LOWEST, TokenVocabulary, chat_logprobs, finite
from rillm.formats.events import ContentDelta, Finish, ReasoningDelta, StreamEvent, ToolCallEnd
from rillm.outputs import LogprobsDict
from rillm.server.chat_chunks import delta_object, message_object
from rillm.server.generate_request import OutputMode
from rillm.server.logprobs import prompt_logprobs_object
from rillm.server.sse import DONE
from rillm.streams import ChoiceDelta, ChoiceResult, EventStream, Usage

_encode = msgspec.json.encode

_ROLE = {"role": "assistant"}
_NOT_KNOWN_HERE = {"routed_experts": None, "sampling_mask": None, "weight_versions": None}
_AFTER_TOKENS = b',"routed_experts":null,"sampling_mask":null,"weight_versions":null,'
_TAIL = b'"logprobs":null}]}\n\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateAnswer:
    """What is constant over one answer, streamed or not."""

    id: str
    created: int
    """Seconds since the epoch."""
    model: str
    mode: OutputMode = "tokens"
    num_logprobs: int | None = None
    """Alternatives to list where tokens are told as text, -1 for all; None: no logprobs."""
    return_token_ids: bool = False
    """Repeat the prompt's token ids."""
    include_usage: bool = False
    """A stream ends with a usage chunk."""
    continuous_usage: bool = False
    """Every chunk of a stream says the usage of its choice so far."""
    has_prompt_details: bool = False
    """The usage says how many prompt tokens came from the prefix cache."""
    shows_tokens: bool = True
    """False: neither token ids nor logprobs."""
    reasoning_fields: tuple[str, ...] = ("reasoning_content",)
    """Names under which reasoning is told; none where it is not."""

    def logprobs(
        self,
        token_ids: Sequence[int],
        positions: Sequence[LogprobsDict] | None,
        vocabulary: TokenVocabulary | None,
    ) -> dict[str, Any] | None:
        """The `logprobs` value of some tokens: by id, or by text where text is told."""
        if self.num_logprobs is None or not self.shows_tokens:
            return None
        if self.mode == "tokens" or vocabulary is None:
            return token_logprobs(token_ids, positions or ())
        return chat_logprobs(positions or (), self.num_logprobs, vocabulary)

    def usage(self, usage: Usage) -> dict[str, Any]:
        """The `usage` value, with null for details that are not told."""
        prompt = {"cached_tokens": usage.cached_tokens} if self.has_prompt_details else None
        is_parsed = self.mode == "derender"
        return {
            "prompt_tokens": usage.prompt_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "completion_tokens": usage.completion_tokens,
            "prompt_tokens_details": prompt,
            "completion_tokens_details": (
                {"reasoning_tokens": usage.reasoning_tokens} if is_parsed else None
            ),
        }


class GenerateChunkEncoder:
    """Encodes one streamed answer: `encode` for each list of deltas, then `end`."""

    plain = None

    def __init__(
        self, answer: GenerateAnswer, stream: EventStream, vocabulary: TokenVocabulary | None
    ) -> None:
        self._answer = answer
        self._stream = stream
        self._vocabulary = vocabulary
        self._has_role = [False] * stream.num_choices
        self._untold_prompt = (
            stream.generation_of(0).prompt_token_ids if answer.return_token_ids else None
        )
        head = {"request_id": answer.id, "usage": None, "output_mode": answer.mode}
        self._open_heads = [
            b"data: %b"
            b',"choices":[{"index":%d,"finish_reason":null,"stop_reason":null,"token_ids":'
            % (_encode(head)[:-1], index)
            for index in range(stream.num_choices)
        ]
        self._is_plain = answer.num_logprobs is None and not answer.continuous_usage

    def encode(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        """Encode what one engine output changed; empty when it changed nothing to tell."""
        chunks: list[bytes] = []
        for delta in deltas:
            if self._answer.mode == "derender":
                self._add_parsed(delta, chunks)
            else:
                self._add_tokens(delta, chunks)
        return b"".join(chunks)

    def end(self) -> bytes:
        """Encode what follows the last finish: the usage if asked for, and `[DONE]`."""
        if not self._answer.include_usage:
            return DONE
        return self._whole_chunk(self._usage(self._stream.usage()), []) + DONE

    def _add_tokens(self, delta: ChoiceDelta, chunks: list[bytes]) -> None:
        events = delta.events
        finish = events[-1] if events and type(events[-1]) is Finish else None
        said = {}
        if self._answer.mode == "text":
            said["text"] = "".join([each.text for each in events if type(each) is ContentDelta])
        if delta.token_ids or finish is not None or said.get("text"):
            chunks.append(self._chunk(delta, finish, said))

    def _add_parsed(self, delta: ChoiceDelta, chunks: list[bytes]) -> None:
        # The first chunk of an output carries all of its tokens, so that none is told twice.
        tokens = delta
        rest = ChoiceDelta(delta.index, [], [], None)
        for event in delta.events:
            if self._is_silent(event):
                continue
            described = delta_object(event, self._answer.reasoning_fields)
            finish = event if type(event) is Finish else None
            chunks.append(self._chunk(tokens, finish, self._said(delta.index, described)))
            tokens = rest
        if tokens.token_ids and self._answer.shows_tokens:
            chunks.append(self._chunk(tokens, None, self._said(delta.index, {})))

    def _is_silent(self, event: StreamEvent) -> bool:
        kind = type(event)
        return kind is ToolCallEnd or (kind is ReasoningDelta and not self._answer.reasoning_fields)

    def _said(self, index: int, delta: dict[str, Any]) -> dict[str, Any]:
        if self._has_role[index]:
            return {"delta": delta}
        self._has_role[index] = True
        return {"delta": _ROLE | delta}

    def _chunk(self, delta: ChoiceDelta, finish: Finish | None, said: dict[str, Any]) -> bytes:
        answer = self._answer
        token_ids = delta.token_ids if answer.shows_tokens else None
        if finish is None and self._is_plain and self._untold_prompt is None:
            extra = _encode(said)[1:-1] + b"," if said else b""
            return (
                self._open_heads[delta.index] + _encode(token_ids) + _AFTER_TOKENS + extra + _TAIL
            )
        choice = {
            "index": delta.index,
            "finish_reason": finish and finish.reason,
            "stop_reason": finish and finish.stop_reason,
            "token_ids": token_ids,
            **_NOT_KNOWN_HERE,
            **said,
            "logprobs": answer.logprobs(delta.token_ids, delta.logprobs, self._vocabulary),
        }
        usage = None
        if answer.continuous_usage:
            usage = self._usage(self._stream.usage_of(delta.index))
        return self._whole_chunk(usage, [choice])

    def _usage(self, usage: Usage) -> dict[str, Any]:
        counts = self._answer.usage(usage)
        return {name: count for name, count in counts.items() if count is not None}

    def _whole_chunk(self, usage: dict[str, Any] | None, choices: list[dict[str, Any]]) -> bytes:
        chunk: dict[str, Any] = {"request_id": self._answer.id, "usage": usage}
        if self._untold_prompt is not None:
            chunk["prompt_token_ids"] = self._untold_prompt
            self._untold_prompt = None
        chunk |= {"output_mode": self._answer.mode, "choices": choices}
        return b"data: " + _encode(chunk) + b"\n\n"


def generate_response(
    answer: GenerateAnswer,
    stream: EventStream,
    results: Sequence[ChoiceResult],
    vocabulary: TokenVocabulary | None,
) -> bytes:
    """Encode a whole answer."""
    generation = stream.generation_of(0)
    table = generation.sampling_params.prompt_logprob_token_ids
    scores = stream.prompt_token_id_logprobs[0]
    return _encode(
        {
            "request_id": answer.id,
            "model": answer.model,
            "created": answer.created,
            "usage": answer.usage(stream.usage()),
            "prompt_logprobs": prompt_logprobs_object(stream.prompt_logprobs[0]),
            "prompt_token_id_logprobs": (
                None if table is None or scores is None else _score_array(table, scores)
            ),
            "prompt_token_ids": generation.prompt_token_ids if answer.return_token_ids else None,
            "mm_placeholders": None,
            "metrics": None,
            "kv_transfer_params": stream.kv_transfer_params[0],
            "ec_transfer_params": None,
            "output_mode": answer.mode,
            "choices": [_whole_choice(answer, result, vocabulary) for result in results],
        }
    )


def _whole_choice(
    answer: GenerateAnswer, result: ChoiceResult, vocabulary: TokenVocabulary | None
) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if answer.mode == "text":
        said["text"] = result.content
    elif answer.mode == "derender":
        said["message"] = message_object(result, "assistant", answer.reasoning_fields)
    return {
        "index": result.index,
        "finish_reason": result.finish.reason,
        "stop_reason": result.finish.stop_reason,
        "token_ids": result.token_ids if answer.shows_tokens else None,
        **_NOT_KNOWN_HERE,
        **said,
        "logprobs": answer.logprobs(result.token_ids, result.logprobs, vocabulary),
    }


def token_logprobs(token_ids: Sequence[int], positions: Sequence[LogprobsDict]) -> dict[str, Any]:
    """Encode logprobs by token id: an entry for each token, with all that the engine reported.

    Args:
        token_ids: the generated tokens.
        positions: one dict for each, the sampled token first; may end early.
    """
    content = []
    for token_id, position in zip_longest(token_ids, positions):
        top = [
            {"token_id": each, "logprob": finite(found.logprob), "rank": found.rank or None}
            for each, found in (position or {}).items()
        ]
        own = next((entry for entry in top if entry["token_id"] == token_id), None)
        if own is None:
            own = {"token_id": token_id, "logprob": LOWEST, "rank": None}
        content.append({**own, "top_logprobs": top})
    return {"content": content}


def _score_array(table: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]) -> str:
    """Scores of chosen ids as a float32 array in NumPy's file format, in base64.

    Args:
        table: the ids asked for at each position; -1 pads, and is not a number in the array.
        scores: one for each id that is no padding.

    Returns:
        An array [positions, longest row].
    """
    width = max(map(len, table), default=0)
    values: list[float] = []
    for row, row_scores in zip(table, scores, strict=True):
        left = iter(row_scores)
        told = [float("nan") if token_id < 0 else next(left) for token_id in row]
        values += told + [float("nan")] * (width - len(told))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(table)}, {width}), }}"
    # Magic, version 1.0 and length are 10 bytes; the data begins at a multiple of 64.
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    return base64.b64encode(array + struct.pack(f"<{len(values)}f", *values)).decode()
