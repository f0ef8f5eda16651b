"""The token endpoint's wire as a client sees it: a request's body, and its answers as deltas.

Source: `/inference/v1/generate` of vLLM 0.33, whose Python and Rust servers leave out different
keys; what may be missing has a default here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, Final, cast, get_args

import msgspec

from rillm.engine.messages import FinishReason, PromptInfo, TokenDelta, TokenLogprobs
from rillm.errors import EngineGenerateError
from rillm.input_processor import ProcessedRequest
from rillm.sampling_params import SamplingParams

_LOCAL_FIELDS: Final = frozenset(
    {
        "stop",
        "include_stop_str_in_output",
        "detokenize",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "output_kind",
        "flat_logprobs",
        "stream_interval",
    }
)
"""What concerns text and outputs, and so is done where the text is made."""
_FINISH_REASONS: Final = frozenset(get_args(FinishReason))


class Candidate(msgspec.Struct):
    """A token's logprob."""

    token_id: int
    logprob: float
    rank: int | None = None


class Position(Candidate):
    """A generated token's logprob and the alternatives."""

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

    cached_tokens: int = 0


class Usage(msgspec.Struct):
    """Counts so far."""

    prompt_tokens_details: TokensDetails | None = None


class PromptCandidate(msgspec.Struct):
    """A prompt token's logprob."""

    logprob: float
    rank: int | None = None


class Answer(msgspec.Struct):
    """A whole answer, or one chunk of a stream."""

    choices: list[Choice] = []
    usage: Usage | None = None
    prompt_logprobs: list[dict[str, PromptCandidate] | None] | None = None
    error: dict[str, Any] | None = None


_decode_answer = msgspec.json.Decoder(Answer).decode


def generate_body(processed: ProcessedRequest, priority: int) -> dict[str, Any]:
    """The body of a request.

    The seed is the one that was drawn here, and `max_tokens` is always said: an engine takes its
    absence for a whole context.
    """
    request = processed.request
    defaults = SamplingParams()
    params = {
        name: value
        for name in SamplingParams.__struct_fields__
        if name not in _LOCAL_FIELDS
        and (value := getattr(processed.params, name)) != getattr(defaults, name)
    }
    params |= {"seed": request.params.seed, "max_tokens": request.params.max_tokens}
    # Logprobs of the prompt are no part of a stream.
    is_stream = processed.params.prompt_logprobs is None
    body: dict[str, Any] = {
        "token_ids": request.prompt_token_ids,
        "sampling_params": params,
        "stream": is_stream,
    }
    if is_stream:
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    if request.cache_salt is not None:
        body["cache_salt"] = request.cache_salt
    if priority:
        body["priority"] = priority
    return body


async def read_stream(parts: AsyncIterator[bytes]) -> AsyncGenerator[Answer, None]:
    """Decode server-sent events, cut anywhere.

    Raises:
        EngineGenerateError: the stream holds an error, or is malformed.
    """
    rest = b""
    async for part in parts:
        *events, rest = (rest + part).split(b"\n\n")
        for event in events:
            if not event.startswith(b"data:"):
                continue
            data = event.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            try:
                answer = _decode_answer(data)
            except msgspec.DecodeError as error:
                raise EngineGenerateError(f"an engine's answer is malformed: {error}") from error
            if answer.error is not None:
                raise EngineGenerateError(str(answer.error.get("message")))
            yield answer


def answer_deltas(answer: Answer) -> Iterator[TokenDelta]:
    """What an answer says, as the engine core would have said it."""
    prompt = _prompt_info(answer)
    for choice in answer.choices:
        finish = choice.finish_reason
        if finish is not None and finish not in _FINISH_REASONS:
            raise EngineGenerateError(f"an engine ended a choice with {finish!r}")
        logprobs = None
        if choice.logprobs is not None:
            logprobs = [_token_logprobs(each) for each in choice.logprobs.content]
        stop_reason = choice.stop_reason
        yield TokenDelta(
            request_id=0,
            choice=choice.index,
            token_ids=choice.token_ids or [],
            finish_reason=cast("FinishReason | None", finish),
            stop_token_id=stop_reason if isinstance(stop_reason, int) else None,
            logprobs=logprobs,
            prompt=prompt,
        )


def _prompt_info(answer: Answer) -> PromptInfo | None:
    details = None if answer.usage is None else answer.usage.prompt_tokens_details
    positions = answer.prompt_logprobs
    if details is None and positions is None:
        return None
    logprobs = None
    if positions is not None:
        logprobs = [_prompt_logprobs(each) for each in positions if each is not None]
    return PromptInfo(0 if details is None else details.cached_tokens, logprobs)


def _token_logprobs(position: Position) -> TokenLogprobs:
    """Token first, then the best ones in order, which may hold the token again."""
    best = sorted(
        {each.token_id: each for each in (*position.top_logprobs, position)}.values(),
        key=lambda each: each.rank or 0,
    )
    if position.rank is None or len(best) < position.rank:
        best = [each for each in best if each.token_id != position.token_id]
    ordered = [position, *best]
    return TokenLogprobs(
        [each.token_id for each in ordered],
        [each.logprob for each in ordered],
        position.rank or 0,
    )


def _prompt_logprobs(position: dict[str, PromptCandidate]) -> TokenLogprobs:
    items = list(position.items())
    token, own = items[0]
    best = sorted(items, key=lambda item: item[1].rank or 0)
    if own.rank is None or len(best) < own.rank:
        best = best[1:] if best[0][0] == token else [item for item in best if item[0] != token]
    ordered = [(token, own), *best]
    return TokenLogprobs(
        [int(name) for name, _ in ordered], [each.logprob for _, each in ordered], own.rank or 0
    )
