"""Chat messages as clients send them to messages as chat templates expect them.

Knows the shapes of the OpenAI chat API, not any model's template.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rillm.errors import InvalidRequestError

Message = dict[str, Any]

REASONING_FIELDS: Final = ("reasoning_content", "thinking", "reasoning")
"""Names under which clients and templates pass a message's reasoning, the common one first."""
_TEXT_PART_TYPES: Final = frozenset({"text", "input_text", "output_text"})


def normalize_messages(messages: Sequence[Any], *, keep_parts: bool) -> list[Message]:
    """Copy messages into plain data a chat template can render.

    Keys whose value is null are dropped, reasoning is given every name templates read it under,
    text parts become a string or `{"type": "text"}` parts, and a tool call's arguments, JSON text
    on the wire, become the object that templates expect. Arguments that are not a JSON object
    (a call cut off by a length limit, say) stay text: the conversation must remain usable.

    Args:
        messages: dicts, or anything msgspec can turn into them; at least one.
        keep_parts: leave content a list where it is one, for templates that loop over it.

    Returns:
        New dicts; the caller's are not changed.

    Raises:
        InvalidRequestError: a message is malformed; `param` is its path.
    """
    if not messages:
        raise InvalidRequestError(
            "messages is empty, must hold at least one message", param="messages"
        )
    return [
        _normalize_message(to_plain(m, f"messages[{i}]"), i, keep_parts)
        for i, m in enumerate(messages)
    ]


def to_plain(value: Any, param: str) -> Any:
    """Copy a value into dicts, lists, strings, numbers, booleans and None.

    Args:
        value: the value.
        param: its path, for the error.

    Returns:
        The copy.

    Raises:
        InvalidRequestError: the value has no such form.
    """
    try:
        return msgspec.to_builtins(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{param} is not JSON data: {error}", param=param) from error


def _normalize_message(raw: Any, index: int, keep_parts: bool) -> Message:
    path = f"messages[{index}]"
    if not isinstance(raw, dict):
        raise InvalidRequestError(f"{path} must be an object", param=path)
    message = {key: value for key, value in raw.items() if value is not None}
    if not isinstance(message.get("role"), str):
        raise InvalidRequestError(f"{path}.role must be a string", param=f"{path}.role")
    reasoning = next((message[key] for key in REASONING_FIELDS if key in message), None)
    if reasoning is not None:
        message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
    if "content" in message:
        message["content"] = _normalize_content(message["content"], f"{path}.content", keep_parts)
    if "tool_calls" in message:
        _parse_arguments(message["tool_calls"], f"{path}.tool_calls")
    return message


def _normalize_content(content: Any, path: str, keep_parts: bool) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequestError(f"{path} must be a string or a list of parts", param=path)
    texts = [_part_text(part, f"{path}[{i}]") for i, part in enumerate(content)]
    if keep_parts:
        return [{"type": "text", "text": text} for text in texts]
    return "\n".join(texts)


def _part_text(part: Any, path: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise InvalidRequestError(f"{path} must be an object with a type", param=path)
    if part["type"] == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    if part["type"] not in _TEXT_PART_TYPES:
        raise InvalidRequestError(
            f"{path}.type is {part['type']!r}, must be 'text': this model reads text only",
            param=f"{path}.type",
        )
    if not isinstance(part.get("text"), str):
        raise InvalidRequestError(f"{path}.text must be a string", param=f"{path}.text")
    return str(part["text"])


def _parse_arguments(tool_calls: Any, path: str) -> None:
    if not isinstance(tool_calls, list):
        raise InvalidRequestError(f"{path} must be a list", param=path)
    for i, call in enumerate(tool_calls):
        if not isinstance(call, dict):
            raise InvalidRequestError(f"{path}[{i}] must be an object", param=f"{path}[{i}]")
        function = call.get("function", call)
        if not isinstance(function, dict):
            raise InvalidRequestError(
                f"{path}[{i}].function must be an object", param=f"{path}[{i}].function"
            )
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            function["arguments"] = _parse_object(arguments)


def _parse_object(text: str) -> Any:
    if not text.strip():
        return {}
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return text
    return value if isinstance(value, dict) else text
