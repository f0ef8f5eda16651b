from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from running_server import RunningServer

from rillm.async_llm import AsyncLLM
from rillm.engine_args import AsyncEngineArgs
from rillm.output_formats import choose_formats
from rillm.server.app import create_app


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    args = AsyncEngineArgs(kv_cache_memory_bytes=64 * 2**20, num_threads=2)
    llm = AsyncLLM.from_engine_args(args)
    formats = choose_formats(llm.directory, llm.get_tokenizer(), "bundled")
    app = create_app(llm, model_names=["bundled", "alias"], model_root="bundled", formats=formats)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
    uvicorn_server = uvicorn.Server(config)
    ready = threading.Event()

    async def serve() -> None:
        serving = asyncio.create_task(uvicorn_server.serve([listener]))
        await llm.wait_ready()
        ready.set()
        await serving

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    try:
        assert ready.wait(60)
        yield RunningServer(llm, listener.getsockname()[1])
    finally:
        uvicorn_server.should_exit = True
        thread.join()
        llm.shutdown()
