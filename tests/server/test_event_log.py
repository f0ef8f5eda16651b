"""The log of a stream's events: what it keeps, and who reads it."""

from __future__ import annotations

import pytest

from rillm.errors import InvalidRequestError
from rillm.server.event_log import EventLog


async def test_the_log_is_bounded_and_says_what_is_gone() -> None:
    log = EventLog("starting_after", 100)
    for number in range(50):
        log.append([b"%09d\n" % number])
    log.append([b"end"], is_last=True)

    assert log.num_bytes <= 100
    with pytest.raises(InvalidRequestError) as error:
        log.check(21)
    assert error.value.param == "starting_after"
    log.check(48)
    assert [part async for part in log.follow(48)] == [b"%09d\n" % 48 + b"%09d\n" % 49 + b"end"]


async def test_a_reader_that_is_too_slow_is_told() -> None:
    log = EventLog("starting_after", 100)
    log.append([b"%09d\n" % 0])
    reading = log.follow(0)
    assert await anext(reading) == b"%09d\n" % 0
    for number in range(1, 50):
        log.append([b"%09d\n" % number])

    with pytest.raises(InvalidRequestError):
        await anext(reading)


async def test_what_all_readers_have_taken_can_go() -> None:
    log = EventLog("from", is_inclusive=True)
    log.append([b"a", b"b"])
    fast, slow = log.follow(0), log.follow(0, b"tag")
    assert await anext(fast) == b"ab"
    assert await anext(slow) == b"id: tag:0\naid: tag:1\nb"
    log.append([b"c"])
    assert await anext(fast) == b"c"

    log.drop_taken()

    # A reader holds what it was given last until it asks for more.
    assert log.num_bytes == 3
    assert await anext(slow) == b"id: tag:2\nc"
    log.append([], is_last=True)
    assert [part async for part in fast] == []
    log.drop_taken()
    assert log.num_bytes == 1
    await slow.aclose()
    log.drop_taken()
    assert (log.num_bytes, len(log)) == (0, 3)
    with pytest.raises(InvalidRequestError, match="from is 1, must be from 3 to 3"):
        log.check(1)
