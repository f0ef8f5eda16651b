"""Requests go on in another scheduler, or after a step that failed, with the tokens due to them."""

from __future__ import annotations

import random

from fakes import ScriptedEngine, engine_request, run_alone
from hypothesis import given, settings
from hypothesis import strategies as st

from rillm.engine.messages import EngineRequest, Replay, RequestTimes
from rillm.engine.scheduled_batch import ScheduledBatch

TIMES = RequestTimes(queued=1.0, scheduled=2.0, first_token=3.0, last_token=4.0, num_preemptions=5)


def replay(engine: ScriptedEngine, request: EngineRequest, *, is_suspect: bool) -> Replay | None:
    """What is left of a request, as the client's journal knows it."""
    keys = [(request.request_id, choice) for choice in range(request.n)]
    outputs = {
        key[1]: list(engine.outputs.get(key, []))
        for key in keys
        if key not in engine.finish_reasons
    }
    times = TIMES if any(key in engine.outputs for key in keys) else None
    suspects = list(outputs) if is_suspect else []
    return Replay(request=request, outputs=outputs, times=times, suspects=suspects)


def fail(engine: ScriptedEngine) -> None:
    """A step of which nothing comes."""
    batch = engine.scheduler.schedule()
    if len(batch.sequences) > 1:
        engine.scheduler.quarantine(batch)


def new_engine(rng: random.Random) -> ScriptedEngine:
    return ScriptedEngine(
        num_blocks=rng.choice([10, 14, 60]),
        block_size=4,
        max_num_seqs=8,
        max_num_batched_tokens=rng.choice([8, 10, 64]),
        enable_prefix_caching=rng.random() < 0.7,
    )


@settings(max_examples=150)
@given(st.randoms(use_true_random=False))
def test_deaths_and_failed_steps_change_no_token(rng: random.Random) -> None:
    requests = [
        engine_request(
            number,
            rng.choice([[1] * 8, []]) + [rng.randrange(12) for _ in range(rng.randint(1, 9))],
            max_tokens=rng.randint(1, 20),
            n=rng.choice([1, 1, 1, 3]),
            stop_token_ids=[3] if rng.random() < 0.3 else [],
            priority=rng.choice([0, 0, 1]),
            read_prefix_cache=rng.random() < 0.8,
        )
        for number in range(rng.randint(1, 6))
    ]
    engine = new_engine(rng)
    for request in requests:
        engine.scheduler.add(request)
    for _ in range(rng.randint(1, 3)):
        for _ in range(rng.randint(0, 12)):
            if rng.random() < 0.2:
                fail(engine)
            else:
                engine.step()
            engine.scheduler.check()
        before, engine = engine, new_engine(rng)
        engine.outputs, engine.finish_reasons = before.outputs, before.finish_reasons
        for request in requests:
            left = replay(before, request, is_suspect=rng.random() < 0.5)
            if left is not None and left.outputs:
                engine.scheduler.resume(left)
    engine.run()
    engine.scheduler.check()

    assert engine.scheduler.pool.num_free == engine.scheduler.pool.num_blocks
    for request in requests:
        for choice in range(request.n):
            key = (request.request_id, choice)
            assert (engine.outputs[key], engine.finish_reasons[key]) == run_alone(request, choice)


def test_suspects_run_alone_the_newest_first_until_each_has_a_token() -> None:
    engine = ScriptedEngine(num_blocks=60, max_num_batched_tokens=8)
    old = engine_request(0, [1] * 4, max_tokens=9)
    new = engine_request(1, [2] * 12, max_tokens=9)
    engine.scheduler.resume(Replay(request=old, outputs={0: [5, 6]}, times=TIMES, suspects=[0]))
    engine.scheduler.resume(Replay(request=new, outputs={0: [5]}, times=TIMES, suspects=[0]))
    engine.scheduler.add(engine_request(2, [3], max_tokens=9))
    seen: list[list[int]] = []

    def look(batch: ScheduledBatch) -> None:
        seen.append([sequence.request.request_id for sequence in batch.sequences])

    for _ in range(4):
        engine.step(look)

    assert seen == [[1], [1], [0], [0, 1, 2]]


def test_a_sequence_that_fails_alone_ends_with_all_choices_that_wait_for_it() -> None:
    engine = ScriptedEngine(num_blocks=60)
    engine.scheduler.add(engine_request(0, [1] * 4, n=3))
    engine.scheduler.add(engine_request(1, [2] * 4))
    engine.scheduler.quarantine(engine.scheduler.schedule())
    (suspect,) = engine.scheduler.schedule().sequences

    deltas = engine.scheduler.fail(suspect.request.request_id, "why")
    engine.run()
    engine.scheduler.check()

    assert [(d.request_id, d.choice, d.finish_reason, d.error) for d in deltas] == [
        (0, choice, "error", "why") for choice in range(3)
    ]
    assert set(engine.finish_reasons) == {(1, 0)}


def test_times_of_the_first_token_are_kept() -> None:
    engine = ScriptedEngine(num_blocks=60)
    request = engine_request(0, [1] * 4, max_tokens=2)
    engine.scheduler.resume(Replay(request=request, outputs={0: [5]}, times=TIMES))

    (last,) = engine.step()

    assert last.prompt is None
    assert last.times is not None
    assert (last.times.queued, last.times.scheduled, last.times.first_token) == (1.0, 2.0, 3.0)
