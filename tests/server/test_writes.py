"""What a stream writes does not depend on how fast its reader takes it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import ScriptedEngine, call_app, delta, new_app

from rillm.errors import EngineGenerateError
from rillm.server.eager import run_to_pause

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
SCRIPT = [[delta(0, f"{i}")] for i in range(6)]
END = [delta(0, "", [], "stop")]


def contents(events: list[Any]) -> str:
    assert events[-1] == "[DONE]"
    choices = [choice for event in events[:-1] for choice in event.get("choices", ())]
    return "".join(choice["delta"].get("content", "") for choice in choices)


@given(st.lists(st.integers(0, 5), max_size=12))
async def test_any_pace_gives_the_same_text(pauses: list[int]) -> None:
    engine = ScriptedEngine(*SCRIPT, END)

    answer = await call_app(new_app(engine), CHAT, HELLO, pauses=iter(pauses))

    assert contents(answer.events()) == "012345"
    assert answer.is_complete
    assert engine.num_live == 0


@given(st.lists(st.integers(0, 5), max_size=12))
async def test_any_pace_tells_a_failure_after_all_text(pauses: list[int]) -> None:
    engine = ScriptedEngine(*SCRIPT, EngineGenerateError("broken"))

    answer = await call_app(new_app(engine), CHAT, HELLO, pauses=iter(pauses))

    *before, error, done = answer.events()
    assert contents([*before, done]) == "012345"
    assert error["error"]["code"] == 500
    assert engine.num_live == 0


async def test_many_streams_in_one_step_all_get_everything() -> None:
    engines = [ScriptedEngine(*SCRIPT, END) for _ in range(70)]

    calls = [call_app(new_app(engine), CHAT, HELLO) for engine in engines]
    answers = await asyncio.gather(*calls)

    assert [contents(answer.events()) for answer in answers] == ["012345"] * 70
    assert all(answer.is_complete for answer in answers)


async def test_what_ends_at_once_leaves_nothing_to_wait_for() -> None:
    seen = []

    async def work() -> None:
        seen.append(1)

    assert run_to_pause(work()) is None
    assert seen == [1]


async def test_what_waits_is_continued() -> None:
    seen = []
    gate = asyncio.Event()

    async def work() -> None:
        seen.append(1)
        await gate.wait()
        await asyncio.sleep(0)
        seen.append(2)

    rest = run_to_pause(work())
    assert rest is not None
    assert seen == [1]
    gate.set()
    await rest
    assert seen == [1, 2]


async def test_cancelling_reaches_what_waits() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append(1)

    async def finish(rest: Any) -> None:
        await rest

    task = asyncio.create_task(finish(run_to_pause(work())))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [1]


async def test_failure_at_once_and_later_is_raised() -> None:
    async def work(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_to_pause(work(0))
    rest = run_to_pause(work(2))
    assert rest is not None
    with pytest.raises(ValueError, match="broken"):
        await rest
