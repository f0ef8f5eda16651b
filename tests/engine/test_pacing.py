"""How much prefill a step with decodes takes in: what the pacer learns, what the scheduler does."""

from __future__ import annotations

import pytest
from fakes import ScriptedEngine, engine_request, run_alone

from rillm.engine.pacing import PrefillPacer
from rillm.engine.scheduled_batch import ScheduledBatch


def paced(*steps: tuple[int, int, float], most: int = 512) -> int:
    pacer = PrefillPacer(most)
    for step in steps:
        pacer.observe(*step)
    return pacer.budget


def test_everything_fits_until_a_step_was_slow() -> None:
    assert paced() == 512
    assert paced((500, 500, 0.05)) == 512


def test_a_slow_machine_gets_chunks_of_a_fifth_of_a_second() -> None:
    assert paced((512, 512, 1.28)) == 80
    assert paced((140, 128, 0.14)) == 200


def test_it_never_gets_less_than_what_a_step_takes_anyway() -> None:
    assert paced((512, 512, 60.0)) == 32
    assert paced((20, 16, 10.0), most=8) == 8


def test_decodes_and_a_few_tokens_tell_nothing() -> None:
    assert paced((16, 0, 5.0), (20, 15, 5.0)) == 512


def test_it_gets_over_a_slow_step() -> None:
    steps = [(100, 100, 5.0)] + [(100, 100, 0.01)] * 20
    budgets = [paced(*steps[:count]) for count in range(1, len(steps) + 1)]
    assert budgets[0] == 32
    assert budgets == sorted(budgets)
    assert budgets[-1] == 512


def test_a_step_that_takes_no_time_at_all() -> None:
    assert paced((100, 100, 0.0)) == 512


@pytest.mark.parametrize(("budget", "chunks"), [(64, [19]), (5, [5, 5, 5, 4])])
def test_prefill_beside_decodes_is_held_to_the_budget(budget: int, chunks: list[int]) -> None:
    engine = ScriptedEngine(num_blocks=40)
    first = engine_request(0, [1, 2, 3], max_tokens=20)
    second = engine_request(1, list(range(19)), max_tokens=3)
    engine.scheduler.add(first)
    engine.step()
    engine.scheduler.pacer.budget = budget
    engine.scheduler.add(second)
    seen: list[int] = []

    def inspect(batch: ScheduledBatch) -> None:
        assert batch.num_decodes
        seen.extend(n for n in batch.num_scheduled_tokens[batch.num_decodes :])

    for _ in chunks:
        engine.step(inspect)
    assert seen == chunks
    engine.run()
    for request in (first, second):
        key = (request.request_id, 0)
        assert (engine.outputs[key], engine.finish_reasons[key]) == run_alone(request, 0)


def test_prefill_alone_takes_all_there_is() -> None:
    engine = ScriptedEngine(num_blocks=40)
    engine.scheduler.pacer.budget = 5
    engine.scheduler.add(engine_request(0, list(range(19)), max_tokens=1))
    seen: list[int] = []
    engine.step(lambda batch: seen.extend(batch.num_scheduled_tokens))
    assert seen == [19]
