"""A request of the Messages API in the words of chat: from there on the two are one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from rillm.errors import InvalidRequestError, RequestError
from rillm.server.anthropic.conversation import StripText, chat_messages
from rillm.server.anthropic.protocol import CountTokensRequest, MessagesRequest, Tool, ToolChoice
from rillm.server.protocol import ChatCompletionRequest

MAX_STOP_SEQUENCES: Final = 64

_AS_SENT: Final = (
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop_token_ids",
    "ignore_eos",
    "min_tokens",
    "logit_bias",
    "bad_words",
    "allowed_token_ids",
    "skip_special_tokens",
    "repetition_detection",
    "stream_interval",
    "priority",
    "cache_salt",
)
"""Fields that chat has by the same name."""
_OWN_NAMES: Final = {
    "response_format.json_schema": "output_config.format",
    "response_format": "output_config.format",
}
"""Paths in a chat request by what they are called here."""


def line_stripper(patterns: Sequence[str]) -> StripText:
    """A function that takes lines out of a text.

    Args:
        patterns: regular expressions of whole lines.
    """
    if not patterns:
        return lambda text: text
    lines = "|".join(f"(?:{pattern})" for pattern in patterns)
    expression = re.compile(rf"^[ \t]*(?:{lines})[ \t]*(?:\n|\Z)", re.MULTILINE)
    return lambda text: expression.sub("", text)


def chat_request(request: CountTokensRequest, strip: StripText) -> ChatCompletionRequest:
    """Say a request in the words of chat.

    Args:
        request: decoded.
        strip: takes out of a system text what changes with every request.

    Raises:
        InvalidRequestError: a field cannot be served; `param` is its name here.
    """
    for name in request.UNSUPPORTED:
        if getattr(request, name):
            raise InvalidRequestError(f"{name} must be absent: it is not supported", param=name)
    messages = chat_messages(request, strip)
    is_continued = messages[-1]["role"] == "assistant"
    if is_continued and ("tool_calls" in messages[-1] or not messages[-1]["content"]):
        last = f"messages[{len(request.messages) - 1}]"
        raise InvalidRequestError(
            f"{last} is the assistant's and ends in no text, must have text to go on with, or be "
            "followed by the results of its tools",
            param=last,
        )
    tools = _functions(request.tools or ())
    choice = _choice(request.tool_choice, request.tools or (), tools)
    chat = ChatCompletionRequest(
        model=request.model,
        messages=messages,
        continue_final_message=is_continued,
        tools=tools or None,
        tool_choice=choice,
        response_format=_response_format(request),
        **_template_fields(request),
    )
    if request.tool_choice is not None and request.tool_choice.disable_parallel_tool_use:
        chat.parallel_tool_calls = False
    if isinstance(request, MessagesRequest):
        _set_sampling(chat, request)
    return chat


def _set_sampling(chat: ChatCompletionRequest, request: MessagesRequest) -> None:
    stop = request.stop_sequences or []
    if len(stop) > MAX_STOP_SEQUENCES:
        raise InvalidRequestError(
            f"stop_sequences has {len(stop)} texts, at most {MAX_STOP_SEQUENCES}",
            param="stop_sequences",
        )
    if not all(stop):
        raise InvalidRequestError(
            "stop_sequences holds an empty text, each must hold at least one character",
            param="stop_sequences",
        )
    chat.stop = stop or None
    for name in _AS_SENT:
        setattr(chat, name, getattr(request, name))


def in_own_words(error: RequestError) -> RequestError:
    """The error with the field that it names called as it is here."""
    for path, own in _OWN_NAMES.items():
        if error.param is not None and error.param.startswith(path):
            param = error.param.replace(path, own, 1)
            return InvalidRequestError(str(error).replace(path, own, 1), param=param)
    return error


def _template_fields(request: CountTokensRequest) -> dict[str, Any]:
    """What the chat template is told about reasoning; what the request itself says wins."""
    config = request.output_config
    effort = None if config is None else config.effort
    named = request.chat_template_kwargs or {}
    if request.thinking is None:
        # Effort alone asks for no reasoning.
        own = {} if effort is None else {"reasoning_effort": effort}
        return {"chat_template_kwargs": {**own, **named}}
    if request.thinking.type == "disabled":
        return {"chat_template_kwargs": named, "reasoning_effort": "none"}
    own_on = {"enable_thinking": True, "thinking": True}
    return {"chat_template_kwargs": {**own_on, **named}, "reasoning_effort": effort}


def _response_format(request: CountTokensRequest) -> dict[str, Any] | None:
    config = request.output_config
    format = (config and config.format) or request.output_format
    if format is None:
        return None
    schema = {"name": "output", "schema": format.schema}
    return {"type": format.type, "json_schema": schema}


def _functions(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """The tools that a model can be told of: those with a schema."""
    functions = []
    for position, tool in enumerate(tools):
        path = f"tools[{position}]"
        if tool.input_schema is None:
            if tool.type in (None, "custom"):
                raise InvalidRequestError(
                    f"{path}.input_schema is missing, must be a JSON schema, an object",
                    param=f"{path}.input_schema",
                )
            continue
        if not tool.name:
            raise InvalidRequestError(
                f"{path}.name must be a non-empty string", param=f"{path}.name"
            )
        function = {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.input_schema,
            "strict": tool.strict,
        }
        given = {key: value for key, value in function.items() if value is not None}
        functions.append({"type": "function", "function": given})
    return functions


def _choice(
    choice: ToolChoice | None, tools: Sequence[Tool], functions: Sequence[dict[str, Any]]
) -> str | dict[str, Any] | None:
    if choice is None or choice.type in ("auto", "none"):
        return None if choice is None else choice.type
    if not tools:
        raise InvalidRequestError(
            f"tool_choice.type is {choice.type!r}, must be 'auto' or 'none' without tools",
            param="tool_choice",
        )
    if choice.type == "any":
        return "required" if functions else None
    names = [tool.name for tool in tools]
    if choice.name not in names:
        offered = ", ".join(name or "" for name in names)
        raise InvalidRequestError(
            f"tool_choice.name is {choice.name!r}, must be one of {offered}",
            param="tool_choice.name",
        )
    if all(each["function"]["name"] != choice.name for each in functions):
        # It was left out, and so is the wish for it.
        return None
    return {"type": "function", "function": {"name": choice.name}}
