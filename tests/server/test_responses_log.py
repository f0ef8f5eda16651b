"""The log of a response's events: what it keeps, and who reads it."""

from __future__ import annotations

import pytest

from rillm.errors import InvalidRequestError
from rillm.server.responses.background import EventLog


async def test_the_log_is_bounded_and_says_what_is_gone() -> None:
    log = EventLog(max_bytes=100)
    for number in range(50):
        log.append([b"%09d\n" % number])
    log.append([b"end"], is_last=True)

    assert log.num_bytes <= 100
    with pytest.raises(InvalidRequestError) as error:
        log.check(20)
    assert error.value.param == "starting_after"
    log.check(47)
    assert [part async for part in log.follow(47)] == [b"%09d\n" % 48 + b"%09d\n" % 49 + b"end"]


async def test_a_reader_that_is_too_slow_is_told() -> None:
    log = EventLog(max_bytes=100)
    log.append([b"%09d\n" % 0])
    reading = log.follow(-1)
    assert await anext(reading) == b"%09d\n" % 0
    for number in range(1, 50):
        log.append([b"%09d\n" % number])

    with pytest.raises(InvalidRequestError):
        await anext(reading)
