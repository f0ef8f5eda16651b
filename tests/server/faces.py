"""Every API that generates, with a small request to each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rillm.async_llm import AsyncLLM
from rillm.engine_args import AsyncEngineArgs
from rillm.server.app import create_app
from rillm.server.observed import ObservedApp

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
GENERATE = "/inference/v1/generate"
SAID = [{"role": "user", "content": "hello"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": SAID},
    COMPLETIONS: {"prompt": "a"},
    MESSAGES: {"model": "scripted", "messages": SAID, "max_tokens": 5},
    RESPONSES: {"input": "hello"},
    GENERATE: {"token_ids": [5], "sampling_params": {}},
}


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[tuple[ObservedApp, AsyncLLM]]:
    """The bundled model's application, and its engine."""
    args = AsyncEngineArgs(kv_cache_memory_bytes=64 * 2**20, num_threads=1, **settings)
    llm = AsyncLLM.from_engine_args(args)
    try:
        await llm.wait_ready()
        yield create_app(llm, model_names=["scripted"], model_root="root"), llm
    finally:
        await llm.aclose()
