"""The engine core dies, hangs, fails and is poisoned; streams go on as if nothing had been."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import poisoned_core
import psutil
import pytest
from suspended_cores import core_of, cores
from tiny_models import make_checkpoint, make_tokenizer

import rillm.engine.running_core
from rillm import AsyncEngineArgs, AsyncLLM, RequestOutput, RequestOutputKind, SamplingParams
from rillm.engine.running_core import CORE_MODULE
from rillm.errors import EngineDeadError, EngineGenerateError, PoisonedRequestError
from rillm.models.model import Model
from rillm.structured_outputs import StructuredOutputsParams

pytestmark = pytest.mark.timeout(300)

LONG = 150
"""Tokens of a stream that is there when something happens."""
ENDLESS = 2000
"""Tokens of one that must still be there when a reader that was late has done something."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3")
    return make_tokenizer(make_checkpoint("qwen3", path, max_position_embeddings=4096))


@pytest.fixture
def start(checkpoint: Path) -> Iterator[Callable[..., AsyncLLM]]:
    started = []

    def start(**settings: Any) -> AsyncLLM:
        args = AsyncEngineArgs(model=str(checkpoint), dtype="float32", **settings)
        started.append(AsyncLLM.from_engine_args(args))
        return started[-1]

    yield start
    for llm in started:
        llm.shutdown()
    assert cores() + cores(module="poisoned_core") == []


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rillm.engine.running_core, "CORE_MODULE", "poisoned_core")


def sampling(**options: Any) -> SamplingParams:
    options = {
        "max_tokens": LONG,
        "seed": 1,
        "ignore_eos": True,
        "output_kind": RequestOutputKind.DELTA,
    } | options
    return SamplingParams(**options)


def tokens(*token_ids: int, **more: Any) -> dict[str, Any]:
    return {"prompt_token_ids": list(token_ids), **more}


Requests = dict[str, tuple[dict[str, Any], SamplingParams]]

REQUESTS: Requests = {
    "greedy": (tokens(1, 2, 3), sampling(temperature=0.0)),
    "seeded": (tokens(1, 2, 3, 4), sampling(seed=7)),
    "filtered": (tokens(4), sampling(temperature=1.5, top_k=40, top_p=0.9, min_p=0.01)),
    "choices": (tokens(*range(40)), sampling(n=3, seed=3)),
    "penalties": (
        tokens(5, 6),
        sampling(
            temperature=0.0, presence_penalty=0.5, frequency_penalty=1.9, repetition_penalty=1.3
        ),
    ),
    "least": (tokens(7), sampling(min_tokens=90, stop_token_ids=list(range(0, 256, 2)))),
    "stopped": (tokens(8), sampling(stop_token_ids=[77])),
    "most": (tokens(9), sampling(max_tokens=83)),
    "logprobs": (tokens(10, 11), sampling(logprobs=3, prompt_logprobs=2)),
    "chosen": (tokens(12), sampling(logprob_token_ids=[5, 6])),
    "limited": (tokens(13, 14), sampling(allowed_token_ids=[40, 41, 42, 43], bad_words=["IJ"])),
    "biased": (tokens(15), sampling(logit_bias={50: 5.0, 51: 5.0})),
    "salted": (tokens(*range(50), cache_salt="pepper"), sampling(seed=9)),
    "grammar": (
        tokens(17),
        sampling(n=2, structured_outputs=StructuredOutputsParams(regex="([a-m]{3}[0-9]){60}")),
    ),
    "text": (tokens(16), sampling(stop=["\x00\x00\x00never"], logprobs=0)),
}


async def read(
    llm: AsyncLLM,
    prompt: Any,
    params: SamplingParams,
    name: str,
    on_output: Callable[[RequestOutput], None] = lambda _: None,
) -> list[RequestOutput]:
    outputs = []
    async for output in llm.generate(prompt, params, name):
        outputs.append(output)
        on_output(output)
    return outputs


def told(outputs: list[RequestOutput]) -> dict[int, tuple[Any, ...]]:
    """What a stream has said of each choice, however it was cut."""
    folded: dict[int, tuple[Any, ...]] = {}
    for index in sorted({choice.index for output in outputs for choice in output.outputs}):
        parts = [c for output in outputs for c in output.outputs if c.index == index]
        text = "".join(part.text for part in parts)
        ids = sum((part.token_ids for part in parts), [])
        folded[index] = (text, ids, parts[-1].finish_reason, parts[-1].stop_reason)
    return folded


def logprobs_of(outputs: list[RequestOutput]) -> list[tuple[int, float]]:
    return [
        (token_id, logprob.logprob)
        for output in outputs
        for choice in output.outputs
        for position in choice.logprobs or []
        for token_id, logprob in position.items()
    ]


async def test_streams_of_all_kinds_go_on_where_they_stopped(
    start: Callable[..., AsyncLLM],
) -> None:
    llm = start(num_gpu_blocks_override=120, max_num_seqs=24, max_num_batched_tokens=64)
    undisturbed = [read(llm, prompt, params, name) for name, (prompt, params) in REQUESTS.items()]
    expected = dict(zip(REQUESTS, await asyncio.gather(*undisturbed), strict=True))
    num_tokens = 0
    deaths = [3, 500, 1100, 10**9]

    def kill_sometimes(output: RequestOutput) -> None:
        nonlocal num_tokens
        num_tokens += sum(len(choice.token_ids) for choice in output.outputs)
        # What a dead core has said still arrives, until its end is noticed.
        if num_tokens >= deaths[llm.num_restarts] and not llm.is_restarting:
            with contextlib.suppress(psutil.NoSuchProcess):
                core_of(llm).kill()

    results = await asyncio.gather(
        *(
            read(llm, prompt, params, name, kill_sometimes)
            for name, (prompt, params) in REQUESTS.items()
        )
    )

    assert llm.num_restarts == 3
    for text, *_ in told(expected["grammar"]).values():
        assert re.fullmatch("[a-m0-9]+", text)
    for name, outputs in zip(REQUESTS, results, strict=True):
        assert told(outputs) == told(expected[name]), name
        assert [o.finished for o in outputs] == [False] * (len(outputs) - 1) + [True]
        times = outputs[-1].metrics
        assert times is not None
        assert 0 < times.queued_ts <= times.scheduled_ts <= times.first_token_ts
        assert times.first_token_ts <= times.last_token_ts
        ours, theirs = logprobs_of(outputs), logprobs_of(expected[name])
        assert [token_id for token_id, _ in ours] == [token_id for token_id, _ in theirs]
        # Not the last bit: a prefill sums in another order than a decode.
        assert [v for _, v in ours] == pytest.approx([v for _, v in theirs], abs=1e-4)
    by_name = dict(zip(REQUESTS, results, strict=True))
    assert sum(output.prompt_logprobs is not None for output in by_name["logprobs"]) == 1
    assert llm.get_num_unfinished_requests() == 0
    assert llm._client.journal.num_tokens == 0
    assert llm.engine_stats.num_free_blocks == 120


async def test_core_that_stops_is_replaced(start: Callable[..., AsyncLLM]) -> None:
    llm = start(hang_timeout=3.0)
    expected = told(await read(llm, tokens(1, 2), sampling(), "before"))
    longer = told(await read(llm, tokens(1, 2), sampling(max_tokens=ENDLESS), "longer"))

    def stop_once(_: RequestOutput) -> None:
        if llm.num_restarts == 1:
            core.suspend()

    core_of(llm).suspend()
    from_idle = await read(llm, tokens(1, 2), sampling(), "from idle")
    core = core_of(llm)
    params = sampling(max_tokens=ENDLESS)
    from_running = await read(llm, tokens(1, 2), params, "from running", stop_once)

    assert (told(from_idle), told(from_running)) == (expected, longer)
    assert llm.num_restarts == 2


async def test_requests_made_and_left_while_there_is_no_core(
    start: Callable[..., AsyncLLM],
) -> None:
    llm = start()
    expected = told(await read(llm, tokens(1, 2), sampling(), "before"))
    endless = sampling(max_tokens=ENDLESS)
    leaving = asyncio.create_task(read(llm, tokens(3), endless, "leaving"))
    aborted = asyncio.create_task(read(llm, tokens(4), endless, "aborted"))
    while llm.engine_stats.num_running < 2:  # noqa: ASYNC110 - no event of ours to wait for
        await asyncio.sleep(0)
    core_of(llm).kill()
    while not llm.is_restarting:  # noqa: ASYNC110
        await asyncio.sleep(0)
    leaving.cancel()
    await llm.abort("aborted")
    await llm.check_health()

    assert told(await read(llm, tokens(1, 2), sampling(), "after")) == expected
    assert (await aborted)[-1].outputs[0].finish_reason == "abort"
    assert leaving.cancelled()
    assert llm.get_num_unfinished_requests() == 0


async def test_core_that_cannot_come_back_ends_its_streams(
    start: Callable[..., AsyncLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = start(max_restarts=1)
    stream = llm.generate(tokens(1), sampling(max_tokens=ENDLESS), "doomed")
    await anext(stream)
    core_of(llm).kill()
    monkeypatch.setattr(rillm.engine.running_core, "CORE_MODULE", "no_such_module")

    with pytest.raises(EngineDeadError, match="in a row"):
        async for _ in stream:
            pass
    with pytest.raises(EngineDeadError):
        await read(llm, tokens(1), sampling(), "late")
    with pytest.raises(EngineDeadError):
        await llm.check_health()
    assert llm.errored
    assert not llm.is_restarting


def innocents() -> Requests:
    """Requests that never contain or produce what poisons."""
    rng = random.Random(0)
    params = sampling(allowed_token_ids=list(range(256)))
    return {
        f"innocent {number}": (tokens(*(rng.randrange(256) for _ in range(20))), params)
        for number in range(4)
    }


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("in_process", [False, True])
async def test_request_that_raises_ends_alone(
    start: Callable[..., AsyncLLM], in_process: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_process:
        monkeypatch.setattr(rillm.engine.running_core, "CORE_MODULE", CORE_MODULE)
        monkeypatch.setattr(Model, "forward", poisoned_core.forward)
    llm = start(in_process=in_process)
    expected = [told(await read(llm, *each, name)) for name, each in innocents().items()]

    others = [asyncio.create_task(read(llm, *each, name)) for name, each in innocents().items()]
    for _ in range(3):
        with pytest.raises(EngineGenerateError, match="RuntimeError: too much"):
            await read(llm, tokens(*[poisoned_core.RAISES] * 3), sampling(n=2), "poison")

    assert [told(await other) for other in others] == expected
    assert llm.num_restarts == 0
    assert not llm.errored


@pytest.mark.usefixtures("poisoned")
async def test_request_that_stops_the_core_twice_ends_alone(start: Callable[..., AsyncLLM]) -> None:
    llm = start()
    expected = [told(await read(llm, *each, name)) for name, each in innocents().items()]

    for poison in (poisoned_core.CRASHES, poisoned_core.BREAKS):
        before = llm.num_restarts
        others = [asyncio.create_task(read(llm, *each, name)) for name, each in innocents().items()]
        for attempt in range(3):
            with pytest.raises(PoisonedRequestError):
                await read(llm, tokens(*[poison] * 3), sampling(seed=attempt), "poison")
        assert [told(await other) for other in others] == expected
        assert llm.num_restarts == before + 2
    assert not llm.errored


def test_engine_goes_on_in_another_event_loop(start: Callable[..., AsyncLLM]) -> None:
    llm = start()
    first = asyncio.run(read(llm, tokens(1), sampling(), "first"))
    core_of(llm).kill()
    second = asyncio.run(read(llm, tokens(1), sampling(), "second"))

    assert told(first) == told(second)
    assert llm.num_restarts == 1
