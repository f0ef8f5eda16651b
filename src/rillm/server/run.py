"""Running the server: one listening socket, one engine, until a signal says stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import ssl
import sys
from dataclasses import dataclass, replace
from types import FrameType
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from rillm import __version__
from rillm.async_llm import AsyncLLM
from rillm.engine_args import AsyncEngineArgs
from rillm.errors import ConfigError, RillmError
from rillm.output_formats import choose_formats
from rillm.server.access_log import logger as request_logger
from rillm.server.app import create_app
from rillm.server.auth import API_KEY_VARIABLE
from rillm.server.options import HttpOptions

BACKLOG = 2048
"""Connections the kernel holds for us: a burst of clients must not be refused."""

_REASONING_FIELDS = {
    "reasoning_content": ("reasoning_content",),
    "reasoning": ("reasoning",),
    "both": ("reasoning_content", "reasoning"),
}

_SHUTDOWN_GRACE_S = 5
"""Time to send the errors."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerConfig(HttpOptions):
    """Where to listen, how to answer, and how to stop."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of them."""
    port: int = 8000
    """TCP port; 0 picks a free one."""
    shutdown_timeout: int = 10
    """Seconds that running requests get after SIGINT or SIGTERM before they end with an error."""
    ssl_certfile: str | None = None
    """File with the certificate, and what it is signed with, to be served over TLS."""
    ssl_keyfile: str | None = None
    """File with the certificate's key, if it is not in the same file."""
    tool_call_parser: str = "auto"
    """Format of the model's tool calls, one that `rillm formats` lists; `auto` reads it off the
    model's files, `none` leaves calls in the text."""
    tool_parser_plugin: str | None = None
    """File of a tool parser written for vLLM; --tool-call-parser then says its name."""
    reasoning_parser: str = "auto"
    """Format of the model's reasoning; `auto` and `none` as above."""
    reasoning_field: Literal["reasoning_content", "reasoning", "both"] = "reasoning_content"
    """Name under which a chat message holds its reasoning."""
    tokens_only: bool = False
    """Run without a tokenizer: token ids in and out, no routes that speak text."""
    enable_scale_out: bool = False
    """Accepted: the token endpoint is always there."""
    enable_prompt_tokens_details: bool = False
    """Let the token endpoint's usage say how many prompt tokens came from the prefix cache."""


def run_server(config: ServerConfig, engine_args: AsyncEngineArgs) -> None:
    """Serve a model until SIGINT or SIGTERM, which end the program with exit code 0.

    Raises:
        ConfigError: the address or the certificate cannot be used, or the model cannot be loaded.
        EngineDeadError: the engine died while it loaded.
        SystemExit: a signal came; running requests have ended.
    """
    if config.tokens_only:
        engine_args = replace(engine_args, skip_tokenizer_init=True)
    config = _with_environment(config)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _exit)
    with _listen(config) as listener:
        engine = AsyncLLM.from_engine_args(engine_args)
        try:
            formats = None
            if engine.tokenizer is not None:
                formats = choose_formats(
                    engine.directory,
                    engine.tokenizer,
                    engine_args.model,
                    tool_name=config.tool_call_parser,
                    reasoning_name=config.reasoning_parser,
                    tool_plugin=config.tool_parser_plugin,
                )
            app = create_app(
                engine,
                model_names=engine_args.served_names(),
                model_root=engine_args.model,
                formats=formats,
                reasoning_fields=_REASONING_FIELDS[config.reasoning_field],
                tokens_only=engine.tokenizer is None,
                has_prompt_details=config.enable_prompt_tokens_details,
                options=config,
            )
            _set_up_request_log(config)
            server = _Server(_uvicorn_config(app, config), engine, config)
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(_serve(server, listener))
        finally:
            engine.shutdown()


def _exit(_signum: int, _frame: FrameType | None) -> None:
    """Leave at once; while uvicorn serves it takes the signal first and repeats it when done."""
    sys.exit(0)


def _listen(config: ServerConfig) -> socket.socket:
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


def _with_environment(config: ServerConfig) -> ServerConfig:
    key = os.environ.get(API_KEY_VARIABLE)
    return replace(config, api_key=(*config.api_key, key)) if key else config


def _set_up_request_log(config: ServerConfig) -> None:
    """Lines that a program reads stand alone; others look like the rest of the log."""
    if config.request_log == "json":
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        request_logger.addHandler(handler)
        request_logger.propagate = False


def _uvicorn_config(app: ASGIApp, config: ServerConfig) -> uvicorn.Config:
    if config.ssl_keyfile is not None and config.ssl_certfile is None:
        raise ConfigError("ssl_keyfile is set, must be absent without ssl_certfile")
    settings = uvicorn.Config(
        app,
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

    def __init__(self, settings: uvicorn.Config, engine: AsyncLLM, config: ServerConfig) -> None:
        super().__init__(settings)
        self._engine = engine
        self._config = config

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests end, for a while."""
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(self._config.shutdown_timeout, self._engine.shutdown)
        await super().shutdown(sockets)
        deadline.cancel()

    async def wait_loaded(self, port: int) -> RillmError | None:
        """Say when the server is ready, or stop it and return why it never will be."""
        try:
            info = await self._engine.wait_ready()
        except RillmError as error:
            self.should_exit = True
            return error
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        logger.info(
            "rillm %s serves %s: %s on %s, %.0f MiB in memory, KV cache for %d tokens (%.0f MiB), "
            "at %s://%s:%d",
            __version__,
            ", ".join(self._engine.args.served_names()),
            info.dtype,
            info.device,
            info.memory_bytes / 2**20,
            info.num_blocks * info.block_size,
            info.kv_cache_bytes / 2**20,
            "http" if self._config.ssl_certfile is None else "https",
            host,
            port,
        )
        return None


async def _serve(server: _Server, listener: socket.socket) -> None:
    async with asyncio.TaskGroup() as tasks:
        loading = tasks.create_task(server.wait_loaded(listener.getsockname()[1]))
        await server.serve(sockets=[listener])
        loading.cancel()
    if not loading.cancelled() and (error := loading.result()) is not None:
        raise error
