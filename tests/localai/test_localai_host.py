"""The one model of a process: loads that are repeated, given up, replaced, and that fail."""

from __future__ import annotations

import asyncio
import threading

import pytest
from spoken import TOKENIZER, SpokenEngine

from rillm.engine_args import AsyncEngineArgs
from rillm.errors import ConfigError
from rillm.localai.model import HostState, LoadedModel, ModelHost, NotLoadedError
from rillm.localai.settings import ModelSettings


class SlowEngine(SpokenEngine):
    """Is ready when it is told to be."""

    def __init__(self) -> None:
        super().__init__("A tide.")
        self.may_be_ready = asyncio.Event()
        self.is_closed = False

    async def wait_ready(self) -> None:
        await self.may_be_ready.wait()

    async def aclose(self) -> None:
        self.is_closed = True

    def shutdown(self) -> None:
        self.is_closed = True


class Starter:
    """Makes a `SlowEngine` for each start; a name with `bad` in it has no model."""

    def __init__(self) -> None:
        self.engines: list[SlowEngine] = []
        self.may_start = threading.Event()
        self.may_start.set()

    def __call__(self, settings: ModelSettings) -> LoadedModel:
        self.may_start.wait(10)
        if "bad" in settings.identity:
            raise ConfigError("there is no such model")
        self.engines.append(SlowEngine())
        return LoadedModel(settings, self.engines[-1], TOKENIZER, None)  # type: ignore[arg-type]


def settings(name: str) -> ModelSettings:
    return ModelSettings(identity=name, engine_args=AsyncEngineArgs(model=name))


async def begun(host: ModelHost, starter: Starter, name: str) -> asyncio.Task[None]:
    """A load whose engine has started and is not ready."""
    number = len(starter.engines)
    load = asyncio.create_task(host.load(settings(name)))
    while len(starter.engines) == number:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return load


async def loaded(host: ModelHost, starter: Starter, name: str) -> SlowEngine:
    load = await begun(host, starter, name)
    starter.engines[-1].may_be_ready.set()
    await load
    return starter.engines[-1]


async def test_the_same_model_again_changes_nothing() -> None:
    starter = Starter()
    host = ModelHost(starter)
    assert host.state is HostState.EMPTY
    engine = await loaded(host, starter, "a")

    await host.load(settings("a"))

    assert starter.engines == [engine]
    assert (host.state, engine.is_closed) == (HostState.READY, False)


async def test_a_load_goes_on_without_its_caller_and_the_next_one_finds_it() -> None:
    starter = Starter()
    host = ModelHost(starter)
    first = await begun(host, starter, "a")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert host.state is HostState.LOADING
    with pytest.raises(NotLoadedError):
        host.model()

    second = asyncio.create_task(host.load(settings("a")))
    starter.engines[0].may_be_ready.set()
    await second

    assert len(starter.engines) == 1
    assert host.model().settings.identity == "a"


async def test_another_model_waits_for_the_calls_of_the_one_before() -> None:
    starter = Starter()
    host = ModelHost(starter)
    old = await loaded(host, starter, "a")
    with host.model().call():
        assert host.state is HostState.BUSY
        load = asyncio.create_task(host.load(settings("b")))
        await asyncio.sleep(0.05)
        assert (len(starter.engines), old.is_closed) == (1, False)
    while len(starter.engines) == 1:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    assert old.is_closed
    starter.engines[1].may_be_ready.set()
    await load
    assert host.model().settings.identity == "b"


async def test_a_load_gives_way_to_another_and_says_so() -> None:
    starter = Starter()
    host = ModelHost(starter)
    first = await begun(host, starter, "a")
    second = asyncio.create_task(host.load(settings("b")))
    with pytest.raises(NotLoadedError, match="given up"):
        await first
    third = asyncio.create_task(host.load(settings("c")))
    with pytest.raises(NotLoadedError, match="given up"):
        await second
    while not third.done():
        # The thread that starts the engine of a load that was given up may still come to it.
        for engine in starter.engines:
            engine.may_be_ready.set()
        await asyncio.sleep(0.005)
    await third
    assert host.model().settings.identity == "c"
    kept = host.model().engine
    while [engine for engine in starter.engines if not engine.is_closed] != [kept]:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_an_engine_that_nobody_waits_for_is_stopped_when_it_comes() -> None:
    starter = Starter()
    starter.may_start.clear()
    host = ModelHost(starter)
    load = asyncio.create_task(host.load(settings("a")))
    await asyncio.sleep(0.02)
    await host.unload()
    with pytest.raises(NotLoadedError):
        await load
    assert host.state is HostState.EMPTY

    starter.may_start.set()

    while not (starter.engines and starter.engines[0].is_closed):  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def test_a_model_that_failed_is_tried_again() -> None:
    starter = Starter()
    host = ModelHost(starter)
    for _ in range(2):
        with pytest.raises(ConfigError, match="no such model"):
            await host.load(settings("bad"))
        assert host.state is HostState.FAILED
        with pytest.raises(NotLoadedError):
            host.model()
    await loaded(host, starter, "a")
    assert host.state is HostState.READY


async def test_an_engine_that_died_is_replaced_by_the_same_model() -> None:
    starter = Starter()
    host = ModelHost(starter)
    dead = await loaded(host, starter, "a")
    dead.errored = True
    assert host.state is HostState.FAILED
    engine = await loaded(host, starter, "a")
    assert engine is not dead
    assert dead.is_closed
    assert host.state is HostState.READY


async def test_free_drops_the_model_whatever_uses_it() -> None:
    starter = Starter()
    host = ModelHost(starter)
    await host.unload()
    engine = await loaded(host, starter, "a")
    with host.model().call():
        await host.unload()
    assert engine.is_closed
    assert host.state is HostState.EMPTY
