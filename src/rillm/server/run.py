"""Running the server: one listening socket, one engine, until a signal says stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType
from typing import Protocol, TypeVar

import uvicorn

from rillm import __version__
from rillm.async_llm import AsyncLLM
from rillm.engine_args import AsyncEngineArgs, RemoteEngineArgs
from rillm.errors import ConfigError, EngineDeadError, RillmError
from rillm.output_formats import choose_formats
from rillm.remote_llm import RemoteLLM
from rillm.server.access_log import logger as request_logger
from rillm.server.app import create_app
from rillm.server.auth import API_KEY_VARIABLE
from rillm.server.config import FrontendConfig, ListenConfig, ServerConfig
from rillm.server.http_connection import HttpConnection
from rillm.server.intake import Intake
from rillm.server.observed import ObservedApp
from rillm.server.options import HttpOptions
from rillm.server.serving_engine import ServingEngine
from rillm.text.tokenizer import Tokenizer

BACKLOG = 2048
"""Connections the kernel holds for us: a burst of clients must not be refused."""

_SEND_BUFFER_BYTES = 256 * 2**10
"""What the kernel holds for a slow reader; the rest of a stream waits, merged, in this process."""

_KEEPALIVE_S = 30
"""Silence after which, and then how often, the kernel asks whether a client is still there."""

_REASONING_FIELDS = {
    "reasoning_content": ("reasoning_content",),
    "reasoning": ("reasoning",),
    "both": ("reasoning_content", "reasoning"),
}

_YOUNG_OBJECTS = 50_000
"""Made, and not freed, before the garbage collector looks at them."""

_SHUTDOWN_GRACE_S = 5
"""Time to send what is left: errors, and what slow readers have not taken."""

_MOST_SIGNALS = 2
"""One more, and nobody is waited for."""

E = TypeVar("E", bound="RunnableEngine")

logger = logging.getLogger(__name__)


class RunnableEngine(ServingEngine, Protocol):
    """What a server needs of an engine besides its answers."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's; None where the engine runs without."""

    @property
    def directory(self) -> Path:
        """Of the model's files."""

    async def wait_ready(self) -> object:
        """Wait until requests are answered at once.

        Raises:
            RillmError: they never will be.
        """

    def shutdown(self) -> None:
        """End all streams with an error. Idempotent."""

    async def aclose(self) -> None:
        """As `shutdown`, while the event loop goes on."""


def run_server(config: ServerConfig, engine_args: AsyncEngineArgs) -> None:
    """Serve a model until SIGINT or SIGTERM, which end the program with exit code 0.

    Raises:
        ConfigError: the address or the certificate cannot be used, or the model cannot be loaded.
        EngineDeadError: the engine died while it loaded, or for good; streams have got their error.
        SystemExit: a signal came; running requests have ended.
    """
    if config.tokens_only:
        engine_args = replace(engine_args, skip_tokenizer_init=True)

    def describe(engine: AsyncLLM) -> str:
        info = engine.ready_info
        assert info is not None
        return (
            f"{info.dtype} on {info.device}, {info.memory_bytes / 2**20:.0f} MiB in memory, KV "
            f"cache for {info.num_blocks * info.block_size} tokens "
            f"({info.kv_cache_bytes / 2**20:.0f} MiB)"
        )

    _run(config, engine_args, lambda: AsyncLLM.from_engine_args(engine_args), describe)


def run_engine(config: ListenConfig, engine_args: AsyncEngineArgs) -> None:
    """Serve only tokens, for frontends elsewhere; as `run_server`."""
    settings = {each.name: getattr(config, each.name) for each in fields(config)}
    run_server(
        ServerConfig(**settings, tokens_only=True, enable_prompt_tokens_details=True), engine_args
    )


def run_frontend(config: FrontendConfig, engine_args: RemoteEngineArgs) -> None:
    """Serve a model that runs elsewhere until SIGINT or SIGTERM, as `run_server`.

    Raises:
        ConfigError: the address or the certificate cannot be used, or the model's files cannot
            be read.
        SystemExit: a signal came; running requests have ended.
    """
    engines = ", ".join(engine_args.engine)
    _run(
        config,
        engine_args,
        lambda: RemoteLLM(engine_args),
        lambda _: f"tokens from {engines}",
    )


def _run(
    config: FrontendConfig,
    engine_args: AsyncEngineArgs | RemoteEngineArgs,
    start: Callable[[], E],
    describe: Callable[[E], str],
) -> None:
    """Serve an engine's model.

    Args:
        config: where and how.
        engine_args: the engine's.
        start: makes the engine, once the address is taken.
        describe: says, once it is ready, what it runs on.
    """
    config = _with_environment(config)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _exit)
    with _listen(config) as listener:
        engine = start()
        try:
            _set_up_request_log(config)
            app = _application(engine, config, engine_args)
            names = ", ".join(engine_args.served_names())
            server = _Server(
                _uvicorn_config(app, config),
                engine,
                app.intake,
                config,
                lambda: f"serves {names}: {describe(engine)}",
            )
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(_serve(server, listener))
        finally:
            engine.shutdown()


def _application(
    engine: RunnableEngine,
    config: FrontendConfig,
    engine_args: AsyncEngineArgs | RemoteEngineArgs,
) -> ObservedApp:
    formats = None
    if engine.tokenizer is not None:
        formats = choose_formats(
            engine.directory,
            engine.tokenizer,
            engine_args.model,
            tool_name=config.tool_call_parser,
            reasoning_name=config.reasoning_parser,
            tool_plugin=config.tool_parser_plugin,
            tool_strict=config.tool_strict,
        )
    return create_app(
        engine,
        model_names=engine_args.served_names(),
        model_root=engine_args.model,
        formats=formats,
        reasoning_fields=_REASONING_FIELDS[config.reasoning_field],
        tokens_only=engine.tokenizer is None,
        has_prompt_details=config.enable_prompt_tokens_details,
        options=config,
    )


def _exit(_signum: int, _frame: FrameType | None) -> None:
    """Leave at once; while uvicorn serves it takes the signal first and repeats it when done."""
    sys.exit(0)


def _listen(config: ListenConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        listener = socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (
            "it is in use: stop what listens there, or choose another port with --port"
            if error.errno == errno.EADDRINUSE
            else error.strerror
        )
        raise ConfigError(f"cannot listen on {config.host} port {config.port}: {reason}") from None
    except OverflowError:
        raise ConfigError(f"port is {config.port}, must be from 0 to 65535") from None
    _watch_readers(listener, config.write_timeout)
    return listener


def _watch_readers(listener: socket.socket, timeout_s: float) -> None:
    """Let the kernel see to slow and silent clients: it costs nothing where they are neither.

    Accepted connections have the options of the socket that listens.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if timeout_s and sys.platform == "linux":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            listener.setsockopt(socket.IPPROTO_TCP, option, _KEEPALIVE_S)
        timeout_ms = round(timeout_s * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


def _with_environment(config: FrontendConfig) -> FrontendConfig:
    key = os.environ.get(API_KEY_VARIABLE)
    return replace(config, api_key=(*config.api_key, key)) if key else config


def _set_up_request_log(config: HttpOptions) -> None:
    """Lines that a program reads stand alone; others look like the rest of the log."""
    if config.request_log == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        request_logger.addHandler(handler)
        request_logger.propagate = False


def _uvicorn_config(app: ObservedApp, config: ListenConfig) -> uvicorn.Config:
    if config.ssl_keyfile is not None and config.ssl_certfile is None:
        raise ConfigError("ssl_keyfile is set, must be absent without ssl_certfile")
    settings = uvicorn.Config(
        app,
        http=HttpConnection,
        log_config=None,
        access_log=False,
        ssl_certfile=config.ssl_certfile,
        ssl_keyfile=config.ssl_keyfile,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_GRACE_S,
    )
    try:
        settings.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"ssl_certfile {config.ssl_certfile!r} and ssl_keyfile {config.ssl_keyfile!r} cannot "
            f"be used: {error}"
        ) from None
    return settings


class _Server(uvicorn.Server):
    """Stops in an orderly way: what runs may end, and the rest ends with an error.

    While it drains it still listens, so that probes are told; whoever wants tokens is refused.
    The first signal begins that, the second ends all streams at once, the third cuts what has not
    been sent by then.
    """

    def __init__(
        self,
        settings: uvicorn.Config,
        engine: RunnableEngine,
        intake: Intake,
        config: ListenConfig,
        describe: Callable[[], str],
    ) -> None:
        super().__init__(settings)
        self._engine = engine
        self._intake = intake
        self._config = config
        self._describe = describe
        self._num_signals = 0
        self._drained_by = 0.0
        self.has_lost_engine = False

    async def on_tick(self, counter: int) -> bool:
        """Also stop when the engine has died for good: who started this program can start anew."""
        if self._engine.errored and not self.should_exit:
            self.has_lost_engine = True
            return True
        return await super().on_tick(counter) and self._is_drained()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        self._num_signals += 1
        super().handle_exit(sig, frame)
        self.force_exit = self._num_signals > _MOST_SIGNALS

    def _is_drained(self) -> bool:
        """Let running requests end, for a while."""
        if not self._intake.is_draining:
            self._intake.is_draining = True
            self._drained_by = time.monotonic() + self._config.shutdown_timeout
            if not self._intake.is_idle:
                logger.info("shuts down: requests that run get %d s", self._config.shutdown_timeout)
        return (
            self._intake.is_idle
            or self._engine.errored
            or self._num_signals > 1
            or time.monotonic() >= self._drained_by
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what has not ended, send that, and close all connections."""
        if not self.has_lost_engine:
            self._intake.end()
        closing = asyncio.create_task(self._engine.aclose())
        await super().shutdown(sockets)
        await closing

    async def wait_loaded(self, port: int) -> RillmError | None:
        """Say when the server is ready, or stop it and return why it never will be."""
        try:
            await self._engine.wait_ready()
        except RillmError as error:
            self.should_exit = True
            return error
        _settle_garbage_collector()
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        logger.info(
            "rillm %s %s, at %s://%s:%d",
            __version__,
            self._describe(),
            "http" if self._config.ssl_certfile is None else "https",
            host,
            port,
        )
        return None


def _settle_garbage_collector() -> None:
    """Keep what is loaded out of garbage collection, which costs a tenth of a token otherwise.

    Streams leave next to nothing that only a collection frees: it may come rarely.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


async def _serve(server: _Server, listener: socket.socket) -> None:
    async with asyncio.TaskGroup() as tasks:
        loading = tasks.create_task(server.wait_loaded(listener.getsockname()[1]))
        await server.serve(sockets=[listener])
        loading.cancel()
    if not loading.cancelled() and (error := loading.result()) is not None:
        raise error
    if server.has_lost_engine:
        raise EngineDeadError("the engine has stopped for good")
