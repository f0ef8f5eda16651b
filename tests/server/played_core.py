"""A real engine's client, with a test in place of its core."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rillm.async_llm import AsyncLLM
from rillm.engine import running_core
from rillm.engine.config import EngineInfo
from rillm.engine.messages import (
    Commands,
    EngineRequest,
    PromptInfo,
    Ready,
    StepOutputs,
    StepStats,
    TokenDelta,
)
from rillm.engine.transport import core_end
from rillm.engine_args import AsyncEngineArgs

INFO = EngineInfo(
    device="none",
    dtype="none",
    max_model_len=2048,
    max_num_seqs=64,
    max_num_batched_tokens=2048,
    block_size=16,
    num_blocks=4096,
    kv_cache_bytes=0,
    memory_bytes=0,
    load_seconds=0.0,
)


class PlayedCore:
    """The core's end of the connection.

    Attributes:
        requests: what has been asked for and not been given to a test yet.
        num_aborts: requests and choices that were called off.
    """

    def __init__(self, end: socket.socket) -> None:
        self._link = core_end(end)
        self.requests: list[EngineRequest] = []
        self.num_aborts = 0
        self._link.send(Ready(INFO))

    def close(self) -> None:
        """End the connection."""
        self._link.close()

    async def request(self) -> EngineRequest:
        """The next request."""
        while not self.requests:
            await asyncio.sleep(0)
            self.look()
        return self.requests.pop(0)

    def look(self) -> None:
        """Read what the client has sent."""
        for message in self._link.receive():
            if isinstance(message, Commands):
                self.requests += message.requests
                self.num_aborts += len(message.aborts)

    def say(self, *deltas: TokenDelta) -> None:
        """One step."""
        self._link.send(StepOutputs(list(deltas), StepStats()))


def first(request: EngineRequest, token_ids: list[int], choice: int = 0) -> TokenDelta:
    """The first delta of a choice."""
    return TokenDelta(request.request_id, choice, token_ids, prompt=PromptInfo(0))


@contextmanager
def played_engine() -> Iterator[tuple[AsyncLLM, PlayedCore]]:
    """An engine on the bundled model's tokenizer, and its core."""
    ends: list[socket.socket] = []

    def start(end: socket.socket, board: object) -> threading.Thread:
        del board
        ends.append(end)
        thread = threading.Thread()
        thread.start()
        return thread

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running_core, "_start_thread", start)
        engine = AsyncLLM(AsyncEngineArgs(in_process=True))
    core = PlayedCore(ends[0])
    try:
        yield engine, core
    finally:
        core.close()
        engine.shutdown()
