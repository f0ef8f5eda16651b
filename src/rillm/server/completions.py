"""POST /v1/completions: text or token ids in, their continuation out."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.errors import InvalidRequestError
from rillm.sampling_params import SamplingParams
from rillm.server.completion_chunks import CompletionAnswer, CompletionChunkEncoder, completion
from rillm.server.models import ServedModel
from rillm.server.protocol import (
    INLINE_BODY_BYTES,
    MAX_PROMPTS,
    CompletionRequest,
    StreamOptions,
    decode_body,
    engine_request_id,
    read_body,
    request_id_of,
)
from rillm.server.sampling import sampling_params
from rillm.server.serving_engine import ServingEngine
from rillm.server.sse import EventStreamResponse, json_response, until_disconnect
from rillm.streams import EventStream, Generation
from rillm.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16
"""The OpenAI API's."""


class Completions:
    """The route, for one model."""

    def __init__(self, engine: ServingEngine, model: ServedModel, fingerprint: str) -> None:
        self._engine = engine
        self._tokenizer = engine.get_tokenizer()
        self._model = model
        self._fingerprint = fingerprint
        self._decoder = msgspec.json.Decoder(CompletionRequest)

    async def create(self, http: Request) -> Response:
        """Answer one request.

        Raises:
            RillmError: the request is refused, or generation failed before its first output.
        """
        body = await read_body(http)
        request = decode_body(body, self._decoder)
        model = self._model.resolve(request.model)
        request_id = request_id_of(http, request)
        _check_fields(request)
        prompts = _prompts(request.prompt)
        encode = functools.partial(_token_ids, prompts, self._tokenizer)
        token_ids = await asyncio.to_thread(encode) if len(body) > INLINE_BODY_BYTES else encode()
        stream = EventStream(self._engine, self._generations(request, request_id, token_ids))
        echo = _texts(prompts, self._tokenizer) if request.echo else None
        answer = self._answer(request, request_id, model, echo)
        if request.stream:
            return EventStreamResponse(self._chunks(stream, answer), request_id)
        results = await until_disconnect(http.receive, stream.collect())
        return json_response(completion(answer, stream, results, self._tokenizer), request_id)

    def _generations(
        self, request: CompletionRequest, request_id: str, prompts: list[list[int]]
    ) -> list[Generation]:
        params = self._sampling_params(request)
        return [
            Generation(
                prompt_token_ids=token_ids,
                sampling_params=params,
                request_id=engine_request_id(request_id),
                priority=request.priority or 0,
                cache_salt=request.cache_salt,
            )
            for token_ids in prompts
        ]

    def _sampling_params(self, request: CompletionRequest) -> SamplingParams:
        max_tokens = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
        return sampling_params(
            request,
            self._engine.generation_config,
            max_tokens=max_tokens,
            logprobs=request.logprobs,
            prompt_logprobs=request.logprobs if request.echo else None,
        )

    def _answer(
        self,
        request: CompletionRequest,
        request_id: str,
        model: str,
        echo: list[str] | None,
    ) -> CompletionAnswer:
        options = request.stream_options or StreamOptions()
        return CompletionAnswer(
            id=f"cmpl-{request_id}",
            created=int(time.time()),
            model=model,
            system_fingerprint=self._fingerprint,
            echo=echo,
            has_logprobs=request.logprobs is not None,
            return_token_ids=bool(request.return_token_ids),
            include_usage=options.include_usage,
            continuous_usage=options.include_usage and options.continuous_usage_stats,
        )

    async def _chunks(
        self, stream: EventStream, answer: CompletionAnswer
    ) -> AsyncGenerator[bytes, None]:
        encoder = CompletionChunkEncoder(answer, stream, self._tokenizer)
        async with aclosing(stream.deltas()) as batches:
            async for deltas in batches:
                if chunks := encoder.encode(deltas):
                    yield chunks
        yield encoder.end()


def _check_fields(request: CompletionRequest) -> None:
    if request.best_of not in (None, 1):
        raise InvalidRequestError(
            f"best_of is {request.best_of}, must be 1 or absent: use n", param="best_of"
        )


def _prompts(prompt: str | list[str | int | list[int]]) -> list[str] | list[list[int]]:
    """Take the four forms of `prompt` apart: one prompt or several, text or token ids."""
    if isinstance(prompt, str):
        return [prompt]
    texts = [each for each in prompt if isinstance(each, str)]
    lists = [each for each in prompt if isinstance(each, list)]
    token_ids = [each for each in prompt if isinstance(each, int)]
    forms = [form for form in (texts, lists, token_ids) if form]
    if len(forms) != 1:
        raise InvalidRequestError(
            "prompt must be a text, texts, token ids or lists of token ids, and not empty",
            param="prompt",
        )
    if token_ids:
        return [token_ids]
    if len(prompt) > MAX_PROMPTS:
        raise InvalidRequestError(
            f"prompt has {len(prompt)} prompts, at most {MAX_PROMPTS}", param="prompt"
        )
    return texts or lists


def _token_ids(prompts: list[str] | list[list[int]], tokenizer: Tokenizer) -> list[list[int]]:
    token_ids = [
        tokenizer.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts
    ]
    if not all(token_ids):
        raise InvalidRequestError("prompt is empty, must hold at least one token", param="prompt")
    return token_ids


def _texts(prompts: list[str] | list[list[int]], tokenizer: Tokenizer) -> list[str]:
    return [prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in prompts]
