"""The body of POST /v1/responses, and what it is in terms of a chat request.

Source: the OpenAI API reference (responses). Checks that both protocols need are made by the chat
route's own functions; a refusal then names the field as this protocol has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, Literal

import msgspec

from rillm.errors import InvalidRequestError
from rillm.server.protocol import (
    ChatCompletionRequest,
    GenerationRequest,
    Int64,
    check_generation,
)
from rillm.server.responses.tools import ChatTools

MAX_METADATA: Final = 16
MAX_METADATA_KEY: Final = 64
MAX_METADATA_VALUE: Final = 512
LOGPROBS: Final = "message.output_text.logprobs"
SEALED_REASONING: Final = "reasoning.encrypted_content"

_CHAT_NAMES: Final = {
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "messages": "input",
}
"""Fields of a chat request that are made of others, by the names of those; longer ones first."""


class ReasoningOptions(msgspec.Struct):
    """How the model is to think."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """For the chat template, which may read it; `none` asks for no reasoning at all."""
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Accepted: reasoning is told as it is, and its summary is empty."""


class TextOptions(msgspec.Struct):
    """What the text is to be like."""

    format: dict[str, Any] | None = None
    """`{"type": "text"}`, or as `response_format` of chat, `json_schema`'s fields beside `type`."""
    verbosity: Literal["low", "medium", "high"] | None = None
    """Accepted, and told again."""


class ResponsesRequest(GenerationRequest, kw_only=True):
    """Body of POST /v1/responses."""

    UNSUPPORTED: ClassVar[tuple[str, ...]] = (
        *GenerationRequest.UNSUPPORTED,
        "n",
        "response_format",
        "prompt_logprobs",
        "logprob_token_ids",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "return_metrics",
        "conversation",
        "prompt",
    )

    input: str | list[dict[str, Any]]
    """A user's text, or items: messages, reasoning, calls and what came of them."""
    instructions: str | None = None
    """The system message; that of a previous response is not carried on."""
    previous_response_id: str | None = None
    """The items of that response, and those it came from, go before `input`."""
    max_output_tokens: Int64 | None = None
    """Most tokens to generate, reasoning included. None: what is left of the context."""
    max_tool_calls: Int64 | None = None
    """Accepted: it bounds calls of tools that a server runs, and none are run here."""
    top_logprobs: Int64 | None = None
    """Alternatives for each token, where `include` asks for logprobs; -1: all."""
    include: list[str] | None = None
    """`message.output_text.logprobs` and `reasoning.encrypted_content`; others are ignored."""
    tools: list[dict[str, Any]] | None = None
    """Functions and custom tools that the model may call; tools of other types are left out."""
    tool_choice: str | dict[str, Any] | None = None
    """`none`, `auto`, `required`, a tool's name in an object, or `allowed_tools`. None: `auto`."""
    parallel_tool_calls: bool | None = None
    """False: at most one call. None: true."""
    text: TextOptions | None = None
    """Form of the text."""
    reasoning: ReasoningOptions | None = None
    """How the model is to think."""
    truncation: Literal["auto", "disabled"] | None = None
    """`auto`: leave out the oldest turns of a conversation that is too long. None: refuse it."""
    background: bool | None = None
    """Answer at once, and go on without the caller."""
    store: bool | None = None
    """Keep the response, for `previous_response_id` and for getting it again. None: true."""
    metadata: dict[str, str] | None = None
    """At most 16 pairs, told again."""
    user: str | None = None
    """Accepted, and told again."""
    safety_identifier: str | None = None
    """Accepted, and told again."""
    prompt_cache_key: str | None = None
    """Accepted, and told again: prefixes are cached by what they hold."""
    service_tier: str | None = None
    """Accepted: there is one, `default`."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Variables for the chat template."""
    conversation: Any = None
    prompt: Any = None

    @property
    def is_stored(self) -> bool:
        """Whether the response is to be kept."""
        return self.store is not False

    @property
    def has_logprobs(self) -> bool:
        """Whether logprobs are to be told."""
        return LOGPROBS in (self.include or ())


_CARRIED: Final = tuple(
    name
    for name in GenerationRequest.__struct_fields__
    if name not in ResponsesRequest.UNSUPPORTED and name != "stream_options"
)
"""Fields that mean the same in a chat request."""


def check_response_request(request: ResponsesRequest) -> None:
    """Check the fields that only this protocol has, `input` and `tools` excepted.

    Raises:
        InvalidRequestError: a field is not acceptable; `param` names it.
    """
    if request.background and not request.is_stored:
        raise InvalidRequestError(
            "background is true, must be false or absent when store is false", param="background"
        )
    if request.max_tool_calls is not None and request.max_tool_calls < 1:
        raise InvalidRequestError(
            f"max_tool_calls is {request.max_tool_calls}, must be at least 1",
            param="max_tool_calls",
        )
    metadata = request.metadata or {}
    if len(metadata) > MAX_METADATA:
        raise InvalidRequestError(
            f"metadata has {len(metadata)} pairs, at most {MAX_METADATA}", param="metadata"
        )
    for key, value in metadata.items():
        if len(key) > MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE:
            raise InvalidRequestError(
                f"metadata[{key[:MAX_METADATA_KEY]!r}] is too long: keys have at most "
                f"{MAX_METADATA_KEY} characters, values {MAX_METADATA_VALUE}",
                param="metadata",
            )


def chat_request(
    request: ResponsesRequest, messages: Sequence[dict[str, Any]], tools: ChatTools
) -> ChatCompletionRequest:
    """Say the same as a chat request.

    Args:
        request: checked.
        messages: its conversation.
        tools: what it offers.

    Raises:
        InvalidRequestError: the form of the text is not supported.
    """
    reasoning, text = request.reasoning or ReasoningOptions(), request.text or TextOptions()
    chat = ChatCompletionRequest(
        **{name: getattr(request, name) for name in _CARRIED},
        messages=list(messages),
        max_completion_tokens=request.max_output_tokens,
        logprobs=request.has_logprobs or None,
        top_logprobs=request.top_logprobs if request.has_logprobs else None,
        tools=tools.offered,
        tool_choice=tools.choice,
        parallel_tool_calls=request.parallel_tool_calls,
        reasoning_effort=reasoning.effort,
        response_format=_response_format(text.format),
        chat_template_kwargs=request.chat_template_kwargs,
    )
    # What goes on without its reader is read as it comes all the same.
    chat.stream = bool(request.stream or request.background)
    check_generation(chat)
    return chat


def _response_format(format: dict[str, Any] | None) -> dict[str, Any] | None:
    """Chat has the fields of a schema one level deeper."""
    if format is None or format.get("type") != "json_schema":
        return format
    fields = {name: value for name, value in format.items() if name != "type"}
    return {"type": "json_schema", "json_schema": fields}


@contextmanager
def own_names() -> Iterator[None]:
    """Let a refusal of the chat request name the field that was sent.

    Raises:
        InvalidRequestError: with this protocol's name of the field at fault.
    """
    try:
        yield
    except InvalidRequestError as error:
        param = error.param or ""
        name = next((name for name in _CHAT_NAMES if param.startswith(name)), None)
        if name is None:
            raise
        own = _CHAT_NAMES[name]
        message = str(error)
        # What a template says of messages is left in its own words.
        if own != "input":
            message = message.replace(name, own)
        raise type(error)(message, param=own) from error
