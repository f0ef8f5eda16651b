"""Embeddings are the mean of transformers' last hidden states, whatever else the engine does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from tiny_models import make_checkpoint, make_tokenizer, reference_model

from rillm.async_llm import AsyncLLM
from rillm.embedding import EmbeddingOutput
from rillm.engine_args import AsyncEngineArgs
from rillm.errors import EngineDeadError, InvalidRequestError
from rillm.sampling_params import SamplingParams

PROMPTS = [list(range(1, 200)), [7], [5, 6, 7, 8], list(range(1, 200))]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3")
    make_tokenizer(path)
    return make_checkpoint("qwen3", path)


def new_llm(checkpoint: Path, **settings: object) -> AsyncLLM:
    return AsyncLLM(
        AsyncEngineArgs(
            model=str(checkpoint),
            dtype="float32",
            max_num_seqs=4,
            max_num_batched_tokens=16,
            num_gpu_blocks_override=40,
            **settings,  # type: ignore[arg-type]
        )
    )


def reference(checkpoint: Path, prompt: list[int]) -> torch.Tensor:
    model = reference_model(checkpoint)
    with torch.inference_mode():
        output = model(torch.tensor([prompt]), output_hidden_states=True)
    return output.hidden_states[-1][0].mean(0)


@pytest.mark.parametrize("in_process", [True, False])
async def test_embeddings_are_those_of_transformers(checkpoint: Path, in_process: bool) -> None:
    """In chunks of 16 tokens, with too few blocks for all, beside a stream that goes on."""
    llm = new_llm(checkpoint, in_process=in_process)

    async def speak() -> int:
        params = SamplingParams(max_tokens=60, ignore_eos=True, seed=1)
        async for output in llm.generate([1, 2, 3], params, "speaks"):
            last = output
        return len(last.outputs[0].token_ids)

    try:
        num_tokens, *answers = await asyncio.gather(speak(), *(llm.embed(p) for p in PROMPTS))
    finally:
        await llm.aclose()

    assert num_tokens == 60
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert isinstance(answer, EmbeddingOutput)
        assert answer.num_prompt_tokens == len(prompt)
        torch.testing.assert_close(
            torch.tensor(answer.embedding), reference(checkpoint, prompt), atol=1e-4, rtol=1e-4
        )


async def test_text_is_embedded_as_its_tokens(checkpoint: Path) -> None:
    llm = new_llm(checkpoint, in_process=True)
    try:
        of_text = await llm.embed("a tide")
        of_tokens = await llm.embed(llm.get_tokenizer().encode("a tide"))
        with pytest.raises(InvalidRequestError, match="prompt is empty"):
            await llm.embed([])
    finally:
        await llm.aclose()

    assert of_text.embedding == pytest.approx(of_tokens.embedding, abs=1e-5)


async def test_an_embedding_that_is_not_waited_for_leaves_nothing_behind(checkpoint: Path) -> None:
    llm = new_llm(checkpoint, in_process=True)
    try:
        await llm.wait_ready()
        waiting = asyncio.create_task(llm.embed(list(range(1, 300))))
        await asyncio.sleep(0)
        assert llm.get_num_unfinished_requests() == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert llm.get_num_unfinished_requests() == 0
        # The engine has dropped it too: all blocks are free when another request has ended.
        await llm.embed([1, 2])
        await llm.embed([1, 2])
        assert llm.engine_stats.num_free_blocks == 40
    finally:
        await llm.aclose()


async def test_an_engine_that_stops_ends_its_embeddings(checkpoint: Path) -> None:
    llm = new_llm(checkpoint, in_process=True)
    await llm.wait_ready()
    waiting = asyncio.create_task(llm.embed(list(range(1, 300))))
    await asyncio.sleep(0)

    await llm.aclose()

    with pytest.raises(EngineDeadError):
        await waiting
