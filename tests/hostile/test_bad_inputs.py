"""A short run of the corpus of bad inputs; `python -m tests.hostile` is the long one."""

from __future__ import annotations

import pytest
from bad_inputs import case_of
from faults.fault_harness import running_server
from hostile_run import SETTINGS, check_unharmed, idle, run_cases, warm_up

NUM_CASES = 300

pytestmark = pytest.mark.timeout(300)


def test_a_case_is_the_same_each_time() -> None:
    assert [case_of(number) for number in range(60)] == [case_of(number) for number in range(60)]


async def test_bad_inputs_disturb_nobody_and_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One heap for all threads, as in the long run.
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    async with running_server(**SETTINGS) as server:
        await warm_up(server)
        await run_cases(server, 20_000, 100)
        before = await idle(server)
        core = server.core()
        assert core is not None

        harm = await run_cases(server, 0, NUM_CASES)

        assert harm.wrong == []
        assert harm.num_cases == NUM_CASES
        assert harm.num_streams >= 2
        assert harm.statuses[400] > NUM_CASES / 2
        held = await check_unharmed(server, core.pid, before)
        assert (held["requests"], held["journal_tokens"], held["used_blocks"]) == (0, 0, 0)
