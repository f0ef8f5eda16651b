"""The token endpoint's wire as its client sees it: a request's body, and answers as deltas.

Source: `/inference/v1/generate` of vLLM 0.33, whose Python and Rust servers leave out different
keys; what may be missing has a default here.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, cast, get_args

import msgspec

from rillm.engine.messages import FinishReason, PromptInfo, TokenDelta, TokenLogprobs
from rillm.errors import EngineGenerateError
from rillm.input_processor import ProcessedRequest
from rillm.sampling_params import SamplingParams
from rillm.structured_outputs import OWN_NAME

MAX_ID_LENGTH: Final = 128
"""Longest name of a request that servers take, in characters."""

_TEXT_FIELDS: Final = frozenset(
    {
        "stop",
        "include_stop_str_in_output",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stream_interval",
    }
)
"""What concerns text and outputs, and is done where the text is made."""
_NEVER_SENT: Final = frozenset({"output_kind", "detokenize", "flat_logprobs"})
_FINISH_REASONS: Final = frozenset(get_args(FinishReason))
_DEFAULTS: Final = SamplingParams()
_NUMPY_PREAMBLE: Final = 10
"""Bytes of magic, version and header length."""


class Candidate(msgspec.Struct):
    """A token's logprob."""

    token_id: int
    logprob: float
    rank: int | None = None


class Position(Candidate):
    """A generated token's logprob and the alternatives, the token itself perhaps among them."""

    top_logprobs: list[Candidate] = []


class Logprobs(msgspec.Struct):
    """Logprobs of a choice's new tokens."""

    content: list[Position] = []


class Choice(msgspec.Struct):
    """What an answer adds to a choice."""

    index: int
    token_ids: list[int] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: Logprobs | None = None


class TokensDetails(msgspec.Struct):
    """Of the prompt."""

    cached_tokens: int | None = None


class TokenUsage(msgspec.Struct):
    """Counts so far."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: TokensDetails | None = None


class PromptCandidate(msgspec.Struct):
    """A prompt token's logprob."""

    logprob: float
    rank: int | None = None


class Answer(msgspec.Struct):
    """A whole answer, or one chunk of a stream."""

    choices: list[Choice] = []
    request_id: str | None = None
    created: int | None = None
    usage: TokenUsage | None = None
    prompt_logprobs: list[dict[str, PromptCandidate] | None] | None = None
    prompt_token_id_logprobs: str | None = None
    """A float32 array in NumPy's file format, in base64."""
    prompt_token_ids: list[int] | None = None
    kv_transfer_params: dict[str, Any] | None = None
    output_mode: str = "tokens"
    error: dict[str, Any] | None = None


_decode_answer = msgspec.json.Decoder(Answer).decode


def sampling_object(
    params: SamplingParams, *, max_tokens: int, left_out: Collection[str] = ()
) -> dict[str, Any]:
    """Encode the `sampling_params` object: what differs from the defaults, and `max_tokens`.

    Args:
        params: checked.
        max_tokens: always said, since a server takes its absence for the rest of the context.
        left_out: fields to leave out.
    """
    sent = {
        name: value
        for name in SamplingParams.__struct_fields__
        if name not in _NEVER_SENT
        and name not in left_out
        and (value := getattr(params, name)) != getattr(_DEFAULTS, name)
    }
    if params.structured_outputs is not None and "structured_outputs" in sent:
        # Where it was made from is for errors here.
        own = msgspec.structs.replace(params.structured_outputs, origin=OWN_NAME)
        sent["structured_outputs"] = msgspec.to_builtins(own)
    return sent | {"max_tokens": max_tokens}


def generate_body(processed: ProcessedRequest, priority: int) -> dict[str, Any]:
    """The body of a request.

    What is drawn or looked up in the tokenizer's files is said: the seed, and all tokens that end
    the output. An engine without a tokenizer may know fewer of those.
    """
    request, params = processed.request, processed.params
    sampling = sampling_object(params, max_tokens=request.params.max_tokens, left_out=_TEXT_FIELDS)
    ends = request.params.stop_token_ids
    if request.params.eos_token_id is not None:
        ends = [*ends, request.params.eos_token_id]
    sampling |= {"seed": request.params.seed, "stop_token_ids": ends}
    # What is said of the prompt is no part of a stream.
    is_stream = params.prompt_logprobs is None and params.prompt_logprob_token_ids is None
    body: dict[str, Any] = {
        "token_ids": request.prompt_token_ids,
        "sampling_params": sampling,
        "stream": is_stream,
    }
    if is_stream:
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    if request.cache_salt is not None:
        body["cache_salt"] = request.cache_salt
    if priority:
        body["priority"] = priority
    return body


def read_answer(data: bytes) -> Answer:
    """Decode a whole answer or the data of one event.

    Raises:
        EngineGenerateError: it is malformed.
    """
    try:
        return _decode_answer(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineGenerateError(f"an engine's answer is malformed: {error}") from error


def prompt_info(
    answer: Answer,
    prompt_token_ids: Sequence[int],
    score_table: Sequence[Sequence[int]] | None = None,
) -> PromptInfo | None:
    """What an answer says about its prompt, as the engine core would have said it.

    Args:
        answer: whole, or a chunk.
        prompt_token_ids: the prompt.
        score_table: the ids whose scores were asked for at each position.

    Raises:
        EngineGenerateError: it does not fit the prompt.
    """
    details = None if answer.usage is None else answer.usage.prompt_tokens_details
    num_cached = None if details is None else details.cached_tokens
    positions = answer.prompt_logprobs
    has_scores = score_table is not None and answer.prompt_token_id_logprobs is not None
    if num_cached is None and positions is None and not has_scores:
        return None
    info = PromptInfo(num_cached or 0)
    if positions is not None:
        if len(positions) != len(prompt_token_ids):
            raise EngineGenerateError(f"an engine reported {len(positions)} prompt logprobs")
        pairs = zip(prompt_token_ids[1:], positions[1:], strict=True)
        info.logprobs = [_prompt_logprobs(token_id, each or {}) for token_id, each in pairs]
    if score_table is not None and answer.prompt_token_id_logprobs is not None:
        info.token_id_logprobs = _scores(score_table, answer.prompt_token_id_logprobs)
    return info


def choice_deltas(answer: Answer) -> Iterator[TokenDelta]:
    """What an answer adds to its choices, as the engine core would have said it.

    Stop strings that were found there are not told: whoever makes the text finds them again.

    Raises:
        EngineGenerateError: a choice failed, or is malformed.
    """
    for choice in answer.choices:
        token_ids = choice.token_ids or []
        finish = choice.finish_reason
        if finish is not None and (finish not in _FINISH_REASONS or finish == "error"):
            raise EngineGenerateError(f"an engine ended a choice with {finish!r}")
        logprobs = None
        if choice.logprobs is not None:
            logprobs = [_token_logprobs(each) for each in choice.logprobs.content]
            if len(logprobs) != len(token_ids):
                raise EngineGenerateError(
                    f"an engine reported {len(logprobs)} logprobs for {len(token_ids)} tokens"
                )
        stop_reason = choice.stop_reason
        yield TokenDelta(
            request_id=0,
            choice=choice.index,
            token_ids=token_ids,
            finish_reason=cast("FinishReason | None", finish),
            stop_token_id=stop_reason if isinstance(stop_reason, int) else None,
            logprobs=logprobs,
        )


def _token_logprobs(position: Position) -> TokenLogprobs:
    others = [each for each in position.top_logprobs if each.token_id != position.token_id]
    return _ranked(position, others)


def _prompt_logprobs(token_id: int, position: Mapping[str, PromptCandidate]) -> TokenLogprobs:
    found = {name: Candidate(int(name), each.logprob, each.rank) for name, each in position.items()}
    own = found.pop(str(token_id), None)
    if own is None:
        raise EngineGenerateError(f"an engine reported no logprob for prompt token {token_id}")
    return _ranked(own, list(found.values()))


def _ranked(own: Candidate, others: Sequence[Candidate]) -> TokenLogprobs:
    """The token first, then the best ones in the order of their ranks.

    A place among those that no other token has is the token's own.
    """
    by_rank = {each.rank: each for each in others}
    lowest = max((each.rank or 0 for each in others), default=0)
    best = list(others)
    if None not in by_rank and len(by_rank) == len(others) and lowest <= len(others) + 1:
        best = [by_rank.get(rank, own) for rank in range(1, lowest + 1)]
    ordered = [own, *best]
    return TokenLogprobs(
        [each.token_id for each in ordered], [each.logprob for each in ordered], own.rank or 0
    )


def _scores(table: Sequence[Sequence[int]], encoded: str) -> list[list[float]]:
    """Read an array [positions, longest row] of scores; ids of -1 have none."""
    width = max(map(len, table), default=0)
    try:
        data = base64.b64decode(encoded, validate=True)
        (header_size,) = struct.unpack_from("<H", data, _NUMPY_PREAMBLE - 2)
        values = struct.unpack_from(f"<{len(table) * width}f", data, _NUMPY_PREAMBLE + header_size)
    except (binascii.Error, struct.error) as error:
        raise EngineGenerateError(f"an engine's scores are malformed: {error}") from error
    return [
        [values[i * width + j] for j, token_id in enumerate(ids) if token_id >= 0]
        for i, ids in enumerate(table)
    ]
