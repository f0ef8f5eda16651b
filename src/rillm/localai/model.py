"""The model of this process: none, on its way, loaded, or failed.

One process serves one model. A load runs on its own: a caller that goes away does not end it, and
the next one that asks for the same finds it. Files are read in a thread and weights in the engine's
process, so that the event loop always answers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import enum
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from rillm.async_llm import AsyncLLM
from rillm.embedding import EmbeddingOutput
from rillm.engine.config import EngineInfo
from rillm.errors import RillmError
from rillm.input_processor import PromptType
from rillm.localai.settings import ModelSettings
from rillm.output_formats import OutputFormats, choose_formats
from rillm.streams import GenerationClient
from rillm.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

DRAIN_S = 30.0
"""Time that the requests of a model get to end when another model takes its place."""


class NotLoadedError(RillmError):
    """There is no model to answer with."""


class BackendEngine(GenerationClient, Protocol):
    """What the backend needs of an engine; `AsyncLLM` has it."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's; there at once."""

    @property
    def errored(self) -> bool:
        """Whether the engine has stopped for good."""

    @property
    def ready_info(self) -> EngineInfo | None:
        """What the engine decided when it loaded; None before."""

    async def wait_ready(self) -> object:
        """Wait until the model is loaded; raises where it cannot be."""

    async def aclose(self) -> None:
        """Stop; live requests end with an error."""

    def shutdown(self) -> None:
        """As `aclose`, for an engine that no event loop has used yet."""

    async def embed(self, prompt: PromptType) -> EmbeddingOutput:
        """Embed one prompt."""


class LoadedModel:
    """An engine with what reads its output, and the calls that use it."""

    def __init__(
        self,
        settings: ModelSettings,
        engine: BackendEngine,
        tokenizer: Tokenizer,
        formats: OutputFormats,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.tokenizer = tokenizer
        self.formats = formats
        self._num_calls = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def is_busy(self) -> bool:
        """Whether calls use it."""
        return self._num_calls > 0

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Keep the model while a call uses it."""
        self._num_calls += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self._num_calls -= 1
            if not self._num_calls:
                self._is_idle.set()

    async def drain(self, timeout_s: float) -> None:
        """Wait until no call uses it, or until the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._is_idle.wait()


def start_model(settings: ModelSettings) -> LoadedModel:
    """Find and read a model's files, and start its engine; blocks.

    Raises:
        ConfigError: a file, a setting or the name of a format is at fault.
    """
    engine = AsyncLLM.from_engine_args(settings.engine_args)
    try:
        tokenizer = engine.get_tokenizer()
        formats = choose_formats(
            engine.directory,
            tokenizer,
            settings.engine_args.model,
            tool_name=settings.tool_parser,
            reasoning_name=settings.reasoning_parser,
            tool_plugin=settings.tool_parser_plugin,
        )
    except BaseException:
        engine.shutdown()
        raise
    return LoadedModel(settings, engine, tokenizer, formats)


class HostState(enum.Enum):
    """What the process is doing about its model."""

    EMPTY = enum.auto()
    LOADING = enum.auto()
    READY = enum.auto()
    BUSY = enum.auto()
    FAILED = enum.auto()


class ModelHost:
    """Owns the model.

    Args:
        start: makes a model whose engine loads; runs in a thread.
    """

    def __init__(self, start: Callable[[ModelSettings], LoadedModel] = start_model) -> None:
        self._start = start
        self._settings: ModelSettings | None = None
        self._load: asyncio.Task[LoadedModel] | None = None
        self._discard: asyncio.Task[None] | None = None

    @property
    def state(self) -> HostState:
        """What the process is doing."""
        if self._load is None:
            return HostState.EMPTY
        if not self._load.done():
            return HostState.LOADING
        model = _result(self._load)
        if model is None or model.engine.errored:
            return HostState.FAILED
        return HostState.BUSY if model.is_busy else HostState.READY

    def model(self) -> LoadedModel:
        """The model.

        Raises:
            NotLoadedError: there is none, or not yet.
        """
        model = _result(self._load)
        if model is None:
            raise NotLoadedError("no model is loaded")
        return model

    async def load(self, settings: ModelSettings) -> None:
        """Serve a model in place of what is there; the same settings again change nothing.

        The load goes on when the caller is cancelled.

        Raises:
            RillmError: it cannot be loaded, or something else was asked for meanwhile.
        """
        if settings != self._settings or self.state in (HostState.EMPTY, HostState.FAILED):
            self._settings = settings
            self._discard = self._discarding(DRAIN_S)
            self._load = asyncio.create_task(self._loaded(settings, self._discard))
            self._load.add_done_callback(_log_failure)
        load = self._load
        assert load is not None
        try:
            await asyncio.shield(load)
        except asyncio.CancelledError:
            if load.cancelled():
                raise NotLoadedError("the load was given up for another one") from None
            raise

    async def unload(self) -> None:
        """Drop the model, or the load of one; live requests end with an error."""
        self._discard = self._discarding(0)
        self._load = self._settings = None
        await asyncio.shield(self._discard)

    def _discarding(self, drain_s: float) -> asyncio.Task[None]:
        """Drop what the newest load made or makes, when all that came before is dropped."""
        return asyncio.create_task(_dropped(self._load, self._discard, drain_s))

    async def _loaded(self, settings: ModelSettings, discard: asyncio.Task[None]) -> LoadedModel:
        await asyncio.shield(discard)
        model = await _made_in_thread(lambda: self._start(settings))
        try:
            await model.engine.wait_ready()
        except BaseException:
            await model.engine.aclose()
            raise
        return model


async def _dropped(
    load: asyncio.Task[LoadedModel] | None, before: asyncio.Task[None] | None, drain_s: float
) -> None:
    if before is not None:
        await before
    if load is None:
        return
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)
    if (model := _result(load)) is not None:
        await model.drain(drain_s)
        await model.engine.aclose()


def _result(load: asyncio.Task[LoadedModel] | None) -> LoadedModel | None:
    """What a load made; None where it goes on, failed or was given up."""
    if load is None or not load.done() or load.cancelled() or load.exception() is not None:
        return None
    return load.result()


def _log_failure(load: asyncio.Task[LoadedModel]) -> None:
    """Say why a load failed, also where its caller has gone."""
    if not load.cancelled() and (error := load.exception()) is not None:
        unexpected = None if isinstance(error, RillmError) else error
        logger.error("cannot load the model: %s", error, exc_info=unexpected)


async def _made_in_thread(make: Callable[[], LoadedModel]) -> LoadedModel:
    """Make a model in a thread that does not keep the process from ending.

    A model that nobody waits for any more is stopped when it comes.
    """
    made: concurrent.futures.Future[LoadedModel] = concurrent.futures.Future()
    made.set_running_or_notify_cancel()

    def run() -> None:
        try:
            made.set_result(make())
        except Exception as error:  # noqa: BLE001
            made.set_exception(error)

    threading.Thread(target=run, name="rillm-load", daemon=True).start()
    try:
        return await asyncio.wrap_future(made)
    except asyncio.CancelledError:
        made.add_done_callback(_stop)
        raise


def _stop(made: concurrent.futures.Future[LoadedModel]) -> None:
    if made.exception() is None:
        made.result().engine.shutdown()
