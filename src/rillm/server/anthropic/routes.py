"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's API over the path of chat."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.errors import ContextLengthError, RequestError
from rillm.server.anthropic.events import STREAM, MessageAnswer, MessageEncoder, WholeMessage
from rillm.server.anthropic.protocol import CountTokensRequest, MessagesRequest
from rillm.server.anthropic.request import chat_request, in_own_words, line_stripper
from rillm.server.chat import ChatCall, new_chat_call
from rillm.server.context import TextContext, answer_stream
from rillm.server.options import HttpOptions
from rillm.server.protocol import check_generation, decode_json, read_body
from rillm.server.sse import json_response, until_disconnect
from rillm.streams import EventStream


class Messages:
    """The routes, for one model."""

    def __init__(self, context: TextContext, options: HttpOptions) -> None:
        self._context = context
        self._strip = line_stripper(options.strip_system_line)
        self._decoder = msgspec.json.Decoder(MessagesRequest)
        self._count_decoder = msgspec.json.Decoder(CountTokensRequest)

    async def create(self, http: Request) -> Response:
        """POST /v1/messages.

        Raises:
            RillmError: the request is refused, or generation failed before its first output.
        """
        body = await read_body(http)
        request = decode_json(body, self._decoder)
        call = await self._call(http, request, num_bytes=len(body))
        generation = replace(call.generation, only_scores=request.max_tokens == 0)
        stream = EventStream(self._context.engine, [generation])
        answer = MessageAnswer(
            id=f"msg_{call.request_id}",
            model=call.model,
            max_tokens=request.max_tokens,
            shows_thinking=request.thinking is None or request.thinking.display != "omitted",
        )
        if request.stream:
            return answer_stream(stream, MessageEncoder(answer, stream), call.request_id, STREAM)
        message = WholeMessage(answer, stream)
        await until_disconnect(http.receive, stream.read_to_end(message.add))
        return json_response(message.encode(), call.request_id)

    async def count_tokens(self, http: Request) -> Response:
        """POST /v1/messages/count_tokens.

        Raises:
            RequestError: the request is refused, as /v1/messages would refuse it.
        """
        body = await read_body(http)
        request = decode_json(body, self._count_decoder)
        call = await self._call(http, request, num_bytes=len(body))
        num_tokens = len(call.generation.prompt_token_ids)
        return json_response(msgspec.json.encode({"input_tokens": num_tokens}), call.request_id)

    async def _call(self, http: Request, request: CountTokensRequest, num_bytes: int) -> ChatCall:
        """Check and render a decoded request, on the way that chat goes."""
        length = self._context.engine.max_model_len
        chat = chat_request(request, self._strip)
        if isinstance(request, MessagesRequest):
            # The engine makes no less than one token, and stops where the context ends.
            chat.max_tokens = min(max(request.max_tokens, 1), length)
        try:
            check_generation(chat)
            call = await new_chat_call(http, chat, self._context, num_bytes=num_bytes)
        except RequestError as error:
            raise in_own_words(error) from None
        num_tokens = len(call.generation.prompt_token_ids)
        if isinstance(request, MessagesRequest) and num_tokens >= length:
            # In the words by which agents know that they have to shorten the conversation.
            raise ContextLengthError(
                f"prompt is too long: {num_tokens} tokens > {length - 1} maximum", param="messages"
            )
        return call
