"""POST /v1/completions: text or token ids in, their continuation out."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.errors import InvalidRequestError
from rillm.sampling_params import SamplingParams
from rillm.server.completion_chunks import CompletionAnswer, CompletionChunkEncoder, completion
from rillm.server.context import TextContext, answer_stream, answer_whole, off_loop
from rillm.server.limits import check_alternatives, check_max_tokens, truncated
from rillm.server.protocol import (
    MAX_PROMPTS,
    CompletionRequest,
    StreamOptions,
    decode_body,
    engine_request_id,
    read_body,
    request_id_of,
)
from rillm.server.sampling import sampling_params
from rillm.server.structured import read_constraint
from rillm.streams import EventStream, Generation
from rillm.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16
"""The OpenAI API's."""


class Completions:
    """The route, for one model."""

    def __init__(self, context: TextContext) -> None:
        self._context = context
        self._decoder = msgspec.json.Decoder(CompletionRequest)

    async def create(self, http: Request) -> Response:
        """Answer one request.

        Raises:
            RillmError: the request is refused, or generation failed before its first output.
        """
        context = self._context
        tokenizer = context.tokenizer
        call = await read_completion_call(http, context, self._decoder)
        stream = EventStream(context.engine, call.generations)
        answer = completion_answer(
            call.request,
            context,
            id=f"cmpl-{call.request_id}",
            created=int(time.time()),
            model=call.model,
        )
        if call.request.stream:
            encoder = CompletionChunkEncoder(answer, stream, tokenizer)
            return answer_stream(stream, encoder, call.request_id, memo=context.memo)
        return await answer_whole(
            http,
            stream,
            lambda results: completion(answer, stream, results, tokenizer),
            call.request_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionCall:
    """A completions request that has passed all checks which need no engine."""

    request: CompletionRequest
    request_id: str
    """The caller's name for it, or a random one."""
    model: str
    """The name to answer with."""
    generations: list[Generation]
    """One for each prompt."""


async def read_completion_call(
    http: Request, context: TextContext, decoder: msgspec.json.Decoder[CompletionRequest]
) -> CompletionCall:
    """Read and check a request, and encode its prompts: what they are to the engine.

    Raises:
        RequestError: the request is refused.
    """
    body = await read_body(http)
    request = decode_body(body, decoder)
    model = context.model.resolve(request.model)
    request_id = request_id_of(http, request)
    _check_fields(request)
    prompts = _prompts(request.prompt)
    params = _sampling_params(request, context)
    await context.engine.check_constraint(params)
    encode = functools.partial(_token_ids, request, prompts, context.tokenizer)
    token_ids = await off_loop(len(body), encode)
    length = context.engine.max_model_len
    generations = [
        Generation(
            prompt_token_ids=truncated(each, request, params.max_tokens, length),
            sampling_params=params,
            request_id=engine_request_id(request_id),
            priority=request.priority or 0,
            cache_salt=request.cache_salt,
            only_scores=only_scores(request),
        )
        for each in token_ids
    ]
    return CompletionCall(
        request=request, request_id=request_id, model=model, generations=generations
    )


def completion_answer(
    request: CompletionRequest, context: TextContext, *, id: str, created: int, model: str
) -> CompletionAnswer:
    """What is constant over the answer to a request.

    Args:
        request: checked.
        context: the model's.
        id: of the answer.
        created: seconds since the epoch.
        model: the name to answer with.
    """
    options = request.stream_options or StreamOptions()
    return CompletionAnswer(
        id=id,
        created=created,
        model=model,
        system_fingerprint=context.fingerprint,
        echo=_texts(_prompts(request.prompt), context.tokenizer) if request.echo else None,
        has_logprobs=request.logprobs is not None,
        tokens_as_ids=bool(request.return_tokens_as_token_ids),
        return_prompt_logprobs=request.prompt_logprobs is not None,
        has_metrics=context.has_metrics or bool(request.return_metrics),
        return_token_ids=bool(request.return_token_ids),
        include_usage=options.include_usage,
        continuous_usage=options.include_usage and options.continuous_usage_stats,
    )


def _sampling_params(request: CompletionRequest, context: TextContext) -> SamplingParams:
    max_tokens = 1 if only_scores(request) else request.max_tokens
    check_max_tokens("max_tokens", max_tokens, context.engine)
    check_alternatives("logprobs", request.logprobs, context.engine)
    prompt_logprobs = request.prompt_logprobs
    if prompt_logprobs is None and request.echo:
        prompt_logprobs = request.logprobs
    return sampling_params(
        request,
        context.engine.generation_config,
        max_tokens=DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens,
        logprobs=request.logprobs,
        prompt_logprobs=prompt_logprobs,
        constraint=read_constraint(request),
    )


def only_scores(request: CompletionRequest) -> bool:
    """Whether nothing is wanted but the prompt's own logprobs."""
    return bool(request.echo) and request.max_tokens == 0


def _check_fields(request: CompletionRequest) -> None:
    if request.best_of not in (None, 1):
        raise InvalidRequestError(
            f"best_of is {request.best_of}, must be 1 or absent: use n", param="best_of"
        )
    if request.echo and request.truncate_prompt_tokens is not None:
        raise InvalidRequestError(
            "truncate_prompt_tokens is set, must be absent with echo",
            param="truncate_prompt_tokens",
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


def _token_ids(
    request: CompletionRequest, prompts: list[str] | list[list[int]], tokenizer: Tokenizer
) -> list[list[int]]:
    add_special = request.add_special_tokens is not False
    token_ids = [
        tokenizer.encode(prompt, add_special) if isinstance(prompt, str) else prompt
        for prompt in prompts
    ]
    if not all(token_ids):
        raise InvalidRequestError("prompt is empty, must hold at least one token", param="prompt")
    return token_ids


def _texts(prompts: list[str] | list[list[int]], tokenizer: Tokenizer) -> list[str]:
    return [prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in prompts]
