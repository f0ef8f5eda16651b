"""From the body of a Responses request to a prompt: all that is decided before the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from rillm.errors import ContextLengthError, InvalidRequestError
from rillm.server.chat import ChatCall, new_chat_call
from rillm.server.context import TextContext
from rillm.server.limits import check_max_tokens
from rillm.server.responses.items import (
    Item,
    chat_messages,
    item_id,
    new_response_id,
    read_items,
    references,
)
from rillm.server.responses.kept import KeptResponses
from rillm.server.responses.request import (
    ResponsesRequest,
    chat_request,
    check_response_request,
    own_names,
)
from rillm.server.responses.tools import ChatTools, read_chat_tools


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseCall:
    """A request that has passed all checks which need no engine."""

    id: str
    """Of the response."""
    request: ResponsesRequest
    input: list[Item]
    """All items before the output, those of previous responses first."""
    tools: ChatTools
    chat: ChatCall
    """What it is in terms of chat, prompt included."""


async def new_response_call(
    http: Request,
    request: ResponsesRequest,
    context: TextContext,
    kept: KeptResponses,
    *,
    num_bytes: int,
) -> ResponseCall:
    """Check and render a request.

    Args:
        http: names the request.
        request: decoded.
        context: the model's.
        kept: the responses it may go on from.
        num_bytes: size of its body.

    Raises:
        RequestError: the request is refused.
    """
    context.model.resolve(request.model)
    check_response_request(request)
    check_max_tokens("max_output_tokens", request.max_output_tokens, context.engine)
    tools = read_chat_tools(request.tools, request.tool_choice)
    history, history_bytes = await kept.history(request.previous_response_id)
    id = new_response_id()
    items = history + read_items(
        request.input,
        history=history,
        found=await kept.referenced(references(request.input), history),
        new_id=lambda kind, suffix: item_id(id, kind, suffix),
    )
    if not items:
        raise InvalidRequestError(
            "input is empty, must hold at least one item without previous_response_id",
            param="input",
        )
    messages = chat_messages(request.instructions, items)
    prepare = _Preparation(request, context, tools, http, num_bytes + history_bytes)
    with own_names():
        chat = await prepare.fitting(messages)
    return ResponseCall(id=id, request=request, input=items, tools=tools, chat=chat)


@dataclass(frozen=True, slots=True)
class _Preparation:
    """Renders a conversation, or the part of it that fits."""

    request: ResponsesRequest
    context: TextContext
    tools: ChatTools
    http: Request
    num_bytes: int

    async def fitting(self, messages: list[dict[str, Any]]) -> ChatCall:
        call = await self._prepare(messages)
        if self.request.truncation != "auto" or self._fits(call):
            return call
        kept = sum(message["role"] == "system" for message in messages[:1])
        # A turn goes as a whole, so that nothing answers what is not there any more.
        starts = [i for i in range(kept + 1, len(messages)) if messages[i]["role"] == "user"]
        calls: dict[int, ChatCall] = {}

        async def fits_from(start: int) -> bool:
            calls[start] = await self._prepare(messages[:kept] + messages[start:])
            return self._fits(calls[start])

        low, high = 0, len(starts)
        while low < high:
            middle = (low + high) // 2
            if await fits_from(starts[middle]):
                high = middle
            else:
                low = middle + 1
        if low == len(starts):
            raise ContextLengthError(
                f"input is too long even without its older turns: this model's maximum context "
                f"length is {self.context.engine.max_model_len} tokens",
                param="input_tokens",
            )
        return calls[starts[low]]

    async def _prepare(self, messages: list[dict[str, Any]]) -> ChatCall:
        chat = chat_request(self.request, messages, self.tools)
        return await new_chat_call(self.http, chat, self.context, num_bytes=self.num_bytes)

    def _fits(self, call: ChatCall) -> bool:
        room = self.context.engine.max_model_len - len(call.generation.prompt_token_ids)
        return room >= (self.request.max_output_tokens or 1)
