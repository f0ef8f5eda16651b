"""Request bodies as the OpenAI API has them, with vLLM's extra fields at the top level.

Wrong JSON types are refused on decoding; unknown fields are ignored, since clients send what
other servers understand. A known field that would change the answer and is not supported is
refused, never ignored.

Source: the OpenAI API reference (chat completions, completions) and the request protocol of
vLLM 0.33.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request

from rillm.errors import InvalidRequestError
from rillm.server.access_log import CURRENT, REQUEST_ID
from rillm.server.errors import MalformedBodyError
from rillm.server.options import options_of

MAX_STOP_STRINGS = 4
MAX_PROMPTS = 1024
BODY_SECONDS = 300.0
"""Longest time that a body may take to arrive."""
INLINE_BODY_BYTES = 8192
"""Larger bodies are encoded in a thread: a long prompt must not hold up other streams."""

Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What the engine's messages can carry; a longer number is refused where it enters."""

_CACHE_SALT = re.compile(r"[^@/\\\0]{1,128}")
_MSGSPEC_PATH = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$")


class StreamOptions(msgspec.Struct):
    """What a stream says besides its deltas."""

    include_usage: bool = False
    """Send one chunk with the usage of the whole call before `[DONE]`."""
    continuous_usage_stats: bool = False
    """Also put the usage so far in every chunk; only with `include_usage`."""


class Repetition(msgspec.Struct, kw_only=True):
    """`rillm.sampling_params.RepetitionDetection` before its ranges are checked."""

    max_pattern_size: Int64
    min_pattern_size: Int64 = 1
    min_count: Int64 = 3


class StructuredOutputs(msgspec.Struct, kw_only=True):
    """The `structured_outputs` object: exactly one constraint, and how JSON may be written."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Any = None
    """Refused when set."""
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None


class GenerationRequest(msgspec.Struct, kw_only=True):
    """The fields that both routes share. None means: the model's or the built-in default."""

    UNSUPPORTED: ClassVar[tuple[str, ...]] = (
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "use_beam_search",
        "thinking_token_budget",
        "return_token_offsets",
        "return_weight_versions",
        "kv_transfer_params",
        "ec_transfer_params",
        "vllm_xargs",
        "watermarking",
    )
    """Fields refused when set, because ignoring them would change the answer."""

    model: str | None = None
    """One of the names that `/v1/models` lists. None: the first of them."""
    stream: bool | None = None
    """Answer with server-sent events, as text is made."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""
    n: Int64 | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int64 | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: Int64 | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[Int64] | None = None
    ignore_eos: bool | None = None
    min_tokens: Int64 | None = None
    logit_bias: dict[str, float] | None = None
    bad_words: list[str] | None = None
    allowed_token_ids: list[Int64] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    repetition_detection: Repetition | None = None
    stream_interval: Int64 | None = None
    """Tokens between two chunks, at least; the first and the last come at once."""
    prompt_logprobs: Int64 | None = None
    """Alternatives to report for each prompt token; not in streams."""
    logprob_token_ids: list[Int64] | None = None
    """With `logprobs`: report these ids instead of the most probable ones."""
    truncate_prompt_tokens: Int64 | None = None
    """Keep so many tokens of a longer prompt; -1: as many as leave room for the output."""
    truncation_side: Literal["left", "right"] | None = None
    """Where a prompt is cut; None: left, its end is kept."""
    priority: Int64 | None = None
    """Lower is served earlier; None: 0."""
    request_id: str | None = None
    """The `X-Request-Id` header wins."""
    cache_salt: str | None = None
    """Only requests of the same salt share cached prefixes."""
    return_token_ids: bool | None = None
    """Tell the token ids of the prompt and of what was generated."""
    return_tokens_as_token_ids: bool | None = None
    """Logprobs name tokens `token_id:17` instead of by their text."""
    return_metrics: bool | None = None
    """Tell the times of this request, as the server's own option does for all."""
    response_format: dict[str, Any] | None = None
    """Type `text`, `json_object`, or `json_schema` with `json_schema.name` and `.schema`."""
    structured_outputs: StructuredOutputs | None = None
    """What the answer fits; not together with `response_format`."""
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    use_beam_search: Any = None
    thinking_token_budget: Any = None
    return_token_offsets: Any = None
    return_weight_versions: Any = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None
    vllm_xargs: Any = None
    watermarking: Any = None


class ChatCompletionRequest(GenerationRequest, kw_only=True):
    """Body of POST /v1/chat/completions."""

    UNSUPPORTED: ClassVar[tuple[str, ...]] = (
        *GenerationRequest.UNSUPPORTED,
        "chat_template",
        "documents",
        "add_special_tokens",
        "functions",
    )

    messages: list[dict[str, Any]]
    """Templates read fields of their own choice, so these are checked by who renders them."""
    max_tokens: Int64 | None = None
    """The older name of `max_completion_tokens`, which wins."""
    max_completion_tokens: Int64 | None = None
    """Most tokens to generate. None: what is left of the context."""
    logprobs: bool | None = None
    """Report the logprob of each generated token."""
    top_logprobs: Int64 | None = None
    """With `logprobs`: alternatives to report for each token; -1: all."""
    tools: list[dict[str, Any]] | None = None
    """Functions that the model may call; tools of other types are left out."""
    tool_choice: str | dict[str, Any] | None = None
    """`none`, `auto`, `required`, or a function's name in an object. None: `auto`."""
    parallel_tool_calls: bool | None = None
    """False: at most one call. None: true."""
    include_reasoning: bool | None = None
    """False: neither reasoning nor token ids nor logprobs, which would tell it. None: true."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    """For the chat template, which may read it; `none` asks for no reasoning at all."""
    echo: bool | None = None
    """Begin the answer with the last message's text, if that has the answer's role."""
    return_prompt_text: bool | None = None
    """Tell the rendered prompt."""
    add_generation_prompt: bool | None = None
    """None: true, unless the final message is continued."""
    continue_final_message: bool = False
    """Leave the last message open, for the model to go on with."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables for the chat template."""
    chat_template: Any = None
    documents: Any = None
    add_special_tokens: Any = None
    functions: Any = None


class CompletionRequest(GenerationRequest, kw_only=True):
    """Body of POST /v1/completions."""

    UNSUPPORTED: ClassVar[tuple[str, ...]] = (
        *GenerationRequest.UNSUPPORTED,
        "suffix",
        "prompt_embeds",
    )

    prompt: str | list[str | int | list[int]]
    """One text, texts, one prompt's token ids, or several prompts' token ids."""
    max_tokens: Int64 | None = None
    """None: 16, as in the OpenAI API; 0 with `echo` only scores the prompt."""
    logprobs: Int64 | None = None
    echo: bool | None = None
    """Begin each choice with its prompt."""
    add_special_tokens: bool | None = None
    """False: without the tokens around a text that the tokenizer prescribes. None: true."""
    suffix: str | None = None
    best_of: Int64 | None = None
    """Refused unless 1: use `n`."""
    prompt_embeds: Any = None


class CommonFields(Protocol):
    """What all routes that generate have in common."""

    stream: bool | None
    stream_options: StreamOptions | None
    request_id: str | None
    cache_salt: str | None


T = TypeVar("T")
Body = TypeVar("Body", bound=GenerationRequest)


async def read_body(request: Request) -> bytes:
    """Read a request's JSON body.

    Raises:
        MalformedBodyError: the content type is not JSON.
        HTTPException: 413, the body is larger than the option `max_body_bytes`; 408, it did not
            come in time.
        ClientDisconnect: the client went away while sending.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise MalformedBodyError(
            f"Content-Type is {media_type!r}, must be 'application/json'", param="Content-Type"
        )
    limit = options_of(request.scope).max_body_bytes
    parts: list[bytes] = []
    num_bytes = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                num_bytes += len(part)
                if num_bytes > limit:
                    raise HTTPException(413, f"length limit exceeded: at most {limit} bytes")
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"the body took more than {BODY_SECONDS:.0f} seconds") from None
    return b"".join(parts)


def decode_body(body: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """Decode a body and check what the two routes share.

    Raises:
        MalformedBodyError: not JSON, or a field of the wrong type; `param` is its path.
        InvalidRequestError: a field's value cannot be served.
    """
    request = decode_json(body, decoder)
    check_generation(request)
    if isinstance(request.stop, list) and len(request.stop) > MAX_STOP_STRINGS:
        raise InvalidRequestError(
            f"stop has {len(request.stop)} strings, at most {MAX_STOP_STRINGS}", param="stop"
        )
    return request


def check_generation(request: GenerationRequest) -> None:
    """Check what all APIs share that are served as one of the two routes.

    Raises:
        InvalidRequestError: a field's value cannot be served.
    """
    _check_unsupported(request)
    check_stream_options(request)
    if request.prompt_logprobs is not None and request.stream:
        raise InvalidRequestError(
            "prompt_logprobs is set, must be absent when stream is true", param="prompt_logprobs"
        )
    check_names(request)


def decode_json(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a body of any route.

    Raises:
        MalformedBodyError: not JSON, or a field of the wrong type; `param` is its path.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise malformed(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBodyError(f"1 validation error: the body is not JSON: {error}") from None


def check_stream_options(request: CommonFields) -> None:
    """Refuse stream options without a stream.

    Raises:
        InvalidRequestError: they are there, and `stream` is not true.
    """
    if request.stream_options is not None and not request.stream:
        raise InvalidRequestError(
            "stream_options is set, must be absent unless stream is true", param="stream_options"
        )


def check_names(request: CommonFields) -> None:
    """Check what callers name: the cache salt and the request.

    Raises:
        InvalidRequestError: one of them is too long, or has characters it may not have.
    """
    for name, value, pattern in (
        ("cache_salt", request.cache_salt, _CACHE_SALT),
        ("request_id", request.request_id, REQUEST_ID),
    ):
        if value is not None and not pattern.fullmatch(value):
            raise InvalidRequestError(
                f"{name} is {value!r}, must match {pattern.pattern!r}", param=name
            )


def malformed(message: str, within: str = "") -> MalformedBodyError:
    """The error for what msgspec says of a field of the wrong type.

    Args:
        message: msgspec's, the field's path at its end.
        within: path of the object that was decoded.
    """
    found = _MSGSPEC_PATH.search(message)
    path = found["path"].removeprefix(".") if found else ""
    expected = message[: found.start()] if found else message
    if missing := re.search(r"missing required field `(\w+)`", message):
        path = f"{path}.{missing.group(1)}"
    path = f"{within}.{path.removeprefix('.')}".strip(".")
    prefix = f"{path}: " if path else ""
    return MalformedBodyError(f"1 validation error: {prefix}{expected}", param=path or None)


def _check_unsupported(request: GenerationRequest) -> None:
    for name in request.UNSUPPORTED:
        value = getattr(request, name)
        # -1 is how a budget says that there is none.
        if value is not None and value is not False and value != -1:
            raise InvalidRequestError(f"{name} must be absent: it is not supported", param=name)


def request_id_of(http: Request, body: CommonFields) -> str:
    """The id of a request: the `X-Request-Id` header's, else the body's, else a random one.

    Raises:
        InvalidRequestError: the header is longer than 128 characters or not printable ASCII.
    """
    header = http.headers.get("x-request-id")
    record = CURRENT.get()
    if header is None:
        if record is None:
            return body.request_id or uuid.uuid4().hex
        record.request_id = body.request_id or record.request_id
        return record.request_id
    if not REQUEST_ID.fullmatch(header):
        raise InvalidRequestError(
            f"X-Request-Id is {header!r}, must match {REQUEST_ID.pattern!r}",
            param="X-Request-Id",
        )
    return header


def engine_request_id(request_id: str) -> str:
    """An id for the engine: callers may send one id twice at a time, the engine takes it once."""
    return f"{request_id}-{uuid.uuid4().hex[:8]}"
