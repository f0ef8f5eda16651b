"""POST /v1/chat/completions: messages in, an assistant's message out."""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.errors import InvalidRequestError
from rillm.output_formats import ToolOptions
from rillm.request_options import check_template_names
from rillm.server.chat_chunks import ChatAnswer, ChatChunkEncoder, chat_completion
from rillm.server.context import TextContext, answer_stream, answer_whole, off_loop
from rillm.server.limits import check_alternatives, check_max_tokens, truncated
from rillm.server.protocol import (
    ChatCompletionRequest,
    StreamOptions,
    decode_body,
    engine_request_id,
    read_body,
    request_id_of,
)
from rillm.server.sampling import sampling_params
from rillm.server.serving_engine import ServingEngine
from rillm.server.structured import (
    after_reasoning,
    answer_rules,
    check_tools,
    read_constraint,
)
from rillm.server.template_fields import echoed_text, template_variables
from rillm.server.tools import check_reads_calls, read_tools
from rillm.streams import EventStream, Generation
from rillm.text.tokenizer import Tokenizer
from rillm.tool_constraints import constrained, is_constrained

_ROLES = ("system", "developer", "user", "assistant", "tool")


class ChatCompletions:
    """The route, for one model."""

    def __init__(self, context: TextContext) -> None:
        self._context = context
        self._decoder = msgspec.json.Decoder(ChatCompletionRequest)

    async def create(self, http: Request) -> Response:
        """Answer one request.

        Raises:
            RillmError: the request is refused, or generation failed before its first output.
        """
        context = self._context
        call = await read_chat_call(http, context, self._decoder)
        stream = EventStream(context.engine, [call.generation])
        answer = chat_answer(
            call.request,
            context,
            id=f"chatcmpl-{call.request_id}",
            created=int(time.time()),
            model=call.model,
        )
        tokenizer = context.tokenizer
        if call.request.stream:
            encoder = ChatChunkEncoder(answer, stream, tokenizer)
            return answer_stream(stream, encoder, call.request_id, memo=context.memo)
        return await answer_whole(
            http,
            stream,
            lambda results: chat_completion(answer, stream, results, tokenizer),
            call.request_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCall:
    """A chat request that has passed all checks which need no engine."""

    request: ChatCompletionRequest
    request_id: str
    """The caller's name for it, or a random one."""
    model: str
    """The name to answer with."""
    generation: Generation


async def read_chat_call(
    http: Request, context: TextContext, decoder: msgspec.json.Decoder[ChatCompletionRequest]
) -> ChatCall:
    """Read, check and render a request: what its conversation is to the engine.

    Raises:
        RequestError: the request is refused.
    """
    body = await read_body(http)
    request = decode_body(body, decoder)
    return await new_chat_call(http, request, context, num_bytes=len(body))


async def new_chat_call(
    http: Request, request: ChatCompletionRequest, context: TextContext, *, num_bytes: int
) -> ChatCall:
    """Check and render a decoded request, whichever API it came by.

    Args:
        http: names the request.
        request: what it says, in the words of chat.
        context: the model's.
        num_bytes: size of its body.

    Raises:
        RequestError: the request is refused.
    """
    model = context.model.resolve(request.model)
    request_id = request_id_of(http, request)
    check_conversation(request)
    _check_logprobs(request)
    tools = read_tools(request)
    check_reads_calls(tools, context.formats)
    constraint = read_constraint(request)
    check_tools(constraint, tools, context.formats)
    has_grammar = is_constrained(tools, context.formats, has_form=constraint is not None)
    engine = context.engine
    check_alternatives("top_logprobs", request.top_logprobs, engine)
    params = sampling_params(
        request,
        engine.generation_config,
        max_tokens=_max_tokens(request, engine),
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        prompt_logprobs=request.prompt_logprobs,
    )
    render = functools.partial(prompt_token_ids, request, tools, context.tokenizer)
    whole = await off_loop(num_bytes, render)
    token_ids = truncated(whole, request, params.max_tokens, engine.max_model_len)
    formats = context.formats
    params.structured_outputs = constraint
    # Before anything is made of it, under its own name.
    await engine.check_constraint(params)
    if formats is not None and tools is not None and has_grammar:
        # How long these take, their length does not say: what is short can refer to itself.
        rules = "" if constraint is None else await asyncio.to_thread(answer_rules, constraint)
        params = await asyncio.to_thread(constrained, params, token_ids, tools, formats, rules)
    elif constraint is not None:
        wrap = functools.partial(after_reasoning, constraint, formats, token_ids)
        params.structured_outputs = await off_loop(num_bytes, wrap)
    await engine.check_constraint(params)
    generation = Generation(
        prompt_token_ids=token_ids,
        sampling_params=params,
        request_id=engine_request_id(request_id),
        priority=request.priority or 0,
        cache_salt=request.cache_salt,
        format=None if formats is None else formats.for_prompt(token_ids, tools),
    )
    return ChatCall(request=request, request_id=request_id, model=model, generation=generation)


def chat_answer(
    request: ChatCompletionRequest, context: TextContext, *, id: str, created: int, model: str
) -> ChatAnswer:
    """What is constant over the answer to a request.

    Args:
        request: checked.
        context: the model's.
        id: of the answer.
        created: seconds since the epoch.
        model: the name to answer with.
    """
    options = request.stream_options or StreamOptions()
    role = "assistant" if opens_answer(request) else str(request.messages[-1]["role"])
    return ChatAnswer(
        id=id,
        created=created,
        model=model,
        system_fingerprint=context.fingerprint,
        role=role,
        echo=echoed_text(request, role),
        top_logprobs=_listed_logprobs(request),
        tokens_as_ids=bool(request.return_tokens_as_token_ids),
        names_function=isinstance(request.tool_choice, dict),
        return_token_ids=bool(request.return_token_ids),
        return_prompt_text=bool(request.return_prompt_text),
        has_metrics=context.has_metrics or bool(request.return_metrics),
        shows_tokens=request.include_reasoning is not False,
        include_usage=options.include_usage,
        continuous_usage=options.include_usage and options.continuous_usage_stats,
        reasoning_fields=() if request.include_reasoning is False else context.reasoning_fields,
    )


def check_conversation(request: ChatCompletionRequest) -> None:
    """Check what is to be rendered.

    Raises:
        InvalidRequestError: a field is not acceptable; `param` names it.
    """
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
    check_template_names(request.chat_template_kwargs)


def _check_logprobs(request: ChatCompletionRequest) -> None:
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequestError(
            f"top_logprobs is {request.top_logprobs}, must be absent unless logprobs is true",
            param="top_logprobs",
        )


def opens_answer(request: ChatCompletionRequest) -> bool:
    """Whether the prompt ends with the header of an assistant's message."""
    if request.add_generation_prompt is None:
        return not request.continue_final_message
    return request.add_generation_prompt


def _listed_logprobs(request: ChatCompletionRequest) -> int | None:
    if not request.logprobs:
        return None
    return -1 if request.logprob_token_ids is not None else request.top_logprobs or 0


def _max_tokens(request: ChatCompletionRequest, engine: ServingEngine) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value: int | None = getattr(request, name)
        if value is not None:
            check_max_tokens(name, value, engine)
            return value
    return engine.generation_config.max_new_tokens


def prompt_token_ids(
    request: ChatCompletionRequest, tools: ToolOptions | None, tokenizer: Tokenizer
) -> list[int]:
    """Render a conversation.

    Args:
        request: checked.
        tools: what it says about tools.
        tokenizer: the model's, with its chat template.

    Raises:
        InvalidRequestError: a message is malformed, or the template refuses it.
    """
    return tokenizer.encode_chat(
        request.messages,
        tools=None if tools is None else tools.tools,
        add_generation_prompt=opens_answer(request),
        continue_final_message=request.continue_final_message,
        **template_variables(request),
    )
