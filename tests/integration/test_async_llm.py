"""AsyncLLM as its callers see it: streams, cancellation, request ids, start and end of life."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from tiny_models import make_checkpoint, make_tokenizer

from rillm import AsyncEngineArgs, AsyncLLM, RequestOutput, RequestOutputKind, SamplingParams
from rillm.errors import ConfigError, ContextLengthError, InvalidRequestError

PROMPT = {"prompt_token_ids": [1, 2, 3, 4, 5]}
ENDLESS = 10_000
"""Tokens of a stream that must still run when a reader that was late does something."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3")
    return make_tokenizer(make_checkpoint("qwen3", path, max_position_embeddings=16384))


def start(checkpoint: Path, **settings: object) -> AsyncLLM:
    args = AsyncEngineArgs(model=str(checkpoint), dtype="float32", **settings)
    return AsyncLLM.from_engine_args(args)


@pytest.fixture(scope="module")
async def llm(checkpoint: Path) -> AsyncIterator[AsyncLLM]:
    llm = start(checkpoint)
    await llm.wait_ready()
    yield llm
    llm.shutdown()


def sampling(**options: object) -> SamplingParams:
    options = {"max_tokens": 10, "seed": 1, "ignore_eos": True} | options
    return SamplingParams(**options)  # type: ignore[arg-type]


async def collect(
    llm: AsyncLLM, params: SamplingParams, request_id: str = "r"
) -> list[RequestOutput]:
    return [out async for out in llm.generate(PROMPT, params, request_id)]


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that happens in another process."""
    try:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - no event of ours to wait for
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"never happened: {what}")


def num_used_blocks(llm: AsyncLLM) -> int:
    assert llm.ready_info is not None
    return llm.ready_info.num_blocks - llm.engine_stats.num_free_blocks


async def test_the_output_kinds_tell_the_same_story(llm: AsyncLLM) -> None:
    cumulative, deltas, final = [
        await collect(llm, sampling(output_kind=kind, logprobs=1)) for kind in RequestOutputKind
    ]

    assert len(final) == 1
    (whole,) = final[0].outputs
    assert cumulative[-1].outputs == [whole]
    assert "".join(out.outputs[0].text for out in deltas) == whole.text
    assert sum((out.outputs[0].token_ids for out in deltas), []) == whole.token_ids
    assert [out.finished for out in deltas] == [False] * (len(deltas) - 1) + [True]
    assert whole.finish_reason == "length"
    assert len(whole.token_ids) == 10


async def test_text_prompts_are_tokenized(llm: AsyncLLM) -> None:
    params = sampling(output_kind=RequestOutputKind.FINAL_ONLY)
    (output,) = [out async for out in llm.generate("abc", params, "text")]

    assert output.prompt == "abc"
    assert output.prompt_token_ids == llm.get_tokenizer().encode("abc")


async def test_stop_string_ends_one_choice_and_frees_its_blocks(llm: AsyncLLM) -> None:
    (free,) = await collect(
        llm, sampling(n=3, max_tokens=80, output_kind=RequestOutputKind.FINAL_ONLY)
    )
    stop = free.outputs[1].text[5:8]
    assert stop not in free.outputs[0].text

    (stopped,) = await collect(
        llm, sampling(n=3, max_tokens=80, stop=stop, output_kind=RequestOutputKind.FINAL_ONLY)
    )

    first, second, _ = stopped.outputs
    assert first == free.outputs[0]
    assert second.text == free.outputs[1].text.split(stop)[0]
    assert (second.finish_reason, second.stop_reason) == ("stop", stop)
    await until(lambda: num_used_blocks(llm) == 0, "all blocks free")


async def test_leaving_the_iteration_aborts_the_request(llm: AsyncLLM) -> None:
    async with aclosing(llm.generate(PROMPT, sampling(max_tokens=ENDLESS), "left")) as stream:
        async for _ in stream:
            assert llm.get_num_unfinished_requests() == 1
            break

    assert llm.get_num_unfinished_requests() == 0
    await until(lambda: num_used_blocks(llm) == 0, "all blocks free")


async def test_cancelling_the_reader_aborts_the_request(llm: AsyncLLM) -> None:
    reader = asyncio.create_task(collect(llm, sampling(max_tokens=ENDLESS), "cancelled"))
    await until(lambda: llm.engine_stats.num_running == 1, "running")
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    assert llm.get_num_unfinished_requests() == 0
    await until(lambda: num_used_blocks(llm) == 0, "all blocks free")


async def test_abort_ends_the_stream_with_a_last_output(llm: AsyncLLM) -> None:
    outputs = []
    async for output in llm.generate(PROMPT, sampling(max_tokens=ENDLESS), "aborted"):
        outputs.append(output)
        if len(outputs) == 3:
            await llm.abort("aborted")

    assert outputs[-1].finished
    assert outputs[-1].outputs[0].finish_reason == "abort"


async def test_live_request_id_is_refused_and_free_again_afterwards(llm: AsyncLLM) -> None:
    async with aclosing(llm.generate(PROMPT, sampling(max_tokens=ENDLESS), "twice")) as stream:
        await anext(stream)
        with pytest.raises(InvalidRequestError, match="in use") as refused:
            await collect(llm, sampling(), "twice")
        assert refused.value.param == "request_id"

    assert (await collect(llm, sampling(), "twice"))[-1].finished


async def test_slow_reader_gets_merged_deltas(llm: AsyncLLM) -> None:
    params = sampling(max_tokens=50, output_kind=RequestOutputKind.DELTA)
    fast = await collect(llm, params, "fast")

    slow = []
    async for output in llm.generate(PROMPT, params, "slow"):
        slow.append(output)
        await until(lambda: llm.engine_stats.num_running == 0, "engine done")

    assert sum((o.outputs[0].token_ids for o in slow), []) == sum(
        (o.outputs[0].token_ids for o in fast), []
    )
    assert len(slow) <= 3


async def test_concurrent_streams_complete_while_a_third_is_cancelled(checkpoint: Path) -> None:
    llm = start(checkpoint, num_gpu_blocks_override=120, max_num_seqs=48)
    await llm.wait_ready()
    assert num_used_blocks(llm) == 0
    rng = random.Random(0)

    async def reader(number: int) -> list[int]:
        length = rng.randint(1, 90)
        prompt = {"prompt_token_ids": [rng.randrange(256) for _ in range(rng.randint(1, 60))]}
        params = sampling(seed=number, max_tokens=length, output_kind=RequestOutputKind.DELTA)
        tokens: list[int] = []
        stop_at = rng.randrange(length) if number % 3 == 0 else None
        async with aclosing(llm.generate(prompt, params, f"stream {number}")) as stream:
            async for output in stream:
                tokens += output.outputs[0].token_ids
                if stop_at is not None and len(tokens) > stop_at:
                    return tokens
        assert len(tokens) == length
        return tokens

    await asyncio.gather(*(reader(number) for number in range(200)))

    assert llm.get_num_unfinished_requests() == 0
    await until(lambda: num_used_blocks(llm) == 0, "every block back in the pool")
    await until(lambda: llm.engine_stats.num_waiting == 0, "nobody waits")
    llm.shutdown()


@pytest.mark.parametrize(
    ("prompt", "options", "param"),
    [
        ("", {}, "prompt_token_ids"),
        ({"prompt_token_ids": []}, {}, "prompt_token_ids"),
        ({"prompt_token_ids": [1, 9999]}, {}, "prompt_token_ids"),
        ({"prompt_token_ids": [-1]}, {}, "prompt_token_ids"),
        ({"prompt_token_ids": "abc"}, {}, "prompt_token_ids"),
        ({}, {}, "prompt"),
        (7, {}, "prompt"),
        (PROMPT, {"logprobs": 21}, "logprobs"),
        (PROMPT, {"stop_token_ids": [9999]}, "stop_token_ids"),
        (PROMPT, {"allowed_token_ids": [9999]}, "allowed_token_ids"),
        (PROMPT, {"logit_bias": {9999: 1.0}}, "logit_bias"),
        (PROMPT, {"n": 300}, "n"),
    ],
)
async def test_bad_input_is_refused_and_harms_nobody(
    llm: AsyncLLM, prompt: object, options: dict[str, object], param: str
) -> None:
    async with aclosing(llm.generate(PROMPT, sampling(max_tokens=ENDLESS), "good")) as good:
        await anext(good)
        with pytest.raises(InvalidRequestError) as refused:
            async for _ in llm.generate(prompt, sampling(**options), "bad"):  # type: ignore[arg-type]
                pass
        assert refused.value.param == param
        assert not (await anext(good)).finished


async def test_prompt_that_fills_the_context_is_refused(llm: AsyncLLM) -> None:
    prompt = {"prompt_token_ids": [1] * llm.max_model_len}
    with pytest.raises(ContextLengthError, match="maximum context length is 16384"):
        async for _ in llm.generate(prompt, sampling(), "long"):
            pass


async def test_parameters_are_checked_again_when_the_request_is_made(llm: AsyncLLM) -> None:
    params = sampling()
    params.top_p = 7.0
    with pytest.raises(InvalidRequestError) as refused:
        await collect(llm, params)
    assert refused.value.param == "top_p"


async def test_in_process_engine_gives_the_same_tokens(checkpoint: Path, llm: AsyncLLM) -> None:
    inside = start(checkpoint, in_process=True)
    outputs = await collect(inside, sampling(logprobs=2))
    inside.shutdown()

    expected = await collect(llm, sampling(logprobs=2))
    assert outputs[-1].outputs == expected[-1].outputs


async def test_model_that_cannot_be_loaded_is_a_config_error(checkpoint: Path) -> None:
    llm = start(checkpoint, max_model_len=100, num_gpu_blocks_override=3)
    with pytest.raises(ConfigError, match="KV cache has 3 blocks"):
        await llm.wait_ready()
    with pytest.raises(ConfigError):
        await collect(llm, sampling())
    llm.shutdown()


async def test_shutdown_is_idempotent_and_leaves_no_process(checkpoint: Path) -> None:
    before = set(psutil.Process().children())
    llm = start(checkpoint)
    await collect(llm, sampling())
    assert not set(psutil.Process().children()) <= before

    llm.shutdown()
    llm.shutdown()

    assert set(psutil.Process().children()) <= before


CHILD = """
import asyncio, os, sys
from rillm import AsyncEngineArgs, AsyncLLM, SamplingParams

async def main():
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(model=sys.argv[1]))
    params = SamplingParams(max_tokens=500, ignore_eos=True)
    async for output in llm.generate([1, 2, 3], params, "r"):
        print("running", flush=True)
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def test_crash_of_the_parent_leaves_no_process(checkpoint: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(checkpoint)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"running\n"
        assert parent.wait() == -signal.SIGKILL

    deadline = time.monotonic() + 30
    while (left := _processes_of_session(parent.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def _processes_of_session(session: int) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session:
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found
