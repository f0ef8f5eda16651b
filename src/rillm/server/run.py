"""Running the server: one listening socket, one engine, until a signal says stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
from dataclasses import dataclass
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from rillm import __version__
from rillm.async_llm import AsyncLLM
from rillm.engine_args import AsyncEngineArgs
from rillm.errors import ConfigError, RillmError
from rillm.server.app import create_app

BACKLOG = 2048
"""Connections the kernel holds for us: a burst of clients must not be refused."""

_SHUTDOWN_GRACE_S = 5
"""Time to send the errors."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Where to listen, and how to stop."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of them."""
    port: int = 8000
    """TCP port; 0 picks a free one."""
    shutdown_timeout: int = 10
    """Seconds that running requests get after SIGINT or SIGTERM before they end with an error."""
    access_log: bool = False
    """Log every HTTP request."""


def run_server(config: ServerConfig, engine_args: AsyncEngineArgs) -> None:
    """Serve a model until SIGINT or SIGTERM, which end the program with exit code 0.

    Raises:
        ConfigError: the address cannot be used, or the model cannot be loaded.
        EngineDeadError: the engine died while it loaded.
        SystemExit: a signal came; running requests have ended.
    """
    if engine_args.skip_tokenizer_init:
        raise ConfigError("skip_tokenizer_init is True, must be False: these routes speak text")
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _exit)
    with _listen(config) as listener:
        engine = AsyncLLM.from_engine_args(engine_args)
        try:
            app = create_app(
                engine, model_names=engine_args.served_names(), model_root=engine_args.model
            )
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


def _uvicorn_config(app: ASGIApp, config: ServerConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=config.access_log,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=config.shutdown_timeout + _SHUTDOWN_GRACE_S,
    )


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
            "at http://%s:%d",
            __version__,
            ", ".join(self._engine.args.served_names()),
            info.dtype,
            info.device,
            info.memory_bytes / 2**20,
            info.num_blocks * info.block_size,
            info.kv_cache_bytes / 2**20,
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
