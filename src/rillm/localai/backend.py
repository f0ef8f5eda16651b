"""The RPCs, one method each. Knows messages, not gRPC: errors are raised as they are everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from rillm.errors import ConfigError, EngineError, InvalidRequestError, ModelNotFoundError
from rillm.localai.backend_pb2 import (
    EMBEDDING_LAYOUT_FINAL,
    DetokenizeRequest,
    DetokenizeResponse,
    EmbeddingResult,
    HealthMessage,
    MemoryUsageData,
    ModelOptions,
    PredictOptions,
    Reply,
    Result,
    StatusResponse,
    TokenizationResponse,
)
from rillm.localai.model import HostState, LoadedModel, ModelHost, NotLoadedError
from rillm.localai.replies import ReplyEncoder
from rillm.localai.request import embedding_prompt, read_predict_options
from rillm.localai.settings import read_model_options
from rillm.streams import ChoiceDelta, EventStream

Write = Callable[[Reply], Awaitable[object]]
"""Sends one Reply of a stream; waits while the reader is slow."""

_STATES = {
    HostState.EMPTY: StatusResponse.UNINITIALIZED,
    HostState.LOADING: StatusResponse.BUSY,
    HostState.BUSY: StatusResponse.BUSY,
    HostState.READY: StatusResponse.READY,
    HostState.FAILED: StatusResponse.ERROR,
}


class Backend:
    """Answers for one host of models; the names are those of the RPCs in small letters."""

    def __init__(self, host: ModelHost) -> None:
        self._host = host

    async def health(self, _: HealthMessage) -> Reply:
        """The process answers, whatever its model does."""
        return Reply(message=b"OK")

    async def load_model(self, options: ModelOptions) -> Result:
        """Load a model; what is wrong with it is told in the result."""
        try:
            await self._host.load(read_model_options(options))
        except (ConfigError, EngineError, NotLoadedError) as error:
            return Result(success=False, message=str(error))
        return Result(success=True, message="Model loaded successfully")

    async def predict(self, options: PredictOptions) -> Reply:
        """Answer in one Reply: the stream read to its end."""
        model = self._model(options)
        with model.call():
            stream, encoder = await _answer(options, model)
            deltas: list[ChoiceDelta] = []
            await stream.read_to_end(deltas.extend)
            return encoder.end(deltas)

    async def predict_stream(self, options: PredictOptions, write: Write) -> None:
        """Answer as text is made."""
        model = self._model(options)
        with model.call():
            stream, encoder = await _answer(options, model)
            async with aclosing(stream.deltas()) as batches:
                async for deltas in batches:
                    reply = encoder.encode(deltas)
                    if reply is not None:
                        await write(reply)
            await write(encoder.end())

    async def tokenize_string(self, options: PredictOptions) -> TokenizationResponse:
        """The token ids of a text, with the special tokens that the tokenizer puts around it."""
        model = self._model(options)
        with model.call():
            token_ids = await asyncio.to_thread(model.tokenizer.encode, options.Prompt)
        return TokenizationResponse(length=len(token_ids), tokens=token_ids)

    async def detokenize(self, request: DetokenizeRequest) -> DetokenizeResponse:
        """The text of token ids."""
        model = self._host.model()
        token_ids = list(request.tokens)
        if token_ids and not 0 <= min(token_ids) <= max(token_ids) < model.tokenizer.vocab_size:
            raise InvalidRequestError(
                f"tokens must be from 0 to {model.tokenizer.vocab_size - 1}", param="tokens"
            )
        with model.call():
            text = await asyncio.to_thread(model.tokenizer.decode, token_ids)
        return DetokenizeResponse(content=text)

    async def embedding(self, options: PredictOptions) -> EmbeddingResult:
        """The mean of the last hidden states of a text, not normalised."""
        model = self._model(options)
        with model.call():
            output = await model.engine.embed(embedding_prompt(options))
        return EmbeddingResult(
            embeddings=output.embedding,
            tokens=1,
            dim=len(output.embedding),
            prompt_tokens=output.num_prompt_tokens,
            layout=EMBEDDING_LAYOUT_FINAL,
        )

    async def status(self, _: HealthMessage) -> StatusResponse:
        """What the process does, and the memory its engine takes."""
        state = self._host.state
        response = StatusResponse(state=_STATES[state])
        if state in (HostState.READY, HostState.BUSY):
            info = self._host.model().engine.ready_info
            if info is not None:
                response.memory.CopyFrom(
                    MemoryUsageData(
                        total=info.memory_bytes, breakdown={"engine": info.memory_bytes}
                    )
                )
        return response

    async def free(self, _: HealthMessage) -> Result:
        """Drop the model."""
        await self._host.unload()
        return Result(success=True, message="Model freed")

    def _model(self, options: PredictOptions) -> LoadedModel:
        """The model, if it is the one that the request is for.

        Raises:
            NotLoadedError: there is none.
            ModelNotFoundError: it is another one.
        """
        model = self._host.model()
        asked, served = options.ModelIdentity, model.settings.identity
        if asked and served and asked != served:
            # The words tell LocalAI's router that it has the wrong process.
            raise ModelNotFoundError(
                f"model identity mismatch: {asked!r} was asked for, {served!r} is loaded",
                param="ModelIdentity",
            )
        return model


async def _answer(options: PredictOptions, model: LoadedModel) -> tuple[EventStream, ReplyEncoder]:
    # A long prompt must not hold up other streams.
    call = await asyncio.to_thread(read_predict_options, options, model)
    stream = EventStream(model.engine, [call.generation])
    encoder = ReplyEncoder(
        stream,
        model.tokenizer,
        has_message=not (call.has_tools and model.settings.deltas_only),
        top_logprobs=call.top_logprobs,
    )
    return stream, encoder
