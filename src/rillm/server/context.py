"""What the routes that speak text have in common: the parts of a model, and how to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from rillm.output_formats import OutputFormats
from rillm.server.models import ServedModel
from rillm.server.protocol import INLINE_BODY_BYTES
from rillm.server.serving_engine import ServingEngine
from rillm.server.sse import (
    OPENAI,
    EventStreamResponse,
    StreamForm,
    json_response,
    until_disconnect,
)
from rillm.streams import ChoiceDelta, ChoiceResult, EventStream
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


class ChunkEncoder(Protocol):
    """Makes a stream's bytes."""

    def encode(self, deltas: Sequence[ChoiceDelta]) -> bytes:
        """Encode what one engine output changed; may be empty."""

    def end(self) -> bytes:
        """Encode what follows the last finish."""


def answer_stream(
    stream: EventStream, encoder: ChunkEncoder, request_id: str, form: StreamForm = OPENAI
) -> Response:
    """Answer with a stream of events."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        async with aclosing(stream.deltas()) as batches:
            async for deltas in batches:
                if encoded := encoder.encode(deltas):
                    yield encoded
        yield encoder.end()

    return EventStreamResponse(chunks(), request_id, form)


async def answer_whole(
    http: Request,
    stream: EventStream,
    encode: Callable[[Sequence[ChoiceResult]], bytes],
    request_id: str,
) -> Response:
    """Answer with one body, made of the stream read to its end.

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
