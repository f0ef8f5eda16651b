"""POST /v1/chat/completions: messages in, an assistant's message out."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.errors import InvalidRequestError
from rillm.output_formats import OutputFormats, ToolOptions
from rillm.server.chat_chunks import ChatAnswer, ChatChunkEncoder, chat_completion
from rillm.server.models import ServedModel
from rillm.server.protocol import (
    INLINE_BODY_BYTES,
    ChatCompletionRequest,
    StreamOptions,
    decode_body,
    engine_request_id,
    read_body,
    request_id_of,
)
from rillm.server.sampling import sampling_params
from rillm.server.serving_engine import ServingEngine
from rillm.server.sse import EventStreamResponse, json_response, until_disconnect
from rillm.server.tools import check_reads_calls, read_tools
from rillm.streams import EventStream, Generation
from rillm.text.tokenizer import Tokenizer

_ROLES = ("system", "developer", "user", "assistant", "tool")
_TEMPLATE_ARGUMENTS = frozenset(
    {
        "self",
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "chat_template",
        "escape_special_tokens",
    }
)
"""Names a request may not smuggle in as template variables."""


class ChatCompletions:
    """The route, for one model."""

    def __init__(
        self,
        engine: ServingEngine,
        model: ServedModel,
        fingerprint: str,
        formats: OutputFormats | None,
        reasoning_fields: tuple[str, ...],
    ) -> None:
        self._engine = engine
        self._formats = formats
        self._reasoning_fields = reasoning_fields
        self._tokenizer = engine.get_tokenizer()
        self._model = model
        self._fingerprint = fingerprint
        self._decoder = msgspec.json.Decoder(ChatCompletionRequest)

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
        tools = read_tools(request)
        check_reads_calls(tools, self._formats)
        params = sampling_params(
            request,
            self._engine.generation_config,
            max_tokens=_max_tokens(request, self._engine.generation_config.max_new_tokens),
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        )
        render = functools.partial(_prompt_token_ids, request, tools, self._tokenizer)
        token_ids = await asyncio.to_thread(render) if len(body) > INLINE_BODY_BYTES else render()
        generation = Generation(
            prompt_token_ids=token_ids,
            sampling_params=params,
            request_id=engine_request_id(request_id),
            priority=request.priority or 0,
            cache_salt=request.cache_salt,
            format=None if self._formats is None else self._formats.for_prompt(token_ids, tools),
        )
        stream = EventStream(self._engine, [generation])
        answer = self._answer(request, request_id, model)
        if request.stream:
            return EventStreamResponse(self._chunks(stream, answer), request_id)
        results = await until_disconnect(http.receive, stream.collect())
        return json_response(chat_completion(answer, stream, results, self._tokenizer), request_id)

    def _answer(self, request: ChatCompletionRequest, request_id: str, model: str) -> ChatAnswer:
        options = request.stream_options or StreamOptions()
        role = "assistant" if _opens_answer(request) else str(request.messages[-1]["role"])
        return ChatAnswer(
            id=f"chatcmpl-{request_id}",
            created=int(time.time()),
            model=model,
            system_fingerprint=self._fingerprint,
            role=role,
            top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
            return_token_ids=bool(request.return_token_ids),
            include_usage=options.include_usage,
            continuous_usage=options.include_usage and options.continuous_usage_stats,
            reasoning_fields=() if request.include_reasoning is False else self._reasoning_fields,
        )

    async def _chunks(self, stream: EventStream, answer: ChatAnswer) -> AsyncGenerator[bytes, None]:
        encoder = ChatChunkEncoder(answer, stream, self._tokenizer)
        async with aclosing(stream.deltas()) as batches:
            async for deltas in batches:
                if chunks := encoder.encode(deltas):
                    yield chunks
        yield encoder.end()


def _check_fields(request: ChatCompletionRequest) -> None:
    if not request.messages:
        raise InvalidRequestError(
            "messages is empty, must hold at least one message", param="messages"
        )
    for position, message in enumerate(request.messages):
        if message.get("role") not in _ROLES:
            raise InvalidRequestError(
                f"messages[{position}].role is {message.get('role')!r}, must be one of "
                + ", ".join(_ROLES),
                param=f"messages[{position}].role",
            )
    if request.continue_final_message and request.add_generation_prompt:
        raise InvalidRequestError(
            "continue_final_message is true, must be false when add_generation_prompt is true",
            param="continue_final_message",
        )
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequestError(
            f"top_logprobs is {request.top_logprobs}, must be absent unless logprobs is true",
            param="top_logprobs",
        )
    if request.top_logprobs is not None and request.top_logprobs < -1:
        raise InvalidRequestError(
            f"top_logprobs is {request.top_logprobs}, must be at least 0, or -1 for all",
            param="top_logprobs",
        )
    reserved = _TEMPLATE_ARGUMENTS.intersection(request.chat_template_kwargs or ())
    if reserved:
        raise InvalidRequestError(
            f"chat_template_kwargs holds {min(reserved)!r}, which is not for templates to take",
            param="chat_template_kwargs",
        )


def _opens_answer(request: ChatCompletionRequest) -> bool:
    if request.add_generation_prompt is None:
        return not request.continue_final_message
    return request.add_generation_prompt


def _max_tokens(request: ChatCompletionRequest, default: int | None) -> int | None:
    if request.max_completion_tokens is None:
        return default if request.max_tokens is None else request.max_tokens
    if request.max_completion_tokens < 1:
        raise InvalidRequestError(
            f"max_completion_tokens is {request.max_completion_tokens}, must be at least 1",
            param="max_completion_tokens",
        )
    return request.max_completion_tokens


def _prompt_token_ids(
    request: ChatCompletionRequest, tools: ToolOptions | None, tokenizer: Tokenizer
) -> list[int]:
    variables: dict[str, Any] = request.chat_template_kwargs or {}
    return tokenizer.encode_chat(
        request.messages,
        tools=None if tools is None else tools.tools,
        add_generation_prompt=_opens_answer(request),
        continue_final_message=request.continue_final_message,
        **variables,
    )
