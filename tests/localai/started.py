"""A backend as LocalAI starts it: `run.sh` in its folder, an address, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from contract import Client

import rillm

FOLDER = Path(__file__).parents[2] / "localai"
ENGINE_ARGS = '{"kv_cache_memory_bytes": 33554432, "max_num_seqs": 40, "num_threads": 1}'


@dataclass
class Started:
    """The process and how to speak to it."""

    process: asyncio.subprocess.Process
    address: str
    client: Client

    async def stop(self) -> tuple[int, str]:
        """Ask it to stop; returns its exit code and what it wrote to standard error."""
        self.process.send_signal(signal.SIGTERM)
        return await self.end()

    async def end(self) -> tuple[int, str]:
        """Wait for its end; returns as `stop`."""
        _, written = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, written.decode()


def environment(**variables: str) -> dict[str, str]:
    """What LocalAI passes on, this Python first in the path, and `variables`."""
    inherited = {name: value for name, value in os.environ.items() if "LOCALAI" not in name}
    paths = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(Path(rillm.__file__).parents[1]),
    }
    return inherited | paths | variables


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@asynccontextmanager
async def started(
    *arguments: str, token: str | None = None, **variables: str
) -> AsyncIterator[Started]:
    """Start a backend; by default with `--addr=ADDRESS`, `{}` in arguments is the address."""
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        str(FOLDER / "run.sh"),
        *[each.format(address) for each in arguments or ("--addr={}",)],
        cwd=FOLDER,
        env=environment(**variables),
        stderr=subprocess.PIPE,
    )
    backend = Started(process, address, Client(address, token))
    try:
        yield backend
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def wait_until_healthy(
    client: Client, states: Sequence[grpc.StatusCode] = (grpc.StatusCode.UNAVAILABLE,)
) -> None:
    """Ask for its health as LocalAI does, until it answers; the test's own limit ends it."""
    while True:
        try:
            assert await client.health() == b"OK"
        except grpc.aio.AioRpcError as error:
            if error.code() not in states:
                raise
            await asyncio.sleep(0.1)
        else:
            return
