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
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType
from typing import Protocol, TypeVar

import uvicorn
from starlette.types import ASGIApp

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
from rillm.server.options import HttpOptions
from rillm.server.serving_engine import ServingEngine
from rillm.text.tokenizer import Tokenizer

BACKLOG = 2048
"""Connections the kernel holds for us: a burst of clients must not be refused."""

_REASONING_FIELDS = {
    "reasoning_content": ("reasoning_content",),
    "reasoning": ("reasoning",),
    "both": ("reasoning_content", "reasoning"),
}

_YOUNG_OBJECTS = 50_000
"""Made, and not freed, before the garbage collector looks at them."""

_SHUTDOWN_GRACE_S = 5
"""Time to send the errors."""

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
) -> ASGIApp:
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
        return socket.create_server((config.host, config.port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (
            "it is in use: stop what listens there, or choose another port with --port"
            if error.errno == errno.EADDRINUSE
            else error.strerror
        )
        raise ConfigError(f"cannot listen on {config.host} port {config.port}: {reason}") from None
    except OverflowError:
        raise ConfigError(f"port is {config.port}, must be from 0 to 65535") from None


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


def _uvicorn_config(app: ASGIApp, config: ListenConfig) -> uvicorn.Config:
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
        timeout_graceful_shutdown=config.shutdown_timeout + _SHUTDOWN_GRACE_S,
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
    """Ends streams that outlive the shutdown timeout with an error instead of cutting them."""

    def __init__(
        self,
        settings: uvicorn.Config,
        engine: RunnableEngine,
        config: ListenConfig,
        describe: Callable[[], str],
    ) -> None:
        super().__init__(settings)
        self._engine = engine
        self._config = config
        self._describe = describe
        self.has_lost_engine = False

    async def on_tick(self, counter: int) -> bool:
        """Also stop when the engine has died for good: who started this program can start anew."""
        if self._engine.errored and not self.should_exit:
            self.has_lost_engine = True
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests end, for a while."""
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(self._config.shutdown_timeout, self._engine.shutdown)
        await super().shutdown(sockets)
        deadline.cancel()

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
