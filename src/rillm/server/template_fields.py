"""What a chat request says to the chat template, and repeats of its last message."""

from __future__ import annotations

from typing import Any

from rillm.request_options import effort_variables
from rillm.server.protocol import ChatCompletionRequest
from rillm.text.messages import normalize_messages


def template_variables(request: ChatCompletionRequest) -> dict[str, Any]:
    """The variables that the request gives its template; those it names itself win."""
    return {**effort_variables(request.reasoning_effort), **(request.chat_template_kwargs or {})}


def echoed_text(request: ChatCompletionRequest, role: str) -> str:
    """The last message's text, where the request wants it repeated and it has the answer's role.

    Args:
        request: its messages have been rendered, so they are known to be well formed.
        role: the answer's.
    """
    last = request.messages[-1]
    if not request.echo or last["role"] != role:
        return ""
    [message] = normalize_messages([last], keep_parts=False)
    return str(message.get("content", ""))
