from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from browsing import Visit, open_browser
from playwright.sync_api import Browser
from running_server import RunningServer

from rillm.async_llm import AsyncLLM
from rillm.engine_args import AsyncEngineArgs
from rillm.output_formats import choose_formats
from rillm.server.app import create_app


@pytest.fixture(scope="session")
def server() -> Iterator[RunningServer]:
    args = AsyncEngineArgs(kv_cache_memory_bytes=64 * 2**20, num_threads=1)
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed with its module: while it is open, no asynchronous test can run."""
    with open_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens a page in a context of its own, that is with an empty storage."""
    contexts = []

    def open_page(url: str, **settings: object) -> Visit:
        context = browser.new_context(**settings)  # type: ignore[arg-type]
        contexts.append(context)
        visit = Visit(context.new_page())
        visit.page.goto(url)
        return visit

    yield open_page
    for context in contexts:
        context.close()
