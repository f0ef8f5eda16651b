"""Logits of every family against transformers in float32, however the work is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_options import OPTIONS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paged_runner import MakeModel, PagedRunner, tokens_of
from tiny_models import FAMILIES, VOCAB_SIZE, reference_model
from torch import Tensor

TOLERANCE = 1e-4
LENGTH = 150
"""Longer than a query block of 128, so that prompts are cut inside the model too."""


def reference_logits(path: Path, tokens: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = reference_model(path)(tokens[None]).logits[0]
    return logits


def assert_close(logits: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(logits, reference, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "cuts",
    [
        pytest.param([], id="whole-prefill"),
        pytest.param([1], id="first-token-alone"),
        pytest.param([7, 40, 44, 130], id="prefill-chunks-with-context"),
        pytest.param([5, *range(6, 20), 100], id="decodes-between-chunks"),
        pytest.param(list(range(30, LENGTH)), id="decodes-across-blocks"),
    ],
)
def test_logits_equal_transformers(model_of: MakeModel, family: str, cuts: list[int]) -> None:
    path = model_of(family)
    tokens = tokens_of(LENGTH)
    logits = PagedRunner(path).run("a", tokens, cuts)
    assert_close(logits, reference_logits(path, tokens))


@pytest.mark.parametrize(("family", "overrides"), OPTIONS)
def test_every_option_of_a_checkpoint_equals_transformers(
    model_of: MakeModel, family: str, overrides: dict[str, Any]
) -> None:
    path = model_of(family, **overrides)
    tokens = tokens_of(LENGTH)
    logits = PagedRunner(path).run("a", tokens, [135, 136, 137, 142])
    assert_close(logits, reference_logits(path, tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_decodes_and_prefill_chunks_share_a_batch(model_of: MakeModel, family: str) -> None:
    path = model_of(family)
    tokens = {name: tokens_of(LENGTH, seed) for seed, name in enumerate("abcdef")}
    steps = [{"a": 9, "b": 33, "c": 140}, {"a": 1, "b": 1, "c": 1, "d": 150}]
    steps += [{"b": 1, "c": 1, "d": 0, "e": 17, "f": 1}, {"a": 1, "c": 1, "e": 30, "f": 1}]
    results = PagedRunner(path).run_steps(tokens, steps)
    assert {name: len(logits) for name, logits in results.items()} == {
        name: sum(step.get(name, 0) for step in steps) for name in tokens
    }
    for name, logits in results.items():
        assert_close(logits, reference_logits(path, tokens[name][: len(logits)]))


@pytest.mark.parametrize("family", ["qwen3", "mistral"])
def test_decodes_of_very_different_lengths_attend_in_groups(
    model_of: MakeModel, family: str
) -> None:
    path = model_of(family, max_position_embeddings=1024)
    runner = PagedRunner(path, num_blocks=900)
    lengths = {"a": 3, "b": 900, "c": 40, "d": 880, "e": 400, "f": 1, "g": 390}
    tokens = {name: tokens_of(count + 2, count) for name, count in lengths.items()}
    runner.step({name: tokens[name][:count] for name, count in lengths.items()})
    for offset in (0, 1):
        decoded = runner.step(
            {name: tokens[name][count + offset][None] for name, count in lengths.items()}
        )
    for name, rows in decoded.items():
        assert_close(rows[0], reference_logits(path, tokens[name])[-1])


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("block_size", [1, 16, 256])
def test_neighbouring_blocks_give_the_same_logits(
    model_of: MakeModel, family: str, block_size: int
) -> None:
    path = model_of(family)
    tokens = tokens_of(LENGTH)
    runner = PagedRunner(path, block_size=block_size, in_order=True)
    logits = runner.run("a", tokens, [60, 100, 101, 102])
    assert_close(logits, reference_logits(path, tokens))


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_schedule_gives_the_same_logits(model_of: MakeModel, data: st.DataObject) -> None:
    path = model_of("mistral")
    tokens = {name: tokens_of(40, seed) for seed, name in enumerate("abc")}
    counts = st.fixed_dictionaries({name: st.sampled_from([0, 1, 1, 2, 9]) for name in tokens})
    steps = data.draw(st.lists(counts.filter(lambda step: any(step.values())), max_size=8))
    for name, logits in PagedRunner(path).run_steps(tokens, steps).items():
        whole = PagedRunner(path).step({name: tokens[name][: len(logits)]})[name]
        assert_close(logits, whole)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
def test_a_checkpoint_in_16_bits_loads_in_float32(
    model_of: MakeModel, family: str, stored: str
) -> None:
    path = model_of(family, dtype=stored)
    tokens = tokens_of(60)
    assert_close(PagedRunner(path).run("a", tokens, [30]), reference_logits(path, tokens))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("enforce_eager", [False, True])
def test_bfloat16_is_as_close_to_float32_as_transformers_is(
    model_of: MakeModel, family: str, enforce_eager: bool
) -> None:
    path = model_of(family)
    tokens = tokens_of(60)
    exact = reference_logits(path, tokens)
    with torch.inference_mode():
        theirs = reference_model(path, "bfloat16")(tokens[None]).logits[0].float()
    runner = PagedRunner(path, dtype=torch.bfloat16, enforce_eager=enforce_eager)
    ours = runner.run("a", tokens, [30, 31, 32])
    assert (ours - exact).square().mean() < 2 * (theirs - exact).square().mean()


def test_no_rows_give_no_logits(model_of: MakeModel) -> None:
    runner = PagedRunner(model_of("llama"))
    assert runner.model.compute_logits(torch.empty(0, 64)).shape == (0, VOCAB_SIZE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("family", ["qwen3", "mistral"])
def test_logits_on_cuda_equal_transformers(model_of: MakeModel, family: str) -> None:
    path = model_of(family)
    tokens = tokens_of(LENGTH)
    logits = PagedRunner(path, device="cuda").run("a", tokens, [7, 40, 130, 131, 132])
    torch.testing.assert_close(logits, reference_logits(path, tokens), atol=1e-3, rtol=0)
