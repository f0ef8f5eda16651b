"""The scheduler driven by a scripted model that reads its context through the block tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from fakes import ScriptedEngine, engine_request, next_token, run_alone
from hypothesis import given, settings
from hypothesis import strategies as st

from rillm.engine.messages import EngineRequest
from rillm.engine.scheduled_batch import ScheduledBatch

LONGEST = 40
"""Most tokens of prompt and output together in the random plans."""


@dataclass
class Plan:
    """Requests with the step they arrive in, and aborts with the step they happen in."""

    requests: list[tuple[int, EngineRequest]]
    aborts: list[tuple[int, int, int | None]]
    block_size: int
    num_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    enable_prefix_caching: bool
    resets: list[int] = field(default_factory=list)


@st.composite
def prompts(draw: st.DrawFn) -> list[int]:
    """Prompts that often share a prefix with each other."""
    shared = draw(st.sampled_from([[], [1] * 8, [1] * 8 + [2] * 9, [3, 1, 4, 1, 5, 9, 2, 6]]))
    own = draw(st.lists(st.integers(0, 11), max_size=12))
    return shared + own or [7]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    requests = []
    for request_id in range(draw(st.integers(1, 7))):
        prompt = draw(prompts())
        max_tokens = draw(st.integers(1, LONGEST - len(prompt)))
        request = engine_request(
            request_id,
            prompt,
            max_tokens=max_tokens,
            n=draw(st.sampled_from([1, 1, 2, 4])),
            priority=draw(st.sampled_from([0, 0, -1, 2])),
            client=draw(st.sampled_from(["", "", "a", "b"])),
            cache_salt=draw(st.sampled_from([None, None, "a"])),
            read_prefix_cache=draw(st.sampled_from([True, True, False])),
            stop_token_ids=draw(st.lists(st.integers(0, 11), max_size=1)),
        )
        requests.append((draw(st.integers(0, 12)), request))
    request_ids = st.integers(0, len(requests) - 1)
    choices = st.none() | st.integers(0, 3)
    block_size = draw(st.sampled_from([1, 2, 4, 7]))
    max_num_seqs = draw(st.integers(4, 8))
    return Plan(
        requests=requests,
        aborts=draw(st.lists(st.tuples(st.integers(0, 30), request_ids, choices), max_size=3)),
        block_size=block_size,
        num_blocks=-(-LONGEST // block_size) + draw(st.sampled_from([0, 1, 5, 60, 300])),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_seqs + draw(st.sampled_from([0, 1, 5, 100])),
        enable_prefix_caching=draw(st.booleans()),
        resets=draw(st.lists(st.integers(0, 20), max_size=1)),
    )


class Driver:
    """Plays a plan step by step and checks what must hold in each of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.engine = ScriptedEngine(
            num_blocks=plan.num_blocks,
            block_size=plan.block_size,
            max_num_seqs=plan.max_num_seqs,
            max_num_batched_tokens=plan.max_num_batched_tokens,
            enable_prefix_caching=plan.enable_prefix_caching,
        )
        self.started: dict[int, EngineRequest] = {}
        self.aborted: set[tuple[int, int]] = set()
        self._readers: set[tuple[int, int]] = set()
        self._num_preemptions = 0

    def run(self) -> int:
        """Returns the number of steps it took."""
        scheduler = self.engine.scheduler
        last_arrival = max(step for step, _ in self.plan.requests)
        step = 0
        while step <= last_arrival or scheduler.has_work:
            self._command(step)
            scheduler.check()
            deltas = self.engine.step(self._inspect)
            scheduler.check()
            if self._num_preemptions == 0:
                reported = {(delta.request_id, delta.choice) for delta in deltas}
                assert self._readers <= reported, "a running decode was stalled"
            step += 1
            assert step < 3000, "somebody starves"
        return step

    def _command(self, step: int) -> None:
        for arrival, request in self.plan.requests:
            if arrival == step:
                self.engine.scheduler.add(request)
                self.started[request.request_id] = request
        for at, request_id, choice in self.plan.aborts:
            if at == step and request_id in self.started:
                self._abort(request_id, choice)
        if step in self.plan.resets:
            self.engine.scheduler.pool.forget_all()
        self._readers = {
            key
            for key in self.engine.outputs
            if key not in self.engine.finish_reasons and key not in self.aborted
        }

    def _abort(self, request_id: int, choice: int | None) -> None:
        self.engine.scheduler.abort(request_id, choice)
        is_forked = (request_id, 0) in self.engine.outputs
        for each in range(self.started[request_id].n):
            is_meant = choice is None or (
                choice == each and (is_forked or self.started[request_id].n == 1)
            )
            if is_meant and (request_id, each) not in self.engine.finish_reasons:
                self.aborted.add((request_id, each))

    def _inspect(self, batch: ScheduledBatch) -> None:
        counts = batch.num_scheduled_tokens
        num_preemptions = self.engine.scheduler.stats().num_preemptions
        has_preempted = num_preemptions > self._num_preemptions
        self._num_preemptions = num_preemptions
        assert not (has_preempted and any(s.num_computed_tokens == 0 for s in batch.sequences)), (
            "a step that is short of blocks started somebody"
        )
        assert not self.engine.scheduler.has_work or batch.sequences, "nothing was scheduled"
        assert sum(counts) <= self.plan.max_num_batched_tokens
        assert sum(sequence.num_forks for sequence in batch.sequences) <= self.plan.max_num_seqs
        assert len(set(map(id, batch.sequences))) == len(batch.sequences)
        for i, (sequence, count) in enumerate(zip(batch.sequences, counts, strict=True)):
            assert 1 <= count <= sequence.num_uncomputed_tokens
            if i < batch.num_decodes:
                assert sequence.num_uncomputed_tokens == count == 1
            else:
                assert sequence.num_output_tokens == 0 or sequence.num_preemptions > 0


@settings(max_examples=250)
@given(plans())
def test_every_request_gets_the_tokens_it_would_get_alone(plan: Plan) -> None:
    driver = Driver(plan)
    driver.run()
    for _, request in plan.requests:
        for choice in range(request.n):
            key = (request.request_id, choice)
            output, reason = run_alone(request, choice)
            seen = driver.engine.outputs.get(key, [])
            if key in driver.aborted:
                assert key not in driver.engine.finish_reasons
                assert seen == output[: len(seen)]
            else:
                assert (seen, driver.engine.finish_reasons[key]) == (output, reason)
    assert driver.engine.scheduler.pool.num_free == plan.num_blocks


def test_a_pool_too_small_for_all_preempts_and_still_finishes_everybody() -> None:
    requests = [engine_request(i, [i] * 9, max_tokens=30) for i in range(4)]
    plan = Plan(
        requests=[(0, request) for request in requests],
        aborts=[],
        block_size=4,
        num_blocks=12,
        max_num_seqs=4,
        max_num_batched_tokens=16,
        enable_prefix_caching=False,
    )
    driver = Driver(plan)
    driver.run()
    assert driver.engine.scheduler.stats().num_preemptions > 0
    for request in requests:
        assert driver.engine.outputs[(request.request_id, 0)] == run_alone(request, 0)[0]


def test_the_first_request_is_never_preempted_for_a_later_one() -> None:
    engine = ScriptedEngine(num_blocks=12, enable_prefix_caching=False)
    for request_id in range(4):
        engine.scheduler.add(engine_request(request_id, [request_id] * 9, max_tokens=30))
    for num_tokens in range(1, 31):
        engine.step()
        assert len(engine.outputs[(0, 0)]) == num_tokens
    assert engine.scheduler.stats().num_preemptions > 0
    engine.run()


def test_a_prompt_that_goes_first_waits_for_blocks_of_a_decode_already_in_the_step() -> None:
    engine = ScriptedEngine(
        num_blocks=10, max_num_seqs=2, max_num_batched_tokens=16, enable_prefix_caching=False
    )
    later = engine_request(0, [1] * 6, max_tokens=12, priority=1)
    first = engine_request(1, [2] * 38, max_tokens=2, priority=0)
    engine.scheduler.add(later)
    engine.step()
    engine.scheduler.add(first)
    engine.run()
    assert engine.outputs[(0, 0)] == run_alone(later, 0)[0]
    assert engine.outputs[(1, 0)] == run_alone(first, 0)[0]


def test_tokens_found_again_after_a_preemption_do_not_count_as_cached() -> None:
    engine = ScriptedEngine(num_blocks=10, max_num_seqs=2, max_num_batched_tokens=2)
    engine.scheduler.add(engine_request(0, [1, 2, 3, 4], max_tokens=28))
    engine.scheduler.add(engine_request(1, [5] * 24, max_tokens=2))
    infos = []
    while engine.scheduler.has_work:
        infos += [delta.prompt for delta in engine.step() if delta.prompt is not None]
    assert engine.scheduler.stats().num_preemptions > 0
    assert [info.num_cached_tokens for info in infos] == [0, 0]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_all_choices_of_a_request_share_one_prefill(n: int) -> None:
    engine = ScriptedEngine(num_blocks=60, enable_prefix_caching=False, max_num_batched_tokens=8)
    prompt = list(range(10)) + [1]
    engine.scheduler.add(engine_request(0, prompt, max_tokens=6, n=n))
    engine.run()
    assert engine.num_scheduled_tokens == len(prompt) + n * 5


def test_choices_share_the_blocks_of_the_prompt_and_copy_only_the_partial_one() -> None:
    engine = ScriptedEngine(num_blocks=60, block_size=4)
    engine.scheduler.add(engine_request(0, [1] * 10, max_tokens=8, n=4))
    engine.step()
    assert engine.scheduler.stats().num_free_blocks == 60 - 3
    copies: list[tuple[int, int]] = []
    engine.step(lambda batch: copies.extend(batch.block_copies))
    assert len(copies) == 3
    assert engine.scheduler.stats().num_free_blocks == 60 - 3 - 3


def test_a_long_prompt_is_cut_into_chunks_while_running_streams_go_on() -> None:
    engine = ScriptedEngine(num_blocks=60, max_num_seqs=4, max_num_batched_tokens=8)
    engine.scheduler.add(engine_request(0, [1, 2], max_tokens=20))
    engine.step()
    engine.scheduler.add(engine_request(1, [3] * 35, max_tokens=2))
    chunks = []
    while (1, 0) not in engine.outputs:
        deltas = engine.step(lambda batch: chunks.append(batch.num_scheduled_tokens))
        assert (deltas[0].request_id, len(deltas[0].token_ids)) == (0, 1)
    assert chunks == [[1, 7]] * 5


def test_requests_of_lower_priority_numbers_run_first_then_in_order_of_arrival() -> None:
    engine = ScriptedEngine(num_blocks=60, max_num_seqs=1)
    for request_id, priority in enumerate([5, 1, 5, -3, 1]):
        engine.scheduler.add(engine_request(request_id, [2], max_tokens=3, priority=priority))
    engine.run()
    assert [request_id for request_id, _ in engine.finish_reasons] == [3, 1, 4, 0, 2]


def num_cached_tokens(engine: ScriptedEngine, request: EngineRequest) -> int:
    engine.scheduler.add(request)
    (delta,) = engine.step()
    engine.run()
    assert delta.prompt is not None
    return delta.prompt.num_cached_tokens


def test_a_repeated_prompt_is_found_in_full_blocks_short_of_its_last_token() -> None:
    engine = ScriptedEngine(num_blocks=60, block_size=4)
    prompt = [1, 2, 3, 4] * 3
    assert num_cached_tokens(engine, engine_request(0, prompt)) == 0
    assert num_cached_tokens(engine, engine_request(1, prompt)) == 8
    assert num_cached_tokens(engine, engine_request(2, [*prompt, 5])) == 12
    assert num_cached_tokens(engine, engine_request(3, [9, *prompt])) == 0


def test_the_output_of_a_turn_is_found_by_the_next_turn() -> None:
    engine = ScriptedEngine(num_blocks=60, block_size=4)
    first = engine_request(0, [1, 2, 3], max_tokens=10)
    assert num_cached_tokens(engine, first) == 0
    history = [1, 2, 3, *engine.outputs[(0, 0)]]
    # The last token of the first turn was never computed.
    assert num_cached_tokens(engine, engine_request(1, [*history, 5])) == 12


def test_salts_and_requests_that_do_not_read_are_kept_out_of_the_cache() -> None:
    engine = ScriptedEngine(num_blocks=60, block_size=4)
    prompt = [1] * 9
    assert num_cached_tokens(engine, engine_request(0, prompt, cache_salt="a")) == 0
    assert num_cached_tokens(engine, engine_request(1, prompt, cache_salt="b")) == 0
    assert num_cached_tokens(engine, engine_request(2, prompt)) == 0
    assert num_cached_tokens(engine, engine_request(3, prompt, cache_salt="a")) == 8
    assert num_cached_tokens(engine, engine_request(4, prompt, read_prefix_cache=False)) == 0
    engine.scheduler.pool.forget_all()
    assert num_cached_tokens(engine, engine_request(5, prompt)) == 0


def test_without_prefix_caching_nothing_is_found() -> None:
    engine = ScriptedEngine(num_blocks=60, block_size=4, enable_prefix_caching=False)
    assert num_cached_tokens(engine, engine_request(0, [1] * 9)) == 0
    assert num_cached_tokens(engine, engine_request(1, [1] * 9)) == 0


def test_aborting_one_choice_before_the_fork_leaves_the_others() -> None:
    engine = ScriptedEngine(num_blocks=60, max_num_batched_tokens=8)
    request = engine_request(0, [1] * 12, max_tokens=3, n=3)
    engine.scheduler.add(request)
    engine.step()
    engine.scheduler.abort(0, 0)
    engine.run()
    assert engine.outputs[(0, 1)] == run_alone(request, 1)[0]
    assert engine.outputs[(0, 2)] == run_alone(request, 2)[0]


def test_aborting_one_choice_frees_its_blocks_and_unknown_ids_are_ignored() -> None:
    engine = ScriptedEngine(num_blocks=60)
    engine.scheduler.add(engine_request(0, [1] * 4, max_tokens=30, n=2))
    for _ in range(6):
        engine.step()
    held = 60 - engine.scheduler.stats().num_free_blocks
    engine.scheduler.abort(0, 1)
    engine.scheduler.abort(0, 1)
    engine.scheduler.abort(99)
    assert 60 - engine.scheduler.stats().num_free_blocks < held
    engine.run()
    assert set(engine.finish_reasons) == {(0, 0)}


def test_the_scripted_model_depends_on_every_token_and_on_the_choice() -> None:
    contexts = [[1, 2, 3], [1, 2, 4], [0, 2, 3], [1, 2, 3, 3]]
    said = {tuple(next_token([*context, i], 0) for i in range(8)) for context in contexts}
    assert len(said) == len(contexts)
    assert [next_token([i], 0) for i in range(8)] != [next_token([i], 1) for i in range(8)]
