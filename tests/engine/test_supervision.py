"""Who is blamed for a death, when a core counts as hung, how often it starts again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fakes import engine_request

from rillm.engine.journal import Journal
from rillm.engine.messages import RequestTimes, TokenDelta
from rillm.engine.step_board import StepBoard
from rillm.engine.supervision import RestartCount, Supervision, Watchdog
from rillm.errors import ConfigError, EngineDeadError, EngineError, PoisonedRequestError


class Reader:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.errors: list[EngineError] = []

    def __call__(self, delta: TokenDelta | EngineError) -> None:
        if isinstance(delta, EngineError):
            self.errors.append(delta)
        else:
            self.tokens += delta.token_ids


def journal_of(count: int, **options: int) -> tuple[Journal, list[Reader]]:
    journal, readers = Journal(), [Reader() for _ in range(count)]
    for number, reader in enumerate(readers):
        journal.add(engine_request(number, [number + 1], **options), reader)
    return journal, readers


def test_journal_replays_open_choices_with_what_they_were_given() -> None:
    journal, (reader, _) = journal_of(2, n=3)
    times = RequestTimes(1.0, 2.0, 3.0, 3.0, 0)
    for choice in range(3):
        journal.deliver(TokenDelta(0, choice, [choice], times=times))
    journal.deliver(TokenDelta(0, 0, [7, 8]))
    journal.deliver(TokenDelta(0, 1, [9], finish_reason="stop"))
    journal.end_choice(0, 2)

    first, second = journal.replays()

    assert first.outputs == {0: [0, 7, 8]}
    assert first.times == times
    assert second.outputs == {0: [], 1: [], 2: []}
    assert second.times is None
    assert reader.tokens == [0, 1, 2, 7, 8, 9]
    assert journal.num_tokens == 3


def test_journal_forgets_what_has_ended() -> None:
    journal, (reader, other) = journal_of(2)
    journal.deliver(TokenDelta(0, 0, [1], finish_reason="length"))
    assert journal.num_open == 1
    assert len(journal.replays()) == 1

    assert journal.remove(1)
    assert not journal.remove(1)
    journal.deliver(TokenDelta(1, 0, [5]))
    journal.remove(0)
    journal.fail_all(EngineDeadError("over"))

    assert (len(journal), journal.num_tokens) == (0, 0)
    assert (reader.tokens, other.tokens, reader.errors, other.errors) == ([1], [], [], [])


def test_who_is_with_others_when_the_core_dies_is_a_suspect_until_its_next_token() -> None:
    journal, _ = journal_of(3)
    for _ in range(5):
        assert journal.blame([0, 1], is_own_fault=True) is None
    assert [each.suspects for each in journal.replays()] == [[0], [0], []]

    journal.deliver(TokenDelta(0, 0, [1]))

    assert [each.suspects for each in journal.replays()] == [[], [0], []]


@pytest.mark.parametrize(("is_own_fault", "deaths"), [(True, 1), (False, 2)])
def test_who_is_alone_with_dying_cores_ends_and_equal_requests_are_refused(
    is_own_fault: bool, deaths: int
) -> None:
    journal, (guilty, innocent) = journal_of(2)
    journal.blame([0, 1], is_own_fault=is_own_fault)

    for _ in range(deaths - 1):
        assert journal.blame([0], is_own_fault=is_own_fault) is None
    assert journal.blame([0], is_own_fault=is_own_fault) == 0

    assert [type(error) for error in guilty.errors] == [PoisonedRequestError]
    assert innocent.errors == []
    assert [each.request.request_id for each in journal.replays()] == [1]
    with pytest.raises(PoisonedRequestError):
        journal.add(engine_request(9, [1], seed=99), guilty)
    journal.add(engine_request(10, [1], max_tokens=99), guilty)


def test_kills_at_different_places_of_a_lone_stream_never_end_it() -> None:
    journal, (reader,) = journal_of(1)
    for token in range(10):
        journal.blame([0], is_own_fault=False)
        journal.blame([0], is_own_fault=False)
        journal.deliver(TokenDelta(0, 0, [token]))
    assert reader.errors == []


def test_a_token_of_one_choice_speaks_for_that_choice_and_against_blame() -> None:
    journal, (reader,) = journal_of(1, n=2)
    for choice in range(2):
        journal.deliver(TokenDelta(0, choice, [1]))
    journal.blame([0], is_own_fault=False)
    for choice in range(2):
        assert journal.blame([0], is_own_fault=False) is None
        journal.deliver(TokenDelta(0, choice, [2]))
        assert journal.replays()[0].suspects == ([1] if choice == 0 else [])
    assert reader.errors == []


def test_deaths_between_steps_accuse_nobody() -> None:
    journal, (reader,) = journal_of(1)
    for _ in range(10):
        assert journal.blame([], is_own_fault=True) is None
        assert journal.blame([77], is_own_fault=True) is None
    assert journal.replays()[0].suspects == []
    assert reader.errors == []


def test_board_is_read_from_another_process() -> None:
    board = StepBoard(4)
    code = (
        "import sys; from rillm.engine.step_board import StepBoard;"
        "StepBoard(4, int(sys.argv[1])).enter([5, 2**40, 5], 33); import os; os._exit(1)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(board.fileno())],
        pass_fds=[board.fileno()],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )

    assert board.request_ids == {5, 2**40}
    assert (board.num_tokens, board.progress) == (33, 1)
    board.leave()
    assert (board.request_ids, board.num_tokens, board.progress) == (set(), 0, 2)
    board.close()
    board.close()


def looks_until_hung(watchdog: Watchdog, board: StepBoard, *, is_loading: bool = False) -> int:
    watchdog.reset()
    for count in range(10_000):
        if watchdog.is_hung(board, is_loading=is_loading):
            return count
    return -1


def test_watchdog_allows_for_loading_and_for_the_tokens_of_a_step() -> None:
    watchdog = Watchdog(Supervision(hang_timeout=8.0, load_timeout=80.0))
    board = StepBoard(4)
    assert watchdog.interval_s == 1.0
    assert looks_until_hung(watchdog, board) == 8
    assert looks_until_hung(watchdog, board, is_loading=True) == 80
    board.enter([1], num_tokens=1024)
    assert looks_until_hung(watchdog, board) == 24


def test_watchdog_is_patient_with_progress_and_when_nothing_is_bounded() -> None:
    board = StepBoard(4)
    watchdog = Watchdog(Supervision(hang_timeout=1.0))
    for _ in range(100):
        board.enter([1])
        assert not watchdog.is_hung(board, is_loading=False)
    unbounded = Watchdog(Supervision(hang_timeout=0, load_timeout=0))
    assert unbounded.interval_s == float("inf")
    assert looks_until_hung(unbounded, board) == -1


def test_restarts_wait_longer_each_time_until_they_are_given_up() -> None:
    count = RestartCount(Supervision(max_restarts=4))
    assert [count.next_delay() for _ in range(5)] == [0.0, 1.0, 2.0, 4.0, None]
    count.recover()
    assert count.next_delay() == 0.0
    assert count.total == 5
    assert RestartCount(Supervision(max_restarts=0)).next_delay() is None


@pytest.mark.parametrize(
    "field",
    [{"max_restarts": -1}, {"hang_timeout": -1.0}, {"load_timeout": float("nan")}],
)
def test_bounds_out_of_range_are_named(field: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(field))):
        Supervision(**field)  # type: ignore[arg-type]
