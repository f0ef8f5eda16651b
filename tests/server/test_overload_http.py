"""A server that is asked for more than it takes, on every face."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from scripted_engine import call_app

from rillm.async_llm import AsyncLLM
from rillm.engine_args import AsyncEngineArgs
from rillm.server.app import create_app
from rillm.server.observed import ObservedApp
from rillm.server.options import HttpOptions

SAID = [{"role": "user", "content": "hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID},
    "/v1/completions": {"prompt": "a"},
    "/v1/messages": {"model": "m", "messages": SAID, "max_tokens": 5},
    "/v1/responses": {"input": "hello"},
    "/inference/v1/generate": {"token_ids": [5], "sampling_params": {}},
}


@asynccontextmanager
async def served(options: HttpOptions | None = None, **settings: Any) -> AsyncIterator[ObservedApp]:
    """The bundled model's application."""
    args = AsyncEngineArgs(kv_cache_memory_bytes=64 * 2**20, num_threads=1, **settings)
    llm = AsyncLLM.from_engine_args(args)
    try:
        await llm.wait_ready()
        yield create_app(llm, model_names=["m"], model_root="m", options=options)
    finally:
        await llm.aclose()


async def test_what_finds_no_room_is_refused_in_the_words_of_its_api() -> None:
    async with served(max_num_seqs=1, max_waiting_requests=0) as app:
        begun, gone = asyncio.Event(), asyncio.Event()
        body = {"prompt": "a", "stream": True, "ignore_eos": True, "max_tokens": 2000}
        busy = asyncio.create_task(
            call_app(app, "/v1/completions", body, disconnect=gone, on_write=lambda _: begun.set())
        )
        await begun.wait()
        for path, plain in BODIES.items():
            for is_stream in (False, True):
                answer = await call_app(app, path, plain | {"stream": is_stream})
                error = answer.json()["error"]
                if path == "/v1/messages":
                    assert (answer.status, error["type"]) == (529, "overloaded_error")
                else:
                    assert (answer.status, error["type"]) == (503, "ServiceUnavailableError")
                assert answer.headers["retry-after"] == "1"
        metrics = (await call_app(app, "/metrics", b"", method="GET")).body.decode()
        gone.set()
        await busy
        answer = await call_app(app, "/v1/completions", {"prompt": "a", "max_tokens": 1})

    assert answer.status == 200
    assert "rejections_total{" in metrics
    assert " 10.0\n" in metrics.partition("rejections_total{")[2].partition("#")[0]
