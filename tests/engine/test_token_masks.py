"""Masks of grammars: on logits, among the other options, and on sequences that fork."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fakes import engine_request
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher

from rillm.constraints.vocabulary import checking_vocabulary
from rillm.engine.block_pool import BlockPool
from rillm.engine.finishing import advance
from rillm.engine.grammars import Matcher
from rillm.engine.messages import TokenDelta
from rillm.engine.sampler import Sampler
from rillm.engine.sampling_batch import Row
from rillm.engine.scheduler import SampledToken, Scheduler
from rillm.engine.sequence import Sequence
from rillm.engine.token_masks import TokenMasks

MARKERS = 3
"""Ids below are markers; then come the 256 bytes, then the end."""
VOCABULARY = checking_vocabulary(dict.fromkeys(range(MARKERS), "<m>"), MARKERS)
VOCAB_SIZE = MARKERS + 257
END = VOCAB_SIZE - 1
CPU = torch.device("cpu")


def ids(text: str) -> list[int]:
    return [MARKERS + byte for byte in text.encode()]


def sequence(regex: str | None, output: str = "", **params: Any) -> Sequence:
    params = {"eos_token_id": END, "max_tokens": 100} | params
    made = Sequence.start(engine_request(0, [5], **params), 0, 0.0)
    if regex is not None:
        grammar = LLMatcher.grammar_from_regex(regex)
        made.matcher = Matcher(LLMatcher(VOCABULARY, grammar, log_level=0), frozenset({END}))
    for token_id in ids(output):
        made.token_ids.append(token_id)
        if made.matcher is not None:
            made.matcher.advance(token_id)
    return made


def sampleable(row: Sequence, *others: Sequence) -> set[int]:
    """All tokens that may be drawn, found by preferring each in turn."""
    found = set()
    rows: list[Row] = [(each, 0) for each in (row, *others)]
    sampler = Sampler(VOCAB_SIZE, CPU)
    for token_id in range(VOCAB_SIZE):
        logits = torch.zeros(len(rows), VOCAB_SIZE)
        logits[:, token_id] = 1.0
        drawn = sampler.sample(logits, rows)[0].token_id
        if drawn == token_id:
            found.add(token_id)
    return found


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.booleans(), st.integers(0, 2**32 - 1)), min_size=1, max_size=4),
    st.data(),
)
def test_exclude_leaves_what_has_a_bit(
    vocab_size: int, rows: list[tuple[bool, int]], data: st.DataObject
) -> None:
    words = -(-vocab_size // 32)
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    masks = generator.integers(0, 2**32, (len(rows), words), dtype=np.uint32).view(np.int32)
    at = [i for i, (is_masked, _) in enumerate(rows) if is_masked]
    logits = torch.from_numpy(generator.normal(size=(len(rows), vocab_size)).astype(np.float32))
    expected = logits.clone()
    for i in at:
        for token_id in range(vocab_size):
            if not int(masks[i, token_id // 32]) >> (token_id % 32) & 1:
                expected[i, token_id] = -torch.inf

    TokenMasks(vocab_size).exclude(logits, at, masks[at])

    assert torch.equal(logits, expected)


@pytest.mark.parametrize(
    ("regex", "output", "expected"),
    [
        ("abc", "", "a"),
        ("abc", "ab", "c"),
        ("[a-d]+x", "a", "abcdx"),
        ("yes|no", "", "yn"),
        ("é", "", "\u00c3"),
    ],
)
def test_only_what_fits_is_drawn(regex: str, output: str, expected: str) -> None:
    wanted = {MARKERS + ord(character) for character in expected}

    assert sampleable(sequence(regex, output)) == wanted
    # Nor do other rows change it, with a grammar of their own or without.
    assert sampleable(sequence(regex, output), sequence(None), sequence("z+")) == wanted


def test_the_end_fits_where_the_grammar_may_end() -> None:
    assert END not in sampleable(sequence("ab+", "a"))
    assert sampleable(sequence("ab+", "ab")) == {*ids("b"), END}
    assert sampleable(sequence("ab", "ab")) == {END}


@pytest.mark.parametrize("options", [{"min_tokens": 9}, {"eos_token_id": None}])
def test_options_that_put_off_the_end_do_so_while_anything_else_fits(
    options: dict[str, Any],
) -> None:
    assert sampleable(sequence("ab+", "ab", **options)) == set(ids("b"))
    assert sampleable(sequence("ab", "ab", **options)) == {END}


def test_grammar_and_other_options_both_hold() -> None:
    assert sampleable(sequence("[a-d]", allowed_token_ids=ids("bcx"))) == set(ids("bc"))
    assert sampleable(sequence("[a-d]", bad_words=[ids("a"), ids("b")])) == set(ids("cd"))
    assert sampleable(sequence("[a-d]+", "ca", bad_words=[ids("ab")])) == {*ids("acd"), END}
    assert sampleable(sequence("[a-d]", logit_bias={ids("x")[0]: 50.0})) == set(ids("abcd"))
    assert sampleable(sequence("[a-d]", logit_bias={ids("b")[0]: 50.0})) == set(ids("b"))
    # A whitelist does not keep a finished answer open.
    assert sampleable(sequence("ab", "ab", allowed_token_ids=ids("ab"))) == {END}


def test_no_token_is_drawn_where_options_exclude_all_that_fits() -> None:
    drawn = Sampler(VOCAB_SIZE, CPU).sample(
        torch.zeros(2, VOCAB_SIZE),
        [(sequence("a", allowed_token_ids=ids("x")), 0), (sequence(None), 0)],
    )

    assert drawn[0].token_id == -1
    assert drawn[1].token_id >= 0


def test_logprobs_are_those_of_the_model() -> None:
    logits = torch.arange(VOCAB_SIZE, dtype=torch.float32).repeat(2, 1)
    rows: list[Row] = [(sequence("a", num_logprobs=2), 0), (sequence(None, num_logprobs=2), 0)]

    masked, free = Sampler(VOCAB_SIZE, CPU).sample(logits, rows)

    assert masked.token_id == ids("a")[0]
    assert masked.logprobs is not None
    assert free.logprobs is not None
    assert masked.logprobs.token_ids[1:] == free.logprobs.token_ids[1:]
    assert masked.logprobs.logprobs[1:] == free.logprobs.logprobs[1:]
    assert masked.logprobs.rank == VOCAB_SIZE - ids("a")[0]


# ---- in the scheduler --------------------------------------------------------------------------


def new_scheduler() -> Scheduler:
    return Scheduler(BlockPool(8), block_size=4, max_num_seqs=4, max_num_batched_tokens=64)


def held(scheduler: Scheduler, request_id: int = 1, **params: Any) -> Matcher:
    params = {"eos_token_id": END, "max_tokens": 9, "grammar": "checked"} | params
    scheduler.add(engine_request(request_id, [1, 2, 3], **params))
    matcher = sequence("[ae][bf][cd]").matcher
    assert matcher is not None
    return matcher


def step(scheduler: Scheduler, *token_ids: int) -> list[TokenDelta]:
    return scheduler.update(scheduler.schedule(), [SampledToken(i) for i in token_ids])


def test_a_request_waits_for_its_grammar_while_others_run() -> None:
    scheduler = new_scheduler()
    matcher = held(scheduler)
    assert scheduler.is_blocked
    scheduler.add(engine_request(2, [4], max_tokens=2))
    assert not scheduler.is_blocked

    (other,) = step(scheduler, 7)
    scheduler.release(1, matcher)
    deltas = step(scheduler, 7, *ids("a"))

    assert other.request_id == 2
    assert [each.request_id for each in deltas] == [2, 1]
    assert scheduler.stats().num_waiting == 0
    scheduler.check()


def test_a_request_that_goes_while_its_grammar_is_compiled_leaves_nothing() -> None:
    scheduler = new_scheduler()
    matcher = held(scheduler)

    scheduler.abort(1)
    scheduler.release(1, matcher)

    assert not scheduler.has_work
    assert scheduler.fail(1, "late") == []


def test_a_grammar_that_cannot_be_compiled_ends_its_request_alone() -> None:
    scheduler = new_scheduler()
    held(scheduler, 1, n=3)
    matcher = held(scheduler, 2)
    scheduler.release(2, matcher)

    failed = scheduler.fail(1, "too complex")

    assert [(each.request_id, each.choice) for each in failed] == [(1, 0), (1, 1), (1, 2)]
    assert {(each.finish_reason, each.error) for each in failed} == {("error", "too complex")}
    assert step(scheduler, *ids("a"))[0].finish_reason is None


def test_choices_go_on_from_the_same_place_and_apart() -> None:
    scheduler = new_scheduler()
    scheduler.release(1, held(scheduler, n=2))

    step(scheduler, *ids("aa"))
    step(scheduler, *ids("bb"))
    deltas = step(scheduler, *ids("cd"))
    ends = step(scheduler, END, END)

    assert [each.finish_reason for each in deltas] == [None, None]
    assert [each.finish_reason for each in ends] == ["stop", "stop"]
    assert [each.stop_token_id for each in ends] == [None, None]


def test_a_token_that_does_not_fit_is_an_error_of_one_choice() -> None:
    scheduler = new_scheduler()
    scheduler.release(1, held(scheduler, n=2))

    first, second = step(scheduler, *ids("ax"))

    assert first.finish_reason is None
    assert second.finish_reason == "error"
    assert second.error is not None
    assert "grammar" in second.error


def test_an_answer_cut_by_max_tokens_says_length() -> None:
    scheduler = new_scheduler()
    scheduler.release(1, held(scheduler, max_tokens=2))

    step(scheduler, *ids("a"))
    (delta,) = step(scheduler, *ids("b"))

    assert delta.finish_reason == "length"


def appended(regex: str, sampled: str, output: str = "", **params: Any) -> TokenDelta:
    """What a sequence has after a token was sampled."""
    return advance(sequence(regex, output, **params), SampledToken(ids(sampled)[0]), 0.0)


def test_what_is_forced_comes_with_the_token_before_it() -> None:
    delta = appended("a(bcd|efg)[xy]z", "b", "a")

    assert delta.token_ids == ids("bcd")
    assert delta.finish_reason is None
    assert appended("a(bcd|efg)[xy]z", "a").token_ids == ids("a")


def test_what_is_forced_ends_where_the_sequence_ends() -> None:
    long = appended("abcdef", "a", max_tokens=3)
    stopped = appended("abcdef", "a", stop_token_ids=ids("c"))
    whole = appended("abc", "a")

    assert (long.token_ids, long.finish_reason) == (ids("abc"), "length")
    assert (stopped.token_ids, stopped.finish_reason) == (ids("abc"), "stop")
    assert stopped.stop_token_id == ids("c")[0]
    # That nothing but the end can follow is for the sampler to say.
    assert (whole.token_ids, whole.finish_reason) == (ids("abc"), None)


@pytest.mark.parametrize(
    "params",
    [
        {"num_logprobs": 0},
        {"logprob_token_ids": [7]},
        {"allowed_token_ids": [*range(VOCAB_SIZE)]},
        {"bad_words": [[9, 9]]},
        {"min_tokens": 1},
    ],
    ids=lambda params: next(iter(params)),
)
def test_nothing_is_forced_where_each_token_counts(params: dict[str, Any]) -> None:
    assert appended("abcdef", "a", **params).token_ids == ids("a")
