"""Usage objects: the numbers OpenAI's clients read, always present."""

from __future__ import annotations

from typing import Any

from rillm.streams import Usage


def usage_object(usage: Usage) -> dict[str, Any]:
    """Encode counts, keys in vLLM's order."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
