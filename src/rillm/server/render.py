"""POST .../render: what a request is to an engine, without asking one.

The answer is a body for /inference/v1/generate, here or elsewhere. Source: vLLM 0.33's render
server, but `max_tokens` is always said: a token endpoint takes its absence for the rest of the
context.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.errors import ContextLengthError, InvalidRequestError
from rillm.server.chat import read_chat_call
from rillm.server.completions import read_completion_call
from rillm.server.context import TextContext
from rillm.server.protocol import ChatCompletionRequest, CompletionRequest, GenerationRequest
from rillm.server.sse import json_response
from rillm.streams import Generation
from rillm.token_wire import MAX_ID_LENGTH, sampling_object


class Render:
    """The routes, for one model."""

    def __init__(self, context: TextContext) -> None:
        self._context = context
        self._chat_decoder = msgspec.json.Decoder(ChatCompletionRequest)
        self._completion_decoder = msgspec.json.Decoder(CompletionRequest)

    async def render_chat(self, http: Request) -> Response:
        """POST /v1/chat/completions/render.

        Raises:
            RequestError: the request is refused, as /v1/chat/completions would refuse it.
        """
        call = await read_chat_call(http, self._context, self._chat_decoder)
        rendered = self._rendered(call.request, call.generation, call.model)
        rendered["request_id"] = _name("chatcmpl-", call.request_id)
        rendered["parse_context"] = parse_context(call.request)
        return json_response(msgspec.json.encode(rendered), call.request_id)

    async def render_completion(self, http: Request) -> Response:
        """POST /v1/completions/render: a list, an item for each prompt.

        Raises:
            RequestError: the request is refused, as /v1/completions would refuse it.
        """
        call = await read_completion_call(http, self._context, self._completion_decoder)
        items = []
        for position, generation in enumerate(call.generations):
            suffix = f"-{position}" if len(call.generations) > 1 else ""
            rendered = self._rendered(call.request, generation, call.model)
            rendered["request_id"] = _name("cmpl-", call.request_id, suffix)
            items.append(rendered)
        return json_response(msgspec.json.encode(items), call.request_id)

    def _rendered(
        self, request: GenerationRequest, generation: Generation, model: str
    ) -> dict[str, Any]:
        token_ids, params = generation.prompt_token_ids, generation.sampling_params
        if not token_ids:
            raise InvalidRequestError("No token_ids rendered: the prompt is empty", param="prompt")
        length = self._context.engine.max_model_len
        room = length - len(token_ids)
        if room < 1:
            raise ContextLengthError(
                f"prompt has {len(token_ids)} tokens, but the maximum context length is {length} "
                "tokens, at least one of them for the output",
                param="input_tokens",
            )
        return {
            "request_id": None,
            "token_ids": token_ids,
            "token_offsets": None,
            "features": None,
            "content_parts": None,
            "sampling_params": sampling_object(
                params, max_tokens=min(params.max_tokens or room, room)
            ),
            "model": model,
            "reasoning_ended": None,
            "reasoning_parser_kwargs": None,
            "return_token_ids": request.return_token_ids,
            "output_mode": "tokens",
            "parse_context": None,
            "stream": bool(request.stream),
            "stream_options": request.stream_options,
            "cache_salt": generation.cache_salt,
            "priority": generation.priority,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
        }


def parse_context(request: ChatCompletionRequest) -> dict[str, Any]:
    """What output mode `derender` of the token endpoint has to know of a conversation."""
    tool_choice = request.tool_choice or ("auto" if request.tools else "none")
    calls = [message.get("tool_calls") for message in request.messages]
    return {
        "tools": request.tools,
        "tool_choice": tool_choice,
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "include_reasoning": request.include_reasoning is not False,
        "chat_template_kwargs": request.chat_template_kwargs or {},
        "history_tool_call_cnt": sum(len(each) for each in calls if isinstance(each, list)),
    }


def _name(prefix: str, request_id: str, suffix: str = "") -> str:
    """A name that the token endpoint takes, however long the caller's is."""
    return prefix + request_id[: MAX_ID_LENGTH - len(prefix) - len(suffix)] + suffix
