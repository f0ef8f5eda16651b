"""The sampler against a reference that handles one row at a time, in float64, by the definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fakes import engine_request
from hypothesis import given, settings
from hypothesis import strategies as st

from rillm.engine.filters import draw
from rillm.engine.messages import TokenSamplingParams
from rillm.engine.randomness import stream_keys, uniforms
from rillm.engine.sampler import Sampler
from rillm.engine.sampling_batch import Row
from rillm.engine.scheduled_batch import SampledToken
from rillm.engine.sequence import Sequence

Floats = npt.NDArray[np.float64]

VOCAB_SIZE = 24
CPU = torch.device("cpu")
MARGIN = 1e-6
"""Where a filter's bound is this close, float32 may decide either way."""


def sequence(prompt: list[int], output: list[int], **params: Any) -> Sequence:
    params = {"temperature": 1.0, "seed": 0, "max_tokens": 1000} | params
    result = Sequence.start(engine_request(0, prompt, **params), 0, 0.0)
    result.token_ids += output
    return result


def sample(logits: torch.Tensor, rows: list[Row], sampler: Sampler | None = None) -> list[int]:
    sampler = sampler or Sampler(logits.shape[1], CPU)
    return [token.token_id for token in sampler.sample(logits.clone(), rows)]


# ---- the reference -----------------------------------------------------------------------------


def edited(row: Floats, prompt: list[int], output: list[int], p: TokenSamplingParams) -> Floats:
    logits = row.copy()
    for token_id in range(len(logits)):
        if p.allowed_token_ids is not None and token_id not in p.allowed_token_ids:
            logits[token_id] = -np.inf
        for word in p.bad_words or []:
            before = word[:-1]
            tail = output[len(output) - len(before) :] if len(before) <= len(output) else None
            if token_id == word[-1] and tail == before:
                logits[token_id] = -np.inf
        logits[token_id] += (p.logit_bias or {}).get(token_id, 0.0)
        if len(output) < p.min_tokens and token_id in [*p.stop_token_ids, p.eos_token_id]:
            logits[token_id] = -np.inf
        if token_id in prompt or token_id in output:
            positive = logits[token_id] > 0
            logits[token_id] *= 1 / p.repetition_penalty if positive else p.repetition_penalty
        logits[token_id] -= p.frequency_penalty * output.count(token_id)
        logits[token_id] -= p.presence_penalty * (token_id in output)
    return logits


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())


def filtered(logits: Floats, p: TokenSamplingParams) -> tuple[Floats, bool]:
    """The distribution to draw from, and whether no bound is close enough to be doubtful."""
    probs = softmax(logits / p.temperature)
    floor = p.min_p * probs.max()
    is_clear = bool(np.all(np.abs(probs - floor) > MARGIN * probs.max())) or p.min_p == 0
    probs = np.where(probs < floor, 0, probs)
    order = np.argsort(-probs, kind="stable")
    if p.top_k:
        probs[order[p.top_k :]] = 0
    probs /= probs.sum()
    if p.top_p < 1:
        mass_before = np.cumsum(probs[order]) - probs[order]
        is_clear &= bool(np.all(np.abs(mass_before - p.top_p) > MARGIN))
        probs[order[mass_before >= p.top_p]] = 0
        probs /= probs.sum()
    return probs, is_clear


def uniform_of(seq: Sequence, choice: int) -> float:
    keys = stream_keys(np.array([seq.request.params.seed]), np.array([choice]))
    return float(uniforms(keys, np.array([len(seq.token_ids)]))[0])


def assert_agrees(token_id: int, row: torch.Tensor, seq: Sequence, choice: int = 0) -> None:
    """Check one token against the inverse of the reference's cumulative distribution."""
    p = seq.request.params
    prompt = seq.request.prompt_token_ids
    logits = edited(row.double().numpy(), prompt, seq.token_ids[len(prompt) :], p)
    if not np.isfinite(logits.max()):
        assert token_id == -1
        return
    if p.temperature == 0:
        assert logits[token_id] >= logits.max() - MARGIN
        return
    probs, is_clear = filtered(logits, p)
    if is_clear:
        assert probs[token_id] > 0
        uniform = uniform_of(seq, choice)
        below = probs[:token_id].sum()
        assert below - MARGIN <= uniform <= below + probs[token_id] + MARGIN


# ---- random mixes of options -------------------------------------------------------------------

token_ids = st.integers(0, VOCAB_SIZE - 1)


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    """A sequence with a few of the options set, some to extremes."""
    few = st.none().__or__
    options = {
        "temperature": few(st.sampled_from([0.0, 0.01, 0.3, 2.0])),
        "top_k": few(st.sampled_from([1, 2, 7, VOCAB_SIZE, 1000])),
        "top_p": few(st.sampled_from([1e-6, 0.2, 0.61, 0.97])),
        "min_p": few(st.sampled_from([1e-4, 0.1, 0.7, 1.0])),
        "presence_penalty": few(st.sampled_from([-2.0, 0.5, 2.0])),
        "frequency_penalty": few(st.sampled_from([-2.0, 0.5, 2.0])),
        "repetition_penalty": few(st.sampled_from([0.2, 1.3, 5.0])),
        "logit_bias": few(st.dictionaries(token_ids, st.sampled_from([-100.0, 2.0, 100.0]))),
        "allowed_token_ids": few(st.lists(token_ids, min_size=1, max_size=5)),
        "bad_words": few(
            st.lists(st.lists(token_ids, min_size=1, max_size=2), min_size=1, max_size=4)
        ),
        "stop_token_ids": few(st.lists(token_ids, max_size=3)),
        "eos_token_id": few(token_ids),
        "min_tokens": few(st.integers(1, 8)),
    }
    drawn = {name: draw(strategy) for name, strategy in options.items()}
    params = {name: value for name, value in drawn.items() if value is not None}
    return sequence(
        draw(st.lists(token_ids, min_size=1, max_size=8)),
        draw(st.lists(token_ids, max_size=8)),
        seed=draw(st.integers(-(2**63), 2**63 - 1)),
        **params,
    )


def random_logits(
    num_rows: int, seed: int, scale: float = 2.0, vocab_size: int = VOCAB_SIZE
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, vocab_size, generator=generator) * scale


@settings(max_examples=100)
@given(st.lists(sequences(), min_size=1, max_size=6), st.integers(0, 2**31))
def test_each_row_of_any_mix_of_options_gets_the_token_of_the_definition(
    mix: list[Sequence], seed: int
) -> None:
    logits = random_logits(len(mix), seed)
    rows: list[Row] = [(seq, i % 3) for i, seq in enumerate(mix)]
    tokens = sample(logits, rows)
    for token_id, row, (seq, choice) in zip(tokens, logits, rows, strict=True):
        assert_agrees(token_id, row, seq, choice)
    alone = [sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    assert tokens == alone


@settings(max_examples=40)
@given(st.lists(sequences(), min_size=2, max_size=4), st.data())
def test_counts_stay_right_while_rows_come_and_go(mix: list[Sequence], data: st.DataObject) -> None:
    sampler = Sampler(VOCAB_SIZE, CPU)
    present = mix
    for step in range(12):
        if step % 4 == 0:
            present = data.draw(st.permutations(mix))[1:]
        logits = random_logits(len(present), step)
        tokens = sample(logits, [(seq, 0) for seq in present], sampler)
        for token_id, row, seq in zip(tokens, logits, present, strict=True):
            assert_agrees(token_id, row, seq)
            seq.token_ids.append(max(token_id, 0))


@pytest.mark.parametrize(
    "params",
    [
        {"top_p": 0.95},
        {"top_p": 0.1},
        {"top_p": 0.97},
        {"top_k": 100},
        {"top_k": 300},
        {"top_k": 3000},
        {"top_k": 300, "top_p": 0.5},
        {"top_k": 3000, "top_p": 0.99},
        {"min_p": 0.05, "top_p": 0.9},
        {},
    ],
)
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_a_large_vocabulary_is_cut_by_the_same_rules(params: dict[str, Any], scale: float) -> None:
    # 0.3 is so flat that top-p keeps thousands, 2.0 is so steep that it keeps few.
    count = 400
    logits = random_logits(1, 7, scale, vocab_size=5000)
    mix = [sequence([1], [], seed=seed, **params) for seed in range(count)]
    tokens = sample(logits.expand(count, -1), [(seq, 0) for seq in mix])
    probs, is_clear = filtered(logits[0].double().numpy(), mix[0].request.params)
    assert is_clear
    assert all(probs[tokens] > 0)
    below = np.cumsum(probs) - probs
    drawn = np.array([uniform_of(seq, 0) for seq in mix])
    assert np.all(below[tokens] - MARGIN <= drawn)
    assert np.all(drawn <= below[tokens] + probs[tokens] + MARGIN)


def test_a_row_keeps_the_same_tokens_whatever_the_others_ask_for() -> None:
    options: list[dict[str, Any]] = [
        {"top_k": 50, "top_p": 0.9},
        {"top_k": 4000, "top_p": 0.9},
        {"top_p": 0.9},
        {"top_k": 700},
        {"temperature": 0.0},
    ]
    mix = [sequence([1], [], seed=i, **options[i % len(options)]) for i in range(50)]
    rows: list[Row] = [(seq, 0) for seq in mix]
    logits = random_logits(50, 3, vocab_size=5000)
    alone = [sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    assert sample(logits, rows) == alone
    assert sample(logits[::5], rows[::5]) == alone[::5]


# ---- frequencies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 5},
        {"top_p": 0.6},
        {"min_p": 0.2},
        {"temperature": 1.7, "top_k": 9, "top_p": 0.8, "min_p": 0.05},
        {"repetition_penalty": 1.5, "frequency_penalty": 0.5, "logit_bias": {3: 1.0}},
    ],
)
@pytest.mark.parametrize("vary", ["seed", "choice", "position"])
def test_frequencies_over_seeds_choices_and_positions_match_the_distribution(
    params: dict[str, Any], vary: str
) -> None:
    count = 2000
    logits = random_logits(1, 11)
    make_row: dict[str, Callable[[int], Row]] = {
        "seed": lambda i: (sequence([1, 2], [3, 3], seed=i, **params), 0),
        "choice": lambda i: (sequence([1, 2], [3, 3], seed=4, **params), i),
        "position": lambda i: (sequence([1, 2] + [2] * i, [3, 3], seed=4, **params), 0),
    }
    rows = [make_row[vary](i) for i in range(count)]
    tokens = sample(logits.expand(count, -1), rows)
    p = rows[0][0].request.params
    probs, _ = filtered(edited(logits[0].double().numpy(), [1, 2], [3, 3], p), p)
    observed = np.bincount(tokens, minlength=VOCAB_SIZE)
    assert not observed[probs == 0].any()
    expected = probs * count
    common = expected >= 5
    chi_square = ((observed - expected)[common] ** 2 / expected[common]).sum()
    freedom = int(common.sum())
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def test_a_token_of_no_probability_is_never_drawn_even_at_the_ends_of_the_range() -> None:
    logits = torch.full((3, 5), -torch.inf, dtype=torch.float32)
    logits[:, [1, 3]] = 0.0
    ends = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, ends).tolist() == [1, 3, 3]
    # Sums of float32 probabilities end a little below or above 1.
    logits = random_logits(300, 1, vocab_size=60)
    logits[:, 50:] = -torch.inf
    assert draw(logits, ends[2:].expand(300)).max() < 50


# ---- rows that cannot be sampled ---------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", ["nan", "one nan", "inf", "all excluded", "nothing allowed"])
def test_a_row_without_a_choice_gives_no_token_and_leaves_the_others_alone(
    temperature: float, bad: str
) -> None:
    logits = random_logits(5, 5)
    options: dict[str, Any] = {"temperature": temperature}
    mix = [sequence([1], [2], seed=i, top_p=0.8, top_k=6, **options) for i in range(5)]
    rows: list[Row] = [(seq, 0) for seq in mix]
    expected = sample(logits, rows)
    if bad == "nan":
        logits[2] = torch.nan
    elif bad == "one nan":
        logits[2, 3] = torch.nan
    elif bad == "inf":
        logits[2, 3] = torch.inf
    elif bad == "all excluded":
        logits[2] = -torch.inf
    else:
        seq = sequence([1], [2], allowed_token_ids=[4], bad_words=[[4]], **options)
        rows[2] = (seq, 0)
    assert sample(logits, rows) == [*expected[:2], -1, *expected[3:]]


def test_greedy_rows_take_the_best_token_and_ignore_every_filter() -> None:
    logits = random_logits(3, 9)
    options: dict[str, Any] = {"temperature": 0.0, "top_k": 3, "top_p": 0.1, "min_p": 0.9}
    rows: list[Row] = [(sequence([1], [], **options), 0) for _ in range(2)]
    rows.append((sequence([1], [], seed=1), 0))
    assert sample(logits, rows)[:2] == logits.argmax(dim=-1)[:2].tolist()


# ---- logprobs ----------------------------------------------------------------------------------


def test_logprobs_are_the_models_own_with_the_token_first_and_the_best_after_it() -> None:
    logits = random_logits(6, 2)
    counts = [None, 0, 1, 5, VOCAB_SIZE, None]
    shaped: dict[str, Any] = {
        "temperature": 0.7,
        "top_k": 4,
        "frequency_penalty": 2.0,
        "logit_bias": {0: 100.0},
    }
    rows: list[Row] = [
        (sequence([1], [5], seed=i, num_logprobs=count, **shaped), 0)
        for i, count in enumerate(counts)
    ]
    sampled = Sampler(VOCAB_SIZE, CPU).sample(logits.clone(), rows)
    reference = torch.log_softmax(logits.double(), dim=-1)
    for row, (token, count) in enumerate(zip(sampled, counts, strict=True)):
        if count is None:
            assert token.logprobs is None
            continue
        assert token.logprobs is not None
        order = reference[row].argsort(descending=True).tolist()
        assert token.logprobs.token_ids == [token.token_id, *order[:count]]
        assert token.logprobs.rank == order.index(token.token_id) + 1
        expected = reference[row][torch.tensor(token.logprobs.token_ids)].tolist()
        assert token.logprobs.logprobs == pytest.approx(expected, abs=1e-5)


def test_logprobs_of_chosen_ids_come_in_the_order_they_were_asked_for() -> None:
    logits = random_logits(2, 3)
    rows: list[Row] = [
        (sequence([1], [], seed=1, logprob_token_ids=[9, 0, 23], num_logprobs=3), 0),
        (sequence([1], [], seed=2, logprob_token_ids=[]), 0),
    ]
    first, second = Sampler(VOCAB_SIZE, CPU).sample(logits.clone(), rows)
    reference = torch.log_softmax(logits.double(), dim=-1)
    assert first.logprobs is not None
    assert second.logprobs is not None
    assert first.logprobs.token_ids == [first.token_id, 9, 0, 23]
    expected = reference[0][torch.tensor(first.logprobs.token_ids)].tolist()
    assert first.logprobs.logprobs == pytest.approx(expected, abs=1e-5)
    assert first.logprobs.rank == int((reference[0] > reference[0][first.token_id]).sum()) + 1
    assert second.logprobs.token_ids == [second.token_id]


def test_asking_for_logprobs_does_not_change_the_tokens() -> None:
    logits = random_logits(20, 4)

    def tokens(**params: Any) -> list[int]:
        rows: list[Row] = [
            (sequence([1], [2, 3], seed=i, presence_penalty=1.0, top_p=0.9, **params), 0)
            for i in range(20)
        ]
        sampled: list[SampledToken] = Sampler(VOCAB_SIZE, CPU).sample(logits.clone(), rows)
        return [token.token_id for token in sampled]

    assert tokens() == tokens(num_logprobs=4) == tokens(logprob_token_ids=[3])
