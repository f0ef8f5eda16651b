"""What servers send, as far as the benchmark looks at it.

One type for chunks and for whole answers of all three endpoints: a field that an endpoint does
not have is None.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Endpoint = Literal["chat", "completions", "generate"]

PATHS: dict[Endpoint, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "generate": "/inference/v1/generate",
}


class FunctionPart(msgspec.Struct):
    """Of a call: its name, or a fragment of its arguments, or both."""

    name: str | None = None
    arguments: str | None = None


class CallPart(msgspec.Struct):
    """What a chunk adds to a tool call, or the call of a whole answer."""

    index: int | None = None
    """None in whole answers: their calls are in order."""
    id: str | None = None
    function: FunctionPart | None = None


class Message(msgspec.Struct):
    """The delta of a chunk, or the message of a whole answer."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """The newer name; servers send one of the two, or both with the same text."""
    tool_calls: list[CallPart] | None = None


class Choice(msgspec.Struct):
    """One choice of a chunk or of a whole answer."""

    index: int = 0
    delta: Message | None = None
    message: Message | None = None
    text: str | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct):
    """Of the prompt's tokens."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens counted by the server."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct):
    """One event of a stream, or a whole answer."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
