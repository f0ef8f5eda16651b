"""POST .../derender: what a token endpoint answered, as chat and completions answer.

JSON in and out, never a stream of events: with `stream: true` a chunk of the token endpoint goes
in and one of chat or completions comes out, and the caller keeps the state in between. Source:
vLLM 0.33's render server; the caller may set `id` and `created`, so that they are constant over a
stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.choice_parser import OutputFormat
from rillm.engine.messages import TokenDelta
from rillm.errors import InvalidRequestError
from rillm.server.chat import chat_answer, check_conversation
from rillm.server.chat_chunks import ChatAnswer, chat_completion
from rillm.server.completion_chunks import completion
from rillm.server.completions import completion_answer, only_scores
from rillm.server.context import TextContext
from rillm.server.derender_chunk import derendered_chat_chunk, derendered_text_chunk
from rillm.server.derender_request import (
    ChatDerenderRequest,
    CompletionDerenderRequest,
    DerenderRequest,
    StreamState,
    check_chat_context,
    check_ids,
    check_prompts,
    check_whole,
    refuse_in_stream,
    single_chunk,
)
from rillm.server.errors import JSON
from rillm.server.protocol import (
    INLINE_BODY_BYTES,
    ChatCompletionRequest,
    CompletionRequest,
    decode_json,
    read_body,
)
from rillm.server.told_engine import Told, ToldStream, text_params, told_deltas
from rillm.server.tools import check_reads_calls, read_tools
from rillm.streams import Generation
from rillm.token_wire import Answer

_CONTEXT_TOKENS = 16
"""Tokens before the next one that can still decide its text."""


class Derender:
    """The routes, for one model."""

    def __init__(self, context: TextContext) -> None:
        self._context = context
        self._chat_decoder = msgspec.json.Decoder(ChatDerenderRequest)
        self._completion_decoder = msgspec.json.Decoder(CompletionDerenderRequest)

    async def derender_chat(self, http: Request) -> Response:
        """POST /v1/chat/completions/derender.

        Raises:
            RequestError: the request is refused.
        """
        raw = await read_body(http)
        request = decode_json(raw, self._chat_decoder)
        context = self._context
        model = context.model.resolve(request.model)
        check_chat_context(request, context)
        check_ids(request.prompt_token_ids or [], "prompt_token_ids", context)
        asked = request.chat_request
        if asked is not None:
            check_conversation(asked)
        body = self._chat_chunk if request.stream else self._chat_whole
        return await _answer(len(raw), body(request, asked or _plain_chat(), model))

    async def derender_completion(self, http: Request) -> Response:
        """POST /v1/completions/derender.

        Raises:
            RequestError: the request is refused.
        """
        raw = await read_body(http)
        request = decode_json(raw, self._completion_decoder)
        model = self._context.model.resolve(request.model)
        asked = request.completion_request or CompletionRequest(prompt="")
        body = self._completion_chunk if request.stream else self._completion_whole
        return await _answer(len(raw), body(request, asked, model))

    async def _chat_whole(
        self, request: ChatDerenderRequest, asked: ChatCompletionRequest, model: str
    ) -> bytes:
        context, told = self._context, request.generate_response
        if told is None:
            raise InvalidRequestError(
                "generate_response is absent, must be there", param="generate_response"
            )
        check_whole(told, "generate_response", context)
        prompt = request.prompt_token_ids or told.prompt_token_ids or []
        scored = None if asked.prompt_logprobs is None else prompt
        generation = Generation(
            prompt_token_ids=prompt,
            sampling_params=text_params(asked, len(told.choices), [told]),
            request_id="0",
            format=self._format(asked, prompt),
        )
        deltas = told_deltas(told, "generate_response", scored)
        item = Told(
            steps=[deltas], prompt_tokens=_prompt_tokens(request.prompt_tokens, told, prompt)
        )
        stream = ToldStream(context.tokenizer, [item], [generation])
        answer = self._chat_answer(request, asked, told, model)
        return chat_completion(answer, stream, await stream.collect(), context.tokenizer)

    async def _chat_chunk(
        self, request: ChatDerenderRequest, asked: ChatCompletionRequest, model: str
    ) -> bytes:
        context = self._context
        chunk = single_chunk(request, context)
        refuse_in_stream(asked, asked.echo, "chat_request")
        state = request.stream_state or StreamState()
        prompt = request.prompt_token_ids or []
        format = self._format(asked, prompt)
        generation = Generation(
            prompt_token_ids=prompt if format else (prompt + state.output_token_ids),
            sampling_params=text_params(asked, 1, [chunk]),
            request_id="0",
            format=format,
        )
        before = [TokenDelta(0, 0, state.output_token_ids)] if format else []
        answer = self._chat_answer(request, asked, chunk, model)
        answer = replace(answer, continuous_usage=False)
        stream = self._chunk_stream(
            generation, before, chunk, _prompt_tokens(request.prompt_tokens, chunk, prompt)
        )
        told = await derendered_chat_chunk(answer, stream, chunk, state, context.tokenizer)
        keeps = None if format else _CONTEXT_TOKENS
        return _with_state(told, _next_state(state, chunk, prompt, keeps))

    async def _completion_whole(
        self, request: CompletionDerenderRequest, asked: CompletionRequest, model: str
    ) -> bytes:
        context, answers = self._context, request.generate_responses or []
        lengths, prompts = check_prompts(request, context)
        name = "generate_responses"
        for position, each in enumerate(answers):
            check_whole(each, f"{name}[{position}]", context)
            _cut_logprobs(each, asked)
        scores = asked.prompt_logprobs is not None or bool(asked.echo and asked.logprobs)
        generations = [
            Generation(
                prompt_token_ids=prompt,
                sampling_params=text_params(asked, len(each.choices), [each]),
                request_id=str(position),
                only_scores=only_scores(asked),
            )
            for position, (prompt, each) in enumerate(zip(prompts, answers, strict=True))
        ]
        told = [
            Told(
                steps=[told_deltas(each, name, prompt if scores else None)],
                prompt_tokens=_prompt_tokens(length, each, prompt),
            )
            for length, prompt, each in zip(lengths, prompts, answers, strict=True)
        ]
        stream = ToldStream(context.tokenizer, told, generations)
        answer = completion_answer(
            asked, context, **self._identity(request, answers[0]), model=model
        )
        if answer.echo is not None and len(answer.echo) != len(answers):
            raise InvalidRequestError(
                f"completion_request.prompt has {len(answer.echo)} prompts, must have one for "
                f"each of the {len(answers)} generate_responses",
                param="completion_request.prompt",
            )
        if request.completion_request is None:
            has_logprobs = any(c.logprobs is not None for each in answers for c in each.choices)
            answer = replace(answer, has_logprobs=has_logprobs)
        return completion(answer, stream, await stream.collect(), context.tokenizer)

    async def _completion_chunk(
        self, request: CompletionDerenderRequest, asked: CompletionRequest, model: str
    ) -> bytes:
        context = self._context
        chunk = single_chunk(request, context)
        refuse_in_stream(asked, asked.echo, "completion_request")
        _cut_logprobs(chunk, asked)
        state = request.stream_state or StreamState()
        length = request.prompt_tokens if isinstance(request.prompt_tokens, int) else 0
        prompt = [each for each in request.prompt_token_ids or [] if isinstance(each, int)]
        check_ids(prompt, "prompt_token_ids", context)
        generation = Generation(
            prompt_token_ids=prompt + state.output_token_ids,
            sampling_params=text_params(asked, 1, [chunk]),
            request_id="0",
        )
        answer = completion_answer(asked, context, **self._identity(request, chunk), model=model)
        if request.completion_request is None:
            answer = replace(answer, has_logprobs=any(c.logprobs for c in chunk.choices))
        answer = replace(answer, continuous_usage=False)
        stream = self._chunk_stream(generation, [], chunk, _prompt_tokens(length, chunk, prompt))
        told = await derendered_text_chunk(answer, stream, chunk, state, context.tokenizer)
        following = _next_state(state, chunk, prompt, _CONTEXT_TOKENS)
        return _with_state(told, following)

    def _chunk_stream(
        self,
        generation: Generation,
        before: list[TokenDelta],
        chunk: Answer,
        prompt_tokens: int,
    ) -> ToldStream:
        """What was told before as the first output, the chunk as the second."""
        deltas = told_deltas(chunk, "generate_chunk")
        for delta in deltas:
            delta.choice = 0
        told = Told(steps=[before, deltas], prompt_tokens=prompt_tokens)
        return ToldStream(self._context.tokenizer, [told], [generation])

    def _format(self, asked: ChatCompletionRequest, prompt: list[int]) -> OutputFormat | None:
        formats = self._context.formats
        tools = read_tools(asked)
        check_reads_calls(tools, formats)
        return None if formats is None else formats.for_prompt(prompt, tools)

    def _identity(self, request: DerenderRequest, told: Answer) -> dict[str, Any]:
        created = request.created if request.created is not None else told.created
        return {
            "id": request.id or told.request_id or "generate-tokens-unknown",
            "created": int(time.time()) if created is None else created,
        }

    def _chat_answer(
        self,
        request: ChatDerenderRequest,
        asked: ChatCompletionRequest,
        told: Answer,
        model: str,
    ) -> ChatAnswer:
        answer = chat_answer(asked, self._context, **self._identity(request, told), model=model)
        if request.chat_request is None and any(c.logprobs is not None for c in told.choices):
            return replace(answer, top_logprobs=-1)
        return answer


def _plain_chat() -> ChatCompletionRequest:
    """What is taken for the request where none is sent: all defaults."""
    return ChatCompletionRequest(messages=[{"role": "user", "content": ""}])


def _prompt_tokens(said: int, told: Answer, prompt: Sequence[int]) -> int:
    """How long a prompt is: as the caller says, else as the answer does."""
    of_answer = 0 if told.usage is None else told.usage.prompt_tokens
    return said or of_answer or len(prompt)


def _cut_logprobs(answer: Answer, asked: CompletionRequest) -> None:
    """Leave as many alternatives as were asked for, and the token itself."""
    if asked.logprobs is None or asked.logprobs < 0 or asked.logprob_token_ids is not None:
        return
    for choice in answer.choices:
        for position in choice.logprobs.content if choice.logprobs is not None else ():
            del position.top_logprobs[asked.logprobs + 1 :]


def _next_state(
    state: StreamState,
    chunk: Answer,
    prompt: list[int],
    keeps: int | None,
) -> StreamState:
    """The state after a chunk.

    Args:
        state: before it, but for counts that its text has moved on.
        chunk: of one choice, or of none.
        prompt: or its end.
        keeps: tokens to keep, of the prompt if need be; None: all of the output.
    """
    new = [token_id for choice in chunk.choices for token_id in choice.token_ids or []]
    kept = state.output_token_ids + new
    if keeps is not None:
        kept = (prompt + kept)[-keeps:]
    return StreamState(
        role_sent=state.role_sent or bool(chunk.choices),
        output_token_ids=kept,
        num_tokens=state.num_tokens + len(new),
        reasoning_tokens=state.reasoning_tokens,
        logprob_text_offset=state.logprob_text_offset,
    )


def _with_state(chunk: dict[str, Any], state: StreamState) -> bytes:
    return msgspec.json.encode({"chunk": chunk, "stream_state": state})


async def _answer(num_bytes: int, work: Coroutine[Any, Any, bytes]) -> Response:
    """Answer with what `work` returns; a long answer must not hold up other streams."""
    is_long = num_bytes > INLINE_BODY_BYTES
    body = await (asyncio.to_thread(asyncio.run, work) if is_long else work)
    return Response(body, media_type=JSON)
