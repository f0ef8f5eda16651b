"""What the routes that speak text have in common: the parts of a model, and how to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from rillm.output_formats import OutputFormats
from rillm.server.chunk_memo import ChunkMemo
from rillm.server.models import ServedModel
from rillm.server.protocol import INLINE_BODY_BYTES
from rillm.server.pump import ChunkEncoder, EncodedChunks
from rillm.server.serving_engine import ServingEngine
from rillm.server.sse import (
    OPENAI,
    EventStreamResponse,
    StreamForm,
    json_response,
    until_disconnect,
)
from rillm.streams import ChoiceResult, EventStream
from rillm.text.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextContext:
    """One model, as the routes that speak text know it."""

    engine: ServingEngine
    tokenizer: Tokenizer
    model: ServedModel
    fingerprint: str
    """The `system_fingerprint` of answers."""
    formats: OutputFormats | None
    """How the model writes reasoning and calls; None where all it writes is content."""
    reasoning_fields: tuple[str, ...]
    """Names under which a message holds its reasoning."""
    has_metrics: bool = False
    """Every answer says how long things took."""
    memo: ChunkMemo = field(default_factory=ChunkMemo)
    """What tokens became in earlier streams."""


def answer_stream(
    stream: EventStream,
    encoder: ChunkEncoder,
    request_id: str,
    form: StreamForm = OPENAI,
    *,
    before_end: Callable[[], Awaitable[None]] | None = None,
    memo: ChunkMemo | None = None,
) -> Response:
    """Answer with a stream of events.

    Args:
        stream: not yet started.
        encoder: makes its bytes.
        request_id: for the header.
        form: what the API says besides.
        before_end: to be done when all has been generated, before the end is sent.
        memo: of the model, for encoders that have a plain form.
    """
    chunks = EncodedChunks(stream, encoder, before_end, memo)
    return EventStreamResponse(chunks, request_id, form)


async def answer_whole(
    http: Request,
    stream: EventStream,
    encode: Callable[[Sequence[ChoiceResult]], bytes],
    request_id: str,
) -> Response:
    """Answer with one body, made of the stream read to its end.

    Args:
        http: the request.
        stream: not yet started.
        encode: makes the body.
        request_id: for the header.

    Raises:
        ClientDisconnect: the client went away first.
        RillmError: the request is refused, or generation failed.
    """
    results = await until_disconnect(http.receive, stream.collect())
    return json_response(encode(results), request_id)


async def off_loop(num_bytes: int, work: Callable[[], T]) -> T:
    """Do what takes as long as its input is long, without holding up other streams.

    Args:
        num_bytes: size of the input; a small one is not worth a thread.
        work: what to do, safe in any thread.
    """
    return await asyncio.to_thread(work) if num_bytes > INLINE_BODY_BYTES else work()
