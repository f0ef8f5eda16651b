"""The body of POST /inference/v1/generate, and what is refused of it.

Source: vLLM 0.33, whose Python server has these fields and whose Rust server refuses all it can
before the response begins, in the order kept here: model, `stream_options`, `token_ids`,
`max_tokens`, `prompt_logprobs`, then everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from rillm.errors import ContextLengthError, InvalidRequestError
from rillm.request_options import clamped_logit_bias
from rillm.sampling_params import RequestOutputKind, SamplingParams
from rillm.server.protocol import (
    Int64,
    Repetition,
    StreamOptions,
    StructuredOutputs,
    check_names,
    check_stream_options,
    malformed,
)
from rillm.server.sampling import repetition_detection
from rillm.server.structured import structured_outputs

OutputMode = Literal["tokens", "text", "derender"]

_AS_SENT: Final = (
    "n",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "min_tokens",
    "logprobs",
    "prompt_logprobs",
    "logprob_token_ids",
    "prompt_logprob_token_ids",
    "prompt_logprob_start",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "include_stop_str_in_output",
    "stream_interval",
    "allowed_token_ids",
    "bad_words",
    "skip_reading_prefix_cache",
)


class TokenSampling(msgspec.Struct, kw_only=True):
    """The `sampling_params` object: fields of `rillm.sampling_params.SamplingParams`.

    None means its default, but for `max_tokens`: then the rest of the context.
    """

    UNSUPPORTED: ClassVar[tuple[str, ...]] = (
        "trace_decode_token_ids",
        "guided_decoding",
        "thinking_token_budget",
        "routed_experts_prompt_start",
        "watermarking",
    )
    """Refused when set, because ignoring them would change the answer."""

    n: Int64 | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int64 | None = None
    min_p: float | None = None
    seed: Int64 | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[Int64] | None = None
    ignore_eos: bool | None = None
    max_tokens: Int64 | None = None
    min_tokens: Int64 | None = None
    logprobs: Int64 | None = None
    prompt_logprobs: Int64 | None = None
    logprob_token_ids: list[Int64] | None = None
    prompt_logprob_token_ids: list[list[Int64]] | None = None
    prompt_logprob_start: Int64 | None = None
    detokenize: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    stream_interval: Int64 | None = None
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: list[Int64] | None = None
    bad_words: list[str] | None = None
    extra_args: dict[str, Any] | None = None
    skip_reading_prefix_cache: bool | None = None
    repetition_detection: Repetition | None = None
    trace_decode_token_ids: Any = None
    structured_outputs: StructuredOutputs | None = None
    guided_decoding: Any = None
    thinking_token_budget: Any = None
    routed_experts_prompt_start: Any = None
    watermarking: Any = None


class ReasoningParserOptions(msgspec.Struct, forbid_unknown_fields=True):
    """`reasoning_parser_kwargs`: for grammars that begin after the reasoning."""

    chat_template_kwargs: dict[str, Any] | None = None


class ParseContext(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`parse_context`: how the output of a rendered conversation is to be read."""

    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = "none"
    parallel_tool_calls: bool | None = True
    include_reasoning: bool | None = True
    """False: neither reasoning nor token ids nor logprobs, which would tell it."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Not read: the prompt itself shows whether reasoning is open."""
    history_tool_call_cnt: int = 0
    """Not read: ids of calls are random."""


class GenerateRequest(msgspec.Struct, kw_only=True):
    """The body. Fields that only describe the prompt's rendering are not looked at."""

    token_ids: list[Annotated[int, Meta(ge=0)]]
    """The prompt, at least one token."""
    sampling_params: TokenSampling
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    request_id: str | None = None
    """The `X-Request-Id` header wins."""
    priority: Int64 | None = None
    """Lower is served earlier; None: 0."""
    cache_salt: str | None = None
    kv_transfer_params: dict[str, Any] | None = None
    """Carried to the engine in `extra_args`."""
    ec_transfer_params: dict[str, Any] | None = None
    """Carried to the engine in `extra_args`."""
    return_token_ids: bool | None = None
    """True: the answer repeats the prompt's token ids."""
    output_mode: OutputMode = "tokens"
    parse_context: dict[str, Any] | None = None
    """A `ParseContext`; looked at with output mode `derender` only."""
    reasoning_ended: bool | None = None
    reasoning_parser_kwargs: ReasoningParserOptions | None = None
    token_offsets: list[tuple[int, int]] | None = None
    features: Any = None
    """Refused unless empty, as `content_parts`: parts of prompts that are not text."""
    content_parts: Any = None


class AbortRequest(msgspec.Struct):
    """The body of POST /inference/v1/abort_requests."""

    request_ids: list[str]
    """As the answers have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimits:
    """What requests are checked against."""

    has_tokenizer: bool
    vocab_size: int
    max_model_len: int
    """Longest prompt plus output, in tokens."""
    max_logprobs: int
    max_new_tokens: int | None
    """Most tokens of a request that does not say; None: the rest of the context."""


def read_sampling_params(request: GenerateRequest, limits: TokenLimits) -> SamplingParams:
    """Check a request, and make its sampling options.

    Raises:
        InvalidRequestError: a field cannot be served; `param` names it.
        ContextLengthError: the prompt leaves no room for a single token.
    """
    check_stream_options(request)
    _check_first(request)
    check_names(request)
    _check_support(request, limits)
    if request.stream:
        _check_no_prompt_logprobs(request.sampling_params)
    _check_limits(request, limits)
    sampling = request.sampling_params
    max_tokens = limits.max_new_tokens if sampling.max_tokens is None else sampling.max_tokens
    room = limits.max_model_len - len(request.token_ids)
    most = room if max_tokens is None else min(max_tokens, room)
    if (sampling.min_tokens or 0) > most:
        raise InvalidRequestError(
            f"min_tokens={sampling.min_tokens} must be at most max_tokens={most}",
            param="min_tokens",
        )
    given = {name: value for name in _AS_SENT if (value := getattr(sampling, name)) is not None}
    return SamplingParams(
        max_tokens=max_tokens,
        # Text is made only where it is told, or where stop strings have to be found in it.
        detokenize=request.output_mode != "tokens"
        or (bool(sampling.stop) and sampling.detokenize is not False),
        logit_bias=clamped_logit_bias(sampling.logit_bias),
        repetition_detection=repetition_detection(sampling.repetition_detection),
        structured_outputs=None
        if sampling.structured_outputs is None
        else structured_outputs(sampling.structured_outputs),
        extra_args=_extra_args(request),
        output_kind=RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY,
        **given,
    )


def read_parse_context(request: GenerateRequest) -> ParseContext:
    """The request's `parse_context`; where there is none, everything is content or reasoning.

    Raises:
        MalformedBodyError: a field is unknown or of the wrong type.
    """
    try:
        return msgspec.convert(request.parse_context or {}, ParseContext)
    except msgspec.ValidationError as error:
        raise malformed(str(error), "parse_context") from None


def _check_first(request: GenerateRequest) -> None:
    sampling = request.sampling_params
    if not request.token_ids:
        raise InvalidRequestError(
            "token_ids is empty, must hold at least one token ID", param="token_ids"
        )
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise InvalidRequestError(
            f"sampling_params.max_tokens is {sampling.max_tokens}, must be greater than 0",
            param="max_tokens",
        )
    if sampling.prompt_logprobs is not None and sampling.prompt_logprobs < -1:
        raise InvalidRequestError(
            f"sampling_params.prompt_logprobs is {sampling.prompt_logprobs}, must be at least 0, "
            "or -1 for all",
            param="prompt_logprobs",
        )


def _check_support(request: GenerateRequest, limits: TokenLimits) -> None:
    sampling = request.sampling_params
    for name in ("content_parts", "features"):
        if getattr(request, name):
            raise InvalidRequestError(f"{name} must be empty: prompts are text", param=name)
    if request.output_mode != "tokens":
        if not limits.has_tokenizer:
            raise InvalidRequestError(
                f"output_mode is {request.output_mode!r}, which requires a tokenizer: must be "
                "'tokens' on this server",
                param="output_mode",
            )
        if sampling.detokenize is False:
            raise InvalidRequestError(
                "sampling_params.detokenize is false, must be true or absent with output_mode "
                f"{request.output_mode!r}",
                param="detokenize",
            )
    if sampling.stop and not limits.has_tokenizer:
        raise InvalidRequestError(
            "stop strings require a tokenizer, which this server runs without: use stop_token_ids",
            param="stop",
        )
    for name in sampling.UNSUPPORTED:
        value = getattr(sampling, name)
        # 0 and -1 are how some of these say "off".
        if value not in (None, False, 0, -1):
            raise InvalidRequestError(
                f"sampling_params.{name} must be absent: it is not supported yet", param=name
            )


def _check_no_prompt_logprobs(sampling: TokenSampling) -> None:
    for name in ("prompt_logprobs", "prompt_logprob_token_ids"):
        if getattr(sampling, name) is not None:
            raise InvalidRequestError(
                f"sampling_params.{name} is not available when `stream=true`", param=name
            )


def _check_limits(request: GenerateRequest, limits: TokenLimits) -> None:
    if max(request.token_ids) >= limits.vocab_size:
        raise InvalidRequestError(
            f"token_ids holds {max(request.token_ids)}, which is out of vocabulary: must be from "
            f"0 to {limits.vocab_size - 1}",
            param="token_ids",
        )
    for name in ("logprobs", "prompt_logprobs"):
        count = getattr(request.sampling_params, name)
        is_chosen = name == "logprobs" and request.sampling_params.logprob_token_ids is not None
        count = limits.vocab_size if count == -1 else count
        if count is not None and count > limits.max_logprobs and not is_chosen:
            raise InvalidRequestError(
                f"sampling_params.{name} is {count}, must be at most {limits.max_logprobs} "
                "(max_logprobs)",
                param=name,
            )
    if len(request.token_ids) >= limits.max_model_len:
        raise ContextLengthError(
            f"token_ids has {len(request.token_ids)} tokens, but the maximum context length is "
            f"{limits.max_model_len} tokens, at least one of them for the output",
            param="input_tokens",
        )


def _extra_args(request: GenerateRequest) -> dict[str, Any] | None:
    carried = {
        name: value
        for name in ("kv_transfer_params", "ec_transfer_params")
        if (value := getattr(request, name)) is not None
    }
    return {**(request.sampling_params.extra_args or {}), **carried} or None
