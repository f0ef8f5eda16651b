"""Request bodies as Anthropic's Messages API has them, with rillm's sampling fields beside.

Wrong JSON types and unknown kinds of blocks are refused on decoding; unknown fields are ignored,
those of blocks too (`cache_control`, `citations`): prefixes are cached without being told to.

Source: Anthropic's API reference (messages, count message tokens).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from rillm.server.protocol import Int64, Repetition


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    """Some text."""

    text: str


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking"):
    """Reasoning of an earlier answer; its signature is not looked at."""

    thinking: str


class RedactedThinkingBlock(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    """Reasoning that only Anthropic can read: left out."""


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A call of an earlier answer."""

    id: str
    name: str
    input: dict[str, Any]


class ImageBlock(msgspec.Struct, tag_field="type", tag="image"):
    """Refused: the models served here read text."""


class DocumentBlock(msgspec.Struct, tag_field="type", tag="document"):
    """Refused, as an image is."""


class ToolReferenceBlock(msgspec.Struct, tag_field="type", tag="tool_reference"):
    """A tool that an agent's search has found: read as its name."""

    tool_name: str


ResultBlock = TextBlock | ImageBlock | DocumentBlock | ToolReferenceBlock


class ToolResultBlock(msgspec.Struct, tag_field="type", tag="tool_result"):
    """What a call gave."""

    tool_use_id: str
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


Block = (
    TextBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
    | ImageBlock
    | DocumentBlock
)


class InputMessage(msgspec.Struct):
    """One message of the conversation."""

    role: Literal["user", "assistant", "system"]
    """`system`: in the midst of `messages`, where agents put reminders."""
    content: str | list[Block]


class Tool(msgspec.Struct, kw_only=True):
    """A function that the model may call, or a tool that Anthropic defines: those are left out."""

    name: str | None = None
    type: str | None = None
    """`custom` or absent for a function; of any other type only one with `input_schema` is."""
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    """JSON schema of the input."""
    strict: bool | None = None
    """Calls are to be valid for `input_schema`; passed on as chat's field of that name."""


class ToolChoice(msgspec.Struct, kw_only=True):
    """Whether tools are to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    """With `tool`: which one."""
    disable_parallel_tool_use: bool | None = None
    """At most one call."""


class Thinking(msgspec.Struct, kw_only=True):
    """Whether the model reasons before it answers, where its chat template lets it choose."""

    type: Literal["enabled", "adaptive", "between_tools", "disabled"]
    """The first three all ask for reasoning: how much of it is the model's own choice."""
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    """Accepted and not enforced: reasoning counts towards `max_tokens` and ends there."""
    display: Literal["summarized", "omitted"] | None = None
    """`omitted`: thinking blocks come empty, with their signature. None: the text is shown."""


class OutputFormat(msgspec.Struct, kw_only=True):
    """The form of the answer."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, kw_only=True):
    """How much effort goes into the answer, and its form."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    """The chat template's `reasoning_effort`."""
    format: OutputFormat | None = None
    """As chat's `response_format`."""


class CountTokensRequest(msgspec.Struct, kw_only=True):
    """Body of POST /v1/messages/count_tokens: what a prompt is made of."""

    UNSUPPORTED: ClassVar[tuple[str, ...]] = ("container", "mcp_servers")
    """Refused when set and not empty, because the answer would need them."""

    model: str | None = None
    """One of the names that `/v1/models` lists. None: the first of them."""
    messages: list[InputMessage]
    """The conversation; messages of one role in a row are one turn."""
    system: str | list[TextBlock] | None = None
    """What the model is told before the conversation."""
    tools: list[Tool] | None = None
    """Functions that the model may call; tools that Anthropic defines are left out."""
    tool_choice: ToolChoice | None = None
    """None: `auto`."""
    thinking: Thinking | None = None
    """None: what the chat template does by itself."""
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """The older name of `output_config.format`, which wins."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Not Anthropic's: variables for the chat template, over those that `thinking` sets."""
    cache_control: Any = None
    """Accepted: every prefix is cached."""
    context_management: Any = None
    """Accepted and ignored: the conversation is rendered as it was sent."""
    betas: Any = None
    """Accepted and ignored, as is the header `anthropic-beta`."""
    speed: Any = None
    """Accepted and ignored."""
    container: Any = None
    mcp_servers: Any = None


class MessagesRequest(CountTokensRequest, kw_only=True):
    """Body of POST /v1/messages."""

    max_tokens: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    """Most tokens to generate, reasoning included. What the context leaves is the limit where
    that is less; the stop reason then says so. 0: only compute and cache the prompt."""
    stream: bool | None = None
    """Answer with server-sent events, as text is made."""
    stop_sequences: list[str] | None = None
    """At most 64 texts that end the answer."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int64 | None = None
    metadata: Any = None
    """Accepted and ignored."""
    service_tier: Any = None
    """Accepted and ignored; see `priority`."""
    inference_geo: Any = None
    """Accepted and ignored."""
    diagnostics: Any = None
    """Accepted and ignored; `usage` says how much came from the cache."""
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: Int64 | None = None
    stop_token_ids: list[Int64] | None = None
    ignore_eos: bool | None = None
    min_tokens: Int64 | None = None
    logit_bias: dict[str, float] | None = None
    bad_words: list[str] | None = None
    allowed_token_ids: list[Int64] | None = None
    skip_special_tokens: bool | None = None
    repetition_detection: Repetition | None = None
    stream_interval: Int64 | None = None
    """Tokens between two deltas, at least; the first and the last come at once."""
    priority: Int64 | None = None
    """Lower is served earlier; None: 0."""
    cache_salt: str | None = None
    """Only requests of the same salt share cached prefixes."""
