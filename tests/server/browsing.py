"""A real browser, and servers for it to visit."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from scripted_engine import BUNDLED_TOKENIZER, ScriptedEngine, SpeakingEngine, new_app

from rillm.engine_args import EngineArgs
from rillm.input_processor import TokensPrompt
from rillm.output_formats import choose_formats
from rillm.outputs import RequestOutput
from rillm.sampling_params import SamplingParams
from rillm.server.options import HttpOptions

REQUIRED = "RILLM_REQUIRE_BROWSER"
"""Environment variable that turns the skip for want of a browser into a failure."""
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SWITCHES = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_ENOUGH_MS = 20_000
"""Until what has to show counts as never showing."""
expect.set_options(timeout=_ENOUGH_MS)
FORMATS = choose_formats(EngineArgs().model_directory(), BUNDLED_TOKENIZER, "bundled")


def find_browser() -> str:
    """The path of a Chromium; the test is skipped, or fails where one is required, without."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    message = "needs Chromium, which is not on the path (Debian: apt-get install chromium)"
    if os.environ.get(REQUIRED):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium."""
    path = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page, and what went wrong or went out while it was open."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(_ENOUGH_MS)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda said: said.type == "error" and self.complaints.append(said.text),
        )
        self.page.on("request", self._note)

    def _note(self, request: Request) -> None:
        self.urls.append(request.url)


class GatedEngine(SpeakingEngine):
    """Says a text only as far as it is let: up to `allowed` outputs."""

    def __init__(self, *texts: str | list[int], allowed: int = 1_000_000) -> None:
        super().__init__(*texts, formats=FORMATS)
        self.allowed = allowed

    async def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        self.seen.append((prompt, sampling_params, request_id, priority))
        said = 0
        async for output in super().generate(
            prompt, sampling_params, request_id, priority=priority, stand_ins=stand_ins
        ):
            # The test says so from another thread, which an asyncio.Event would not notice.
            while said >= self.allowed:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            said += 1
            yield output

    def prompts(self) -> list[str]:
        """What was asked so far, as text."""
        return [
            BUNDLED_TOKENIZER.decode(prompt["prompt_token_ids"], False) for prompt, *_ in self.seen
        ]


@contextmanager
def serve(engine: ScriptedEngine, options: HttpOptions | None = None) -> Iterator[str]:
    """An application over a scripted engine behind a socket; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(new_app(engine, options), log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=[server.serve([listener])])
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def wait_until(is_so: Callable[[], bool], seconds: float = 20) -> None:
    """Look again and again until a function says yes."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
