"""Embeddings: the mean of a model's last hidden states over a prompt.

Runs as any request does, in chunks and between other work; its one token is thrown away.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec

from rillm.engine.client import EngineClient
from rillm.engine.messages import EngineRequest, TokenDelta
from rillm.errors import EngineError, EngineGenerateError
from rillm.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class EmbeddingOutput:
    """One prompt as a vector."""

    embedding: list[float]
    """As long as the model's hidden size; not normalised."""
    num_prompt_tokens: int


def pooling_params() -> SamplingParams:
    """What the engine needs besides the prompt."""
    # A seed of its own leaves the engine's seeds to the requests that sample.
    return SamplingParams(max_tokens=1, temperature=0.0, seed=0, skip_reading_prefix_cache=True)


async def pooled_prompt(client: EngineClient, request: EngineRequest) -> EmbeddingOutput:
    """Run a request made with `pooling_params`; leaving early aborts it.

    Raises:
        EngineGenerateError: the engine failed on this request.
        EngineDeadError: the engine has stopped.
    """
    answer: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()

    def take(delta: TokenDelta | EngineError) -> None:
        if answer.done():
            return
        if isinstance(delta, EngineError):
            answer.set_exception(delta)
        elif delta.prompt is None or delta.prompt.embedding is None:
            answer.set_exception(EngineGenerateError(delta.error or "the engine has no embedding"))
        else:
            answer.set_result(delta.prompt.embedding)

    client.submit(msgspec.structs.replace(request, pools=True), take)
    try:
        embedding = await answer
    finally:
        if answer.cancelled():
            client.abort(request.request_id)
        else:
            client.finish(request.request_id)
    return EmbeddingOutput(embedding, len(request.prompt_token_ids))
