"""The response object: what is constant over one, and what changes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final, Literal

from rillm.sampling_params import SamplingParams
from rillm.server.responses.items import Item
from rillm.server.responses.request import ResponsesRequest, TextOptions
from rillm.streams import Usage

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
UNFINISHED: Final = ("queued", "in_progress")
SERVER_ERROR: Final = "server_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseAnswer:
    """What is constant over one response, streamed or not."""

    id: str
    created: int
    """Seconds since the epoch."""
    model: str
    request: ResponsesRequest
    params: SamplingParams
    """What the engine samples with."""
    custom_tools: frozenset[str] = frozenset()
    """Functions that are custom tools to the caller."""
    is_sealed: bool = False
    """Reasoning is told a second time, for callers that keep no state."""

    def object(
        self,
        status: Status,
        output: list[Item],
        *,
        usage: Usage | None = None,
        error: dict[str, Any] | None = None,
        incomplete_reason: str | None = None,
    ) -> dict[str, Any]:
        """The `response` object.

        Args:
            status: what has become of it.
            output: its items so far.
            usage: None before the end.
            error: why it failed.
            incomplete_reason: why it was cut off.
        """
        request = self.request
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": None if status in UNFINISHED else int(time.time()),
            "status": status,
            "background": bool(request.background),
            "error": error,
            "incomplete_details": incomplete_reason and {"reason": incomplete_reason},
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": request.max_tool_calls,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "prompt_cache_key": request.prompt_cache_key,
            "reasoning": {
                "effort": request.reasoning and request.reasoning.effort,
                "summary": request.reasoning and request.reasoning.summary,
            },
            "safety_identifier": request.safety_identifier,
            "service_tier": "default",
            "store": request.is_stored,
            "temperature": self.params.temperature,
            "text": _text_object(request.text),
            "tool_choice": "auto" if request.tool_choice is None else request.tool_choice,
            "tools": request.tools or [],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": self.params.top_p,
            "truncation": request.truncation or "disabled",
            "usage": None if usage is None else usage_object(usage),
            "user": request.user,
            "metadata": request.metadata or {},
        }


def _text_object(text: TextOptions | None) -> dict[str, Any]:
    text = text or TextOptions()
    return {"format": text.format or {"type": "text"}, "verbosity": text.verbosity or "medium"}


def usage_object(usage: Usage) -> dict[str, Any]:
    """Encode counts as this protocol names them."""
    return {
        "input_tokens": usage.prompt_tokens,
        # Nobody pays for what goes into the cache, so nobody counts it.
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
