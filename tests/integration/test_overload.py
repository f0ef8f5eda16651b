"""An engine that is asked for more than it takes: what it cannot take is refused at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psutil
import pytest
from tiny_models import make_checkpoint, make_tokenizer

from rillm import AsyncEngineArgs, AsyncLLM, SamplingParams
from rillm.errors import CapacityError, ConfigError
from rillm.output_stream import OutputStream

PROMPT = {"prompt_token_ids": [1, 2, 3, 4, 5]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(make_checkpoint("qwen3", tmp_path_factory.mktemp("qwen3")))


def start(checkpoint: Path, **settings: Any) -> AsyncLLM:
    args = AsyncEngineArgs(model=str(checkpoint), dtype="float32", **settings)
    return AsyncLLM.from_engine_args(args)


async def open_stream(llm: AsyncLLM, name: str, **options: Any) -> OutputStream:
    params = SamplingParams(**{"max_tokens": 100, "ignore_eos": True} | options)
    return await llm.open_stream(PROMPT, params, name)


def num_free(llm: AsyncLLM, limit: int) -> int:
    """How many more there is room for; at least the place of a request that has ended."""
    num_open = llm._client.journal.num_open_choices
    assert num_open < limit
    return limit - num_open


async def until_ended(stream: OutputStream) -> None:
    """Read a stream to its end, and leave it open."""
    ready = asyncio.Event()
    stream.on_ready = ready.set
    while not stream.is_finished:
        if stream.take() is None:
            await ready.wait()
            ready.clear()


async def test_so_many_wait_and_one_more_is_refused(checkpoint: Path) -> None:
    others = set(psutil.Process().children())
    llm = start(checkpoint, max_num_seqs=2, max_waiting_requests=2)
    try:
        # While the model loads, too.
        opened = await asyncio.gather(
            *(open_stream(llm, f"early {i}", max_tokens=100 if i else 1) for i in range(6)),
            return_exceptions=True,
        )
        streams = [each for each in opened if isinstance(each, OutputStream)]
        refused = [each for each in opened if not isinstance(each, OutputStream)]
        assert len(streams) == 4
        assert all(isinstance(each, CapacityError) for each in refused)
        await until_ended(streams[0])
        (core,) = set(psutil.Process().children()) - others
        core.suspend()
        # What it has still said arrives.
        await asyncio.sleep(0.1)
        waiting = [await open_stream(llm, f"waiting {i}") for i in range(num_free(llm, 4))]
        with pytest.raises(CapacityError, match="4 requests"):
            await open_stream(llm, "late")
        with pytest.raises(CapacityError):
            await llm.embed(PROMPT)

        # One that is left makes room, as one that has ended and was not closed has done.
        waiting.pop().close()
        waiting.append(await open_stream(llm, "in its place", n=2))
        with pytest.raises(CapacityError):
            await open_stream(llm, "one more")

        core.resume()
        await asyncio.gather(*(until_ended(each) for each in streams[1:] + waiting))
        for each in streams + waiting:
            each.close()
        assert llm._client.journal.num_open_choices == 0
        assert len((await llm.embed(PROMPT)).embedding) > 0
    finally:
        llm.shutdown()


def test_bound_of_the_queue_is_checked(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="max_waiting_requests is -1"):
        start(checkpoint, max_waiting_requests=-1)
