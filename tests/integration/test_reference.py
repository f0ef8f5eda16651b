"""The engine against transformers: greedy tokens must be the same, whatever the schedule."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from native_support import NEEDS_NATIVE, is_exact
from tiny_models import FAMILIES, VOCAB_SIZE, make_checkpoint, reference_model

from rillm import LLM, SamplingParams

NUM_TOKENS = 24


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make_checkpoint(family, tmp_path_factory.mktemp(family)) for family in FAMILIES}


def prompts_of(lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(VOCAB_SIZE) for _ in range(length)] for length in lengths]


def greedy_reference(path: Path, prompts: list[list[int]]) -> list[list[int]]:
    model = reference_model(path)
    answers = []
    for prompt in prompts:
        tokens = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        answers.append(tokens[0, len(prompt) :].tolist())
    return answers


def engine(path: Path, **settings: object) -> LLM:
    return LLM(str(path), **{"dtype": "float32", "skip_tokenizer_init": True, **settings})


def greedy(llm: LLM, prompts: list[list[int]]) -> list[list[int]]:
    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
    inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
    return [out.outputs[0].token_ids for out in llm.generate(inputs, params, use_tqdm=False)]


# Around the edges of blocks of 16, shorter and longer than mistral's window of 24.
LENGTHS = [1, 5, 15, 16, 17, 31, 32, 33, 70]


SCHEDULES = [
    pytest.param({}, id="mixed batch"),
    pytest.param({"max_num_seqs": 8, "max_num_batched_tokens": 11}, id="chunked prefill"),
    # Nine sequences of up to six blocks in eight blocks: most are preempted.
    pytest.param({"max_model_len": 96, "num_gpu_blocks_override": 8}, id="preemption"),
    pytest.param({"max_num_seqs": 1}, id="one at a time"),
    pytest.param({"block_size": 4, "enable_prefix_caching": False}, id="small blocks"),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", SCHEDULES)
def test_greedy_tokens_equal_transformers(
    family: str, settings: dict[str, object], checkpoints: dict[str, Path]
) -> None:
    prompts = prompts_of(LENGTHS)

    answers = greedy(engine(checkpoints[family], **settings), prompts)

    assert answers == greedy_reference(checkpoints[family], prompts)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefix_cache_hits_do_not_change_tokens(family: str, checkpoints: dict[str, Path]) -> None:
    llm = engine(checkpoints[family])
    first, *others = prompts_of([48, 9, 20, 1])
    prompts = [first] + [first[:40] + other for other in others]
    expected = greedy_reference(checkpoints[family], prompts)

    answers = [greedy(llm, [prompt])[0] for prompt in [*prompts, first]]
    params = SamplingParams(max_tokens=1)
    cached = [
        llm.generate({"prompt_token_ids": prompt}, params, use_tqdm=False)[0].num_cached_tokens
        for prompt in prompts
    ]

    assert answers == [*expected, expected[0]]
    assert cached == [32, 48, 48, 32]


def test_cache_salt_keeps_prefixes_apart(checkpoints: dict[str, Path]) -> None:
    llm = engine(checkpoints["llama"])
    (prompt,) = prompts_of([48])
    params = SamplingParams(max_tokens=1)

    def cached(salt: str) -> int | None:
        inputs = {"prompt_token_ids": prompt, "cache_salt": salt}
        return llm.generate(inputs, params, use_tqdm=False)[0].num_cached_tokens

    assert [cached("a"), cached("a"), cached("b"), cached("b")] == [0, 32, 0, 32]


@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_agree_with_transformers(family: str, checkpoints: dict[str, Path]) -> None:
    (prompt,) = prompts_of([37])
    with torch.inference_mode():
        logits = reference_model(checkpoints[family])(torch.tensor([prompt])).logits[0]
    expected = torch.log_softmax(logits, dim=-1)

    params = SamplingParams(max_tokens=1, logprobs=5, prompt_logprobs=3, temperature=0)
    llm = engine(checkpoints[family], max_num_batched_tokens=16, max_num_seqs=4)
    (output,) = llm.generate({"prompt_token_ids": prompt}, params, use_tqdm=False)

    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert output.outputs[0].logprobs is not None
    positions = [*output.prompt_logprobs[1:], output.outputs[0].logprobs[0]]
    for row, position in zip(expected, positions, strict=True):
        for token_id, logprob in position.items():
            assert logprob.logprob == pytest.approx(float(row[token_id]), abs=1e-4)
            assert logprob.rank == int((row > row[token_id]).sum()) + 1


def test_scored_candidates_agree_with_transformers(checkpoints: dict[str, Path]) -> None:
    (prompt,) = prompts_of([21])
    with torch.inference_mode():
        logits = reference_model(checkpoints["qwen3"])(torch.tensor([prompt])).logits[0]
    expected = torch.log_softmax(logits, dim=-1)
    candidates = [[7, 9 + i, -1] for i in range(12)]

    params = SamplingParams(
        max_tokens=1, prompt_logprob_token_ids=candidates, prompt_logprob_start=8
    )
    llm = engine(checkpoints["qwen3"], max_num_batched_tokens=5, max_num_seqs=4)
    (output,) = llm.generate({"prompt_token_ids": prompt}, params, use_tqdm=False)

    assert output.prompt_token_id_logprobs is not None
    for i, (ids, values) in enumerate(
        zip(candidates, output.prompt_token_id_logprobs, strict=True)
    ):
        assert values == pytest.approx(expected[8 + i, ids[:2]].tolist(), abs=1e-4)


def test_forked_choices_equal_separate_requests(checkpoints: dict[str, Path]) -> None:
    """n > 1 shares one prefill; each choice draws what it would draw with its own."""
    llm = engine(checkpoints["llama"])
    (prompt,) = prompts_of([27])
    params = SamplingParams(n=5, seed=7, max_tokens=NUM_TOKENS, ignore_eos=True, top_p=0.9)

    (shared,) = llm.generate({"prompt_token_ids": prompt}, params, use_tqdm=False)
    tight = engine(
        checkpoints["llama"], num_gpu_blocks_override=7, max_model_len=64, max_num_seqs=5
    )
    (preempted,) = tight.generate({"prompt_token_ids": prompt}, params, use_tqdm=False)

    choices = [choice.token_ids for choice in shared.outputs]
    assert [choice.index for choice in shared.outputs] == [0, 1, 2, 3, 4]
    assert len({tuple(choice) for choice in choices}) == 5
    assert [choice.token_ids for choice in preempted.outputs] == choices
    assert preempted.metrics is not None
    assert preempted.metrics.num_preemptions > 0


def test_seeded_tokens_are_the_same_alone_and_among_others(
    checkpoints: dict[str, Path],
) -> None:
    llm = engine(checkpoints["qwen3"])
    prompts = prompts_of([3 + 2 * i for i in range(32)])
    inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
    params = [
        SamplingParams(
            seed=i,
            max_tokens=60,
            ignore_eos=True,
            temperature=0.5 + 0.04 * i,
            top_k=[0, 5, 50][i % 3],
            top_p=[1.0, 0.8][i % 2],
            min_p=[0.0, 0.0, 0.0, 0.02][i % 4],
            frequency_penalty=[0.0, 0.0, 0.0, 0.0, 0.5][i % 5],
        )
        for i in range(32)
    ]

    together = llm.generate(inputs, params, use_tqdm=False)
    alone = [llm.generate(*pair, use_tqdm=False)[0] for pair in zip(inputs, params, strict=True)]

    assert [o.outputs[0].token_ids for o in together] == [o.outputs[0].token_ids for o in alone]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", SCHEDULES[1:])
def test_no_schedule_changes_a_bit_in_the_native_decoder(
    family: str, settings: dict[str, object], checkpoints: dict[str, Path]
) -> None:
    path = checkpoints[family]
    if not is_exact(path):
        pytest.skip(f"{NEEDS_NATIVE}, and no AMX")
    inputs = [{"prompt_token_ids": prompt} for prompt in prompts_of(LENGTHS)]
    # Unfiltered and hot: the last bit of a logit decides some of the draws.
    params = [
        SamplingParams(seed=i, temperature=1.5, max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=3)
        for i in range(len(inputs))
    ]

    def answers(**settings: object) -> list[object]:
        llm = engine(path, dtype="bfloat16", **settings)
        outputs = [out.outputs[0] for out in llm.generate(inputs, params, use_tqdm=False)]
        return [(output.token_ids, output.logprobs) for output in outputs]

    assert answers(**settings) == answers()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_on_cuda_equal_transformers(
    family: str, checkpoints: dict[str, Path]
) -> None:
    prompts = prompts_of(LENGTHS)

    answers = greedy(engine(checkpoints[family], device="cuda"), prompts)

    assert answers == greedy_reference(checkpoints[family], prompts)
