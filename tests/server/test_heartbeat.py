"""Comment lines on silent streams: by a clock of the test's, and over a running application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any

import pytest
from scripted_engine import ScriptedEngine, Step, call_app, delta, new_app, parse_events

from rillm.errors import EngineGenerateError
from rillm.input_processor import TokensPrompt
from rillm.outputs import RequestOutput
from rillm.sampling_params import SamplingParams
from rillm.server.heartbeat import PING, Heartbeat
from rillm.server.options import HttpOptions

CHAT = "/v1/chat/completions"
GENERATE = "/inference/v1/generate"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
TOKENS: dict[str, Any] = {"token_ids": [5], "sampling_params": {"max_tokens": 9}, "stream": True}
ALWAYS = HttpOptions(heartbeat_seconds=0.001)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.loop = asyncio.get_running_loop()
        self.due: list[tuple[float, asyncio.TimerHandle]] = []

    def call_later(self, delay: float, callback: Callable[[], object], /) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.now + delay, callback, (), self.loop)
        self.due.append((self.now + delay, handle))
        return handle

    def create_task(self, coroutine: Coroutine[Any, Any, None], /) -> asyncio.Task[None]:
        return self.loop.create_task(coroutine)

    async def pass_until(self, time: float) -> None:
        while True:
            due = sorted(
                (when, id(handle), handle) for when, handle in self.due if not handle.cancelled()
            )
            if not due or due[0][0] > time:
                break
            when, _, handle = due[0]
            self.due.remove((when, handle))
            self.now = when
            handle._run()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        self.now = time


async def test_beats_count_from_the_last_byte() -> None:
    clock, beats = Clock(), list[float]()

    async def beat() -> None:
        beats.append(clock.now)

    heartbeat = Heartbeat(10, beat, clock, lambda: clock.now)
    await clock.pass_until(109)
    heartbeat.last_write = 109
    await clock.pass_until(118)
    assert beats == []
    await clock.pass_until(145)
    assert beats == [119, 129, 139]
    heartbeat.last_write = 145
    await clock.pass_until(156)
    assert beats == [119, 129, 139, 155]
    heartbeat.stop()
    await clock.pass_until(1000)
    assert len(beats) == 4


async def test_reader_that_takes_nothing_gets_one_beat() -> None:
    clock, begun = Clock(), list[float]()

    async def beat() -> None:
        begun.append(clock.now)
        await asyncio.get_running_loop().create_future()

    heartbeat = Heartbeat(10, beat, clock, lambda: clock.now)
    await clock.pass_until(200)
    heartbeat.stop()
    with pytest.raises(asyncio.CancelledError):
        await heartbeat.settle()

    assert begun == [110]


async def test_zero_seconds_never_beat() -> None:
    clock = Clock()

    async def beat() -> None:
        raise AssertionError

    heartbeat = Heartbeat(0, beat, clock, lambda: clock.now)
    heartbeat.stop()

    assert clock.due == []


class GatedEngine(ScriptedEngine):
    """Says the first step, and the others when the test lets it."""

    def __init__(self, *steps: Step, num_early: int) -> None:
        super().__init__(*steps)
        self.gate = asyncio.Event()
        self._num_early = num_early

    async def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        for position, step in enumerate(self._steps):
            if position == self._num_early:
                await self.gate.wait()
            if isinstance(step, Exception):
                raise step
            yield RequestOutput(request_id, None, prompt["prompt_token_ids"], list(step), False)


def without_pings(body: bytes) -> list[Any]:
    return parse_events(body.replace(PING, b""))


@pytest.mark.parametrize(("path", "body"), [(CHAT, HELLO), (GENERATE, TOKENS)])
@pytest.mark.parametrize("num_early", [0, 1])
async def test_silent_stream_beats_and_goes_on(path: str, body: Any, num_early: int) -> None:
    engine = GatedEngine([delta(0, "a")], [delta(0, "b", [8], "stop")], num_early=num_early)
    written: list[bytes] = []

    def open_gate(write: bytes) -> None:
        # A busy machine may beat before the early step is written: that beat opens nothing.
        if write != PING:
            written.append(write)
        elif len(written) == num_early:
            engine.gate.set()

    answer = await call_app(new_app(engine, ALWAYS), path, body, on_write=open_gate)
    plain = await call_app(new_app(engine), path, body)

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.writes[answer.writes.index(written[num_early]) - 1] == PING
    assert answer.is_complete
    assert len(without_pings(answer.body)) == len(plain.events())


async def test_failure_after_an_early_beat_ends_the_stream_with_an_error() -> None:
    engine = GatedEngine(EngineGenerateError("secret"), num_early=0)

    answer = await call_app(
        new_app(engine, ALWAYS), CHAT, HELLO, on_write=lambda _: engine.gate.set()
    )

    assert answer.status == 200
    error, done = without_pings(answer.body)
    assert (error["error"]["code"], done) == (500, "[DONE]")


async def test_no_beat_answers_for_an_engine_that_still_loads() -> None:
    engine = GatedEngine(EngineGenerateError("cannot load"), num_early=0)
    engine.ready_info = None
    app = new_app(engine, ALWAYS)
    beaten = GatedEngine([delta(0, "a", finish="stop")], num_early=0)
    answering = asyncio.create_task(call_app(app, CHAT, HELLO))

    # Once another stream has had its beat, this one would have had its own.
    await call_app(new_app(beaten, ALWAYS), CHAT, HELLO, on_write=lambda _: beaten.gate.set())
    engine.gate.set()

    assert (await answering).status == 500


async def test_what_has_just_been_written_needs_no_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    # By this clock a write is always recent. Before the first of them a busy machine may beat.
    monkeypatch.setattr("rillm.server.sse.now", lambda: float("inf"))
    spoken = GatedEngine([delta(0, "a")], [delta(0, "", [], "stop")], num_early=1)
    beaten = GatedEngine([delta(0, "a", finish="stop")], num_early=0)
    written = asyncio.Event()

    def notice(write: bytes) -> None:
        if write != PING:
            written.set()

    answering = asyncio.create_task(call_app(new_app(spoken, ALWAYS), CHAT, HELLO, on_write=notice))
    await written.wait()

    await call_app(new_app(beaten, ALWAYS), CHAT, HELLO, on_write=lambda _: beaten.gate.set())
    spoken.gate.set()

    writes = (await answering).writes
    first = next(index for index, write in enumerate(writes) if write != PING)
    assert PING not in writes[first:]


async def test_zero_switches_heartbeats_off() -> None:
    silent = GatedEngine([delta(0, "a", finish="stop")], num_early=0)
    beaten = GatedEngine([delta(0, "a", finish="stop")], num_early=0)
    off = new_app(silent, HttpOptions(heartbeat_seconds=0))
    answering = asyncio.create_task(call_app(off, CHAT, HELLO))

    await call_app(new_app(beaten, ALWAYS), CHAT, HELLO, on_write=lambda _: beaten.gate.set())
    silent.gate.set()

    assert PING not in (await answering).writes
