"""Usage objects: the numbers OpenAI's clients read, always present; and timings, when asked."""

from __future__ import annotations

from typing import Any

from rillm.outputs import RequestStateStats
from rillm.streams import EventStream, Usage


def usage_object(usage: Usage) -> dict[str, Any]:
    """Encode counts, keys in vLLM's order."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def timing_object(stream: EventStream) -> dict[str, Any] | None:
    """Encode when things happened to a request, in milliseconds.

    Keys are those of vLLM's `metrics`. Times count from when the engine took the request up, but
    for the time in its queue.

    Returns:
        None where the engine kept no times, or where several choices share them.
    """
    stats = stream.metrics[0] if stream.num_choices == 1 else None
    if stats is None or not stats.first_token_ts:
        return None
    return _timings(stats)


def _timings(stats: RequestStateStats) -> dict[str, Any]:
    num_tokens = stats.num_generation_tokens
    generation_s = stats.last_token_ts - stats.first_token_ts
    whole_s = stats.last_token_ts - stats.scheduled_ts
    return {
        "time_to_first_token_ms": (stats.first_token_ts - stats.scheduled_ts) * 1e3,
        "generation_time_ms": generation_s * 1e3,
        "queue_time_ms": (stats.scheduled_ts - stats.queued_ts) * 1e3,
        "mean_itl_ms": generation_s * 1e3 / (num_tokens - 1) if num_tokens > 1 else None,
        "tokens_per_second": num_tokens / whole_s if whole_s > 0 else None,
        "speculative_decoding": None,
    }
