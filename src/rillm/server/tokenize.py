"""POST /tokenize and /detokenize, GET /tokenizer_info: the tokenizer alone.

Source: vLLM 0.33.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from rillm.errors import InvalidRequestError
from rillm.server.chat import check_conversation, opens_answer, prompt_token_ids
from rillm.server.context import TextContext, off_loop
from rillm.server.errors import JSON
from rillm.server.protocol import ChatCompletionRequest, decode_json, read_body
from rillm.server.template_fields import template_variables
from rillm.server.tools import read_tools
from rillm.text.tokenizer import Tokenizer


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """The body of POST /tokenize: a text, or a conversation."""

    UNSUPPORTED: ClassVar[tuple[str, ...]] = ("chat_template",)

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    """Put the tokens around the text that the tokenizer prescribes. None: for a prompt only."""
    return_token_strs: bool | None = None
    """Also answer with the tokens' names in the vocabulary."""
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    """None: true, unless the final message is continued."""
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    chat_template: Any = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """The body of POST /detokenize."""

    tokens: list[Annotated[int, Meta(ge=0)]]
    model: str | None = None


class Tokenize:
    """The routes, for one model."""

    def __init__(self, context: TextContext) -> None:
        self._context = context
        self._decoder = msgspec.json.Decoder(TokenizeRequest)
        self._detokenize_decoder = msgspec.json.Decoder(DetokenizeRequest)

    async def tokenize(self, http: Request) -> Response:
        """POST /tokenize.

        Raises:
            RequestError: the request is refused.
        """
        body = await read_body(http)
        request = decode_json(body, self._decoder)
        self._context.model.resolve(request.model)
        tokenizer = self._context.tokenizer
        token_ids = await off_loop(len(body), functools.partial(_encode, request, tokenizer))
        names = None
        if request.return_token_strs:
            names = [tokenizer.token_text(token_id) for token_id in token_ids]
        return _json(
            {
                "count": len(token_ids),
                "max_model_len": self._context.engine.max_model_len,
                "tokens": token_ids,
                "token_strs": names,
            }
        )

    async def detokenize(self, http: Request) -> Response:
        """POST /detokenize.

        Raises:
            RequestError: the request is refused.
        """
        body = await read_body(http)
        request = decode_json(body, self._detokenize_decoder)
        self._context.model.resolve(request.model)
        vocab_size = self._context.engine.model_config.vocab_size
        if request.tokens and max(request.tokens) >= vocab_size:
            raise InvalidRequestError(
                f"tokens holds {max(request.tokens)}, which is out of vocabulary: must be from 0 "
                f"to {vocab_size - 1}",
                param="tokens",
            )
        decode = functools.partial(
            self._context.tokenizer.decode, request.tokens, skip_special_tokens=False
        )
        return _json({"prompt": await off_loop(len(body), decode)})

    async def get_info(self, _: Request) -> Response:
        """GET /tokenizer_info: what the tokenizer's files say."""
        tokenizer = self._context.tokenizer
        return _json(
            {
                "tokenizer_class": type(tokenizer).__name__,
                **tokenizer.config,
                "chat_template": tokenizer.chat_templates.get("default"),
            }
        )


def _encode(request: TokenizeRequest, tokenizer: Tokenizer) -> list[int]:
    if request.chat_template is not None:
        raise InvalidRequestError(
            "chat_template must be absent: it is not supported", param="chat_template"
        )
    if (request.prompt is None) == (request.messages is None):
        raise InvalidRequestError(
            "exactly one of prompt and messages must be there", param="prompt"
        )
    if request.prompt is not None:
        return tokenizer.encode(request.prompt, request.add_special_tokens is not False)
    chat = ChatCompletionRequest(
        messages=request.messages or [],
        tools=request.tools,
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
        chat_template_kwargs=request.chat_template_kwargs,
    )
    check_conversation(chat)
    tools = read_tools(chat)
    if not request.add_special_tokens:
        return prompt_token_ids(chat, tools, tokenizer)
    text = tokenizer.apply_chat_template(
        chat.messages,
        tools=None if tools is None else tools.tools,
        add_generation_prompt=opens_answer(chat),
        continue_final_message=chat.continue_final_message,
        **template_variables(chat),
    )
    return tokenizer.encode(text)


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type=JSON)
