"""What a chat request says to the chat template, and repeats of its last message."""

from __future__ import annotations

from typing import Any

from rillm.server.protocol import ChatCompletionRequest
from rillm.text.messages import normalize_messages


def template_variables(request: ChatCompletionRequest) -> dict[str, Any]:
    """The variables that the request gives its template.

    Templates with levels of reasoning read `reasoning_effort`; those that only know on and off
    read `enable_thinking` or `thinking`. A variable the request itself names wins.
    """
    named = request.chat_template_kwargs or {}
    effort = request.reasoning_effort
    if effort is None:
        return named
    is_on = effort != "none"
    return {"reasoning_effort": effort, "enable_thinking": is_on, "thinking": is_on, **named}


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
