"""The decoder in C: as exact as transformers in bfloat16, and the same bits however work is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_options import OPTIONS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_support import NEEDS_NATIVE, has_native_decoder
from paged_runner import MakeModel, PagedRunner, tokens_of
from tiny_models import FAMILIES, VOCAB_SIZE, reference_model
from torch import Tensor

from rillm.models import loader

LENGTH = 150
"""More rows than a product holds sums of at a time, and more positions than two panels."""


@pytest.fixture(scope="module", autouse=True)
def _needs_library(model_of: MakeModel) -> None:
    if not has_native_decoder(model_of("llama")):
        pytest.skip(NEEDS_NATIVE)


@pytest.fixture(autouse=True, params=["AVX-512", "AVX512-BF16"])
def _processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can do so much, and has no matrix units, beside which C runs small batches only."""
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = request.param == "AVX512-BF16"
    if has_bf16 and not capabilities.get("avx512_bf16"):
        pytest.skip(f"needs a processor with {request.param}")
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: capabilities | {"avx512_bf16": has_bf16}
    )
    monkeypatch.setattr(loader, "has_matrix_units", lambda: False)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def runner(path: Path, **settings: Any) -> PagedRunner:
    return PagedRunner(path, dtype=torch.bfloat16, **settings)


def reference_logits(path: Path, tokens: Tensor, dtype: str) -> Tensor:
    with torch.inference_mode():
        return reference_model(path, dtype)(tokens[None]).logits[0].float()


def error(logits: Tensor, exact: Tensor) -> float:
    return float((logits - exact).square().mean())


@pytest.mark.parametrize(
    ("family", "overrides"), [*[pytest.param(each, {}, id=each) for each in FAMILIES], *OPTIONS]
)
def test_errors_are_no_larger_than_those_of_transformers(
    model_of: MakeModel, family: str, overrides: dict[str, Any]
) -> None:
    path = model_of(family, **overrides)
    tokens = tokens_of(LENGTH)
    exact = reference_logits(path, tokens, "float32")
    theirs = error(reference_logits(path, tokens, "bfloat16"), exact)
    assert error(runner(path).run("a", tokens, []), exact) < 1.1 * theirs


@pytest.mark.parametrize(
    ("family", "overrides"), [*[pytest.param(each, {}, id=each) for each in FAMILIES], *OPTIONS]
)
@pytest.mark.parametrize(
    "cuts",
    [
        pytest.param([1], id="first-token-alone"),
        pytest.param([7, 40, 44, 130], id="chunks"),
        pytest.param([5, *range(6, 20), 100], id="decodes-between-chunks"),
        pytest.param(list(range(60, LENGTH)), id="decodes"),
    ],
)
def test_bits_do_not_depend_on_how_a_prompt_is_cut(
    model_of: MakeModel, family: str, overrides: dict[str, Any], cuts: list[int]
) -> None:
    path = model_of(family, **overrides)
    tokens = tokens_of(LENGTH)
    whole = runner(path).run("a", tokens, [])
    assert torch.equal(runner(path).run("a", tokens, cuts), whole)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("family", FAMILIES)
def test_bits_do_not_depend_on_the_number_of_threads(model_of: MakeModel, family: str) -> None:
    path = model_of(family)
    tokens = tokens_of(LENGTH)
    results = []
    for count in (2, 1, 3, 7):
        torch.set_num_threads(count)
        results.append(runner(path).run("a", tokens, [100, 101, 102]))
    assert all(torch.equal(each, results[0]) for each in results)


@pytest.mark.parametrize("block_size", [1, 16, 64, 100])
def test_bits_do_not_depend_on_the_blocks(model_of: MakeModel, block_size: int) -> None:
    path = model_of("mistral")
    tokens = tokens_of(LENGTH)
    whole = runner(path).run("a", tokens, [])
    for in_order in (False, True):
        ours = runner(path, block_size=block_size, in_order=in_order)
        assert torch.equal(ours.run("a", tokens, [70, 120, 121, 122]), whole)


@pytest.mark.parametrize("num_sequences", [2, 5, 12, 13, 31, 33, 70])
def test_bits_do_not_depend_on_the_batch(model_of: MakeModel, num_sequences: int) -> None:
    path = model_of("qwen3")
    prompts = {str(n): tokens_of(2 + n % 9, n) for n in range(num_sequences)}
    together = runner(path, num_blocks=1000)
    together.step({name: prompt[:-1] for name, prompt in prompts.items()})
    decoded = together.step({name: prompt[-1:] for name, prompt in prompts.items()})
    for name, prompt in prompts.items():
        assert torch.equal(decoded[name][0], runner(path).run("a", prompt, [])[-1])


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_schedule_gives_the_same_bits(model_of: MakeModel, data: st.DataObject) -> None:
    path = model_of("mistral")
    tokens = {name: tokens_of(90, seed) for seed, name in enumerate("abc")}
    counts = st.fixed_dictionaries({name: st.sampled_from([0, 1, 1, 2, 40]) for name in tokens})
    steps = data.draw(st.lists(counts.filter(lambda step: any(step.values())), max_size=8))
    for name, logits in runner(path).run_steps(tokens, steps).items():
        whole = runner(path).step({name: tokens[name][: len(logits)]})[name]
        assert torch.equal(logits, whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_by_torch_goes_on_in_c(
    model_of: MakeModel, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a processor with matrix units, where torch multiplies many rows more quickly."""
    path = model_of(family)
    tokens = tokens_of(LENGTH)
    exact = reference_logits(path, tokens, "float32")
    theirs = error(reference_logits(path, tokens, "bfloat16"), exact)
    monkeypatch.setattr(loader, "has_matrix_units", lambda: True)
    ours = runner(path)
    cuts = [60, *range(61, 100)]

    logits = ours.run("a", tokens, cuts)

    eager = runner(path, enforce_eager=True).run("a", tokens, cuts)
    assert torch.equal(logits[:60], eager[:60])
    assert not torch.equal(logits[60:100], eager[60:100])
    assert error(logits, exact) < 1.5 * theirs


def test_no_rows_give_no_logits(model_of: MakeModel) -> None:
    model = runner(model_of("llama")).model
    assert model.compute_logits(torch.empty(0, 64)).shape == (0, VOCAB_SIZE)


@pytest.mark.parametrize(
    ("dtype", "overrides"),
    [
        pytest.param(torch.float32, {}, id="float32"),
        pytest.param(torch.bfloat16, {"head_dim": 258}, id="heads-too-large"),
        pytest.param(torch.bfloat16, {"hidden_size": 63}, id="odd-hidden-size"),
        pytest.param(
            torch.bfloat16,
            {"num_attention_heads": 65, "num_key_value_heads": 1},
            id="too-many-heads-of-a-kv-head",
        ),
    ],
)
def test_what_it_cannot_run_is_run_by_torch(
    model_of: MakeModel, dtype: torch.dtype, overrides: dict[str, Any]
) -> None:
    path = model_of("qwen3", **overrides)
    assert not has_native_decoder(path, dtype)
    tokens = tokens_of(20)
    plain = PagedRunner(path, dtype=dtype, enforce_eager=True).run("a", tokens, [])
    assert torch.equal(PagedRunner(path, dtype=dtype).run("a", tokens, []), plain)
