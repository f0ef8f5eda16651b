"""Running the backend: one address, one model at a time, until a signal says stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

from rillm import __version__
from rillm.errors import ConfigError
from rillm.localai.backend import Backend
from rillm.localai.config import BackendConfig, auth_token, watch_interval_s
from rillm.localai.model import ModelHost
from rillm.localai.service import new_server

logger = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
"""Time that running calls get after SIGINT or SIGTERM."""
_ORPHANED = 1


def run_backend(config: BackendConfig) -> int:
    """Serve until SIGINT or SIGTERM, or until the parent is gone.

    Returns:
        Exit code of the process: 1 when the parent is gone, else 0.

    Raises:
        ConfigError: the address cannot be used, or a variable of the environment is wrong.
    """
    return asyncio.run(_serve(config))


async def _serve(config: BackendConfig) -> int:
    watch_s = watch_interval_s() if config.exit_with_parent else None
    host = ModelHost()
    server = new_server(Backend(host), auth_token())
    try:
        port = server.add_insecure_port(config.addr)
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen on {config.addr}: the address is in use or wrong"
        ) from error
    stopping: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, _settle, stopping, 0)
    await server.start()
    logger.info("rillm %s is a backend for LocalAI, at port %d", __version__, port)
    watch = asyncio.create_task(_watch_parent(stopping, watch_s))
    try:
        code = await stopping
        await server.stop(0 if code else STOP_GRACE_S)
    finally:
        watch.cancel()
        await host.unload()
    return code


def _settle(stopping: asyncio.Future[int], code: int) -> None:
    if not stopping.done():
        stopping.set_result(code)


async def _watch_parent(stopping: asyncio.Future[int], interval_s: float | None) -> None:
    """Stop when this process has another parent than now; never where it has none now."""
    parent = os.getppid()
    if interval_s is None or parent <= 1:
        return
    while os.getppid() == parent:  # noqa: ASYNC110
        await asyncio.sleep(interval_s)
    logger.warning("the parent process is gone")
    _settle(stopping, _ORPHANED)
