"""What a streamed token costs the API process, and what an open stream weighs.

    python benchmarks/serving.py [--streams 1 64 512 1024] [--frontend] [--vllm PYTHON]

The server is `rillm serve` with a stub in place of the engine core (`stub_core.py`), so that its
process does everything but compute: take the engine's message, detokenize, parse (each request
offers a tool), encode, write. The stub and the load run on another core where there is one. Then
a prompt of 100,000 tokens is sent beside 16 streams, and the longest pause of the streams is
compared with the longest without it. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from startup import free_port

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
WARM_S = 1.5
FIRST_EVENTS = 3
"""What every stream has got before anything is measured."""
LONG_PROMPT_TOKENS = 100_000
HERE = Path(__file__).parent
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""As they were before anything was pinned."""


class Stream(asyncio.Protocol):
    """One client: counts events and remembers the longest pause between two reads."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._last = 0.0
        self.num_events = 0
        self.longest_pause_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        assert isinstance(transport, asyncio.Transport)
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(self._body)}\r\n\r\n"
        )
        transport.write(head.encode() + self._body)

    def data_received(self, data: bytes) -> None:
        """Count what came."""
        now = time.perf_counter()
        if self._last:
            self.longest_pause_s = max(self.longest_pause_s, now - self._last)
        self._last = now
        self.num_events += data.count(b"data: ")

    def forget_pauses(self) -> None:
        """Measure pauses from now on."""
        self.longest_pause_s = 0.0


def request_body(prompt: str, max_tokens: int) -> bytes:
    """A chat request that offers a tool."""
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "tools": TOOLS,
        "stream": True,
        "max_tokens": max_tokens,
        "ignore_eos": True,
    }
    return json.dumps(body).encode()


def serve(port: int, interval: float, text: str) -> None:
    """Run the server in this process, with the stub as its engine core."""
    import rillm.engine.running_core as running_core
    from rillm.engine_args import AsyncEngineArgs
    from rillm.server.run import ServerConfig, run_server

    def start_stub(theirs, board) -> subprocess.Popen[bytes]:  # type: ignore[no-untyped-def]
        del board
        command = [sys.executable, str(HERE / "stub_core.py"), str(theirs.fileno())]
        command += [str(interval), text]
        return subprocess.Popen(command, pass_fds=[theirs.fileno()])

    running_core._start_process = start_stub
    run_server(ServerConfig(port=port), AsyncEngineArgs())


@contextlib.contextmanager
def running_server(interval: float, text: str) -> Iterator[tuple[int, psutil.Process]]:
    """Start a server of its own; yields its port and its API process."""
    port = free_port()
    command = [sys.executable, __file__, "--serve", str(port), str(interval), text]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        server = psutil.Process(process.pid)
        wait_until_ready(port)
        pin(server)
        yield port, server
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def running_frontend(interval: float, text: str) -> Iterator[tuple[int, psutil.Process]]:
    """As `running_server`: a frontend before such a server, which is on the other core then."""
    port = free_port()
    with running_server(interval, text) as (engine_port, engine):
        command = [sys.executable, "-m", "rillm", "frontend", "--port", str(port)]
        command += ["--engine", f"http://127.0.0.1:{engine_port}"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            frontend = psutil.Process(process.pid)
            wait_until_ready(port)
            pin(frontend)
            if len(CORES) > 1:
                engine.cpu_affinity(CORES[1:])
            yield port, frontend
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def running_vllm(python: str) -> Iterator[tuple[int, psutil.Process]]:
    """As `running_server`: vLLM with the bundled model, and its parser of calls."""
    from rillm.engine_args import EngineArgs

    port = free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--port", str(port)]
    command += ["--model", str(EngineArgs().model_directory()), "--max-num-seqs", "1024"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--enforce-eager"]
    command += ["--disable-uvicorn-access-log", "--no-enable-log-requests"]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PATH": os.pathsep.join([str(Path(python).parent), os.environ["PATH"]]),
    }
    environment.pop("PYTHONPATH", None)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        server = psutil.Process(process.pid)
        wait_until_ready(port, 600)
        pin(server)
        yield port, server
    finally:
        process.terminate()
        process.wait()


def tokens_made_by_vllm(port: int) -> float:
    """What vLLM has counted so far: an event may hold several tokens when it cannot keep up."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    name = "vllm:generation_tokens_total"
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def wait_until_ready(port: int, patience_s: float = 30) -> None:
    """Read one whole answer."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if asyncio.run(load(port, 1, 2, None, 0.5)).num_events > 0:
                return
        time.sleep(0.1)
    raise TimeoutError("the server did not answer")


def pin(server: psutil.Process) -> None:
    """The server on the first core, everything else on the others, where that can be done."""
    if len(CORES) > 1:
        server.cpu_affinity(CORES[:1])
        for child in server.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.cpu_affinity(CORES[1:])
                for thread in child.threads():
                    os.sched_setaffinity(thread.id, CORES[1:])
        os.sched_setaffinity(0, CORES[1:])


class Measured:
    """What one load showed."""

    num_events = 0.0
    cpu_us_per_token = 0.0
    num_bytes_per_stream = 0.0
    longest_pause_s = 0.0


async def load(
    port: int,
    num_streams: int,
    max_tokens: int,
    server: psutil.Process | None,
    window_s: float,
    long_prompt: bytes | None = None,
    count_tokens: Callable[[], float] | None = None,
) -> Measured:
    """Open streams, let all of them begin, and measure over a window.

    Args:
        port: of the server.
        num_streams: how many.
        max_tokens: of each.
        server: its API process; None: measure no processor time.
        window_s: seconds.
        long_prompt: a request to send at the window's beginning.
        count_tokens: says how many tokens there have been so far; None: as many as events.
    """
    loop = asyncio.get_running_loop()
    idle_bytes = 0 if server is None else server.memory_full_info().uss
    body = request_body("Hello!", max_tokens)
    opened = [
        await loop.create_connection(lambda: Stream(body), "127.0.0.1", port)
        for _ in range(num_streams)
    ]
    streams = [stream for _, stream in opened]
    if server is not None:
        while min(stream.num_events for stream in streams) < FIRST_EVENTS:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await asyncio.sleep(WARM_S)
    for stream in streams:
        stream.forget_pauses()
    count_tokens = count_tokens or (lambda: sum(stream.num_events for stream in streams))
    before = count_tokens()
    cpu = 0.0 if server is None else sum(server.cpu_times()[:2])
    if long_prompt is not None:
        text = long_prompt
        extra = await loop.create_connection(lambda: Stream(text), "127.0.0.1", port)
        opened.append(extra)
    await asyncio.sleep(window_s)
    measured = Measured()
    measured.num_events = count_tokens() - before
    measured.longest_pause_s = max(stream.longest_pause_s for stream in streams)
    if server is not None:
        cpu = sum(server.cpu_times()[:2]) - cpu
        measured.cpu_us_per_token = cpu / max(measured.num_events, 1) * 1e6
        weight = server.memory_full_info().uss - idle_bytes
        measured.num_bytes_per_stream = weight / num_streams
    for transport, _ in opened:
        transport.abort()
    await asyncio.sleep(0.2)
    return measured


def measure_cost(
    streams: list[int], window_s: float, *, is_frontend: bool = False
) -> list[dict[str, float]]:
    """Processor time a token and memory a stream, for each number of streams."""
    running = running_frontend if is_frontend else running_server
    rows = []
    print("\n streams  us/token  tokens/s  KiB/stream  MiB for all")
    for count in streams:
        interval = 0.005 if count < 8 else 0.05 if count < 1024 else 0.1
        with running(interval, "markdown") as (port, server):
            found = asyncio.run(load(port, count, 1 << 16, server, window_s))
        row = {
            "streams": count,
            "cpu_us_per_token": found.cpu_us_per_token,
            "tokens_per_s": found.num_events / window_s,
            "memory_mib": found.num_bytes_per_stream * count / 2**20,
        }
        rows.append(row)
        print(
            f"{count:8d}  {row['cpu_us_per_token']:8.1f}  {row['tokens_per_s']:8.0f}"
            f"  {found.num_bytes_per_stream / 1024:10.1f}  {row['memory_mib']:11.1f}"
        )
    return rows


def measure_vllm(python: str, streams: list[int], window_s: float) -> list[dict[str, float]]:
    """The same load on vLLM: processor time of its API process by token that was made."""
    rows = []
    print("\nvLLM\n streams  us/token  tokens/s")
    with running_vllm(python) as (port, server):
        for count in streams:
            counter = functools.partial(tokens_made_by_vllm, port)
            found = asyncio.run(load(port, count, 1900, server, window_s, None, counter))
            row = {
                "streams": count,
                "cpu_us_per_token": found.cpu_us_per_token,
                "tokens_per_s": found.num_events / window_s,
            }
            rows.append(row)
            print(f"{count:8d}  {row['cpu_us_per_token']:8.1f}  {row['tokens_per_s']:8.0f}")
    return rows


def measure_pause(window_s: float, num_tokens: int) -> dict[str, float]:
    """The longest pause of 16 streams, without and with a long prompt beside them."""
    prompt = request_body("river " * num_tokens, 4)
    with running_server(0.005, "sentence") as (port, server):
        alone = asyncio.run(load(port, 16, 1 << 16, server, window_s))
        beside = asyncio.run(load(port, 16, 1 << 16, server, window_s, prompt))
    print(
        f"\nlongest pause of 16 streams at 5 ms a token: {alone.longest_pause_s * 1e3:.1f} ms, "
        f"with a prompt of {num_tokens} words beside them {beside.longest_pause_s * 1e3:.1f} ms"
    )
    return {"alone_ms": alone.longest_pause_s * 1e3, "beside_ms": beside.longest_pause_s * 1e3}


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 64, 512, 1024])
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument(
        "--prompt", type=int, default=LONG_PROMPT_TOKENS, help="words of the prompt"
    )
    parser.add_argument(
        "--frontend", action="store_true", help="measure a frontend before the server as well"
    )
    parser.add_argument("--vllm", metavar="PYTHON", help="of an environment that has vLLM")
    parser.add_argument(
        "--serve", nargs=3, metavar=("PORT", "INTERVAL", "TEXT"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.serve is not None:
        port, interval, text = options.serve
        serve(int(port), float(interval), text)
        return
    result: dict[str, object] = {
        "cost": measure_cost(options.streams, options.seconds),
        "pause": measure_pause(options.seconds, options.prompt),
    }
    if options.frontend:
        print("\nfrontend", end="")
        result["frontend"] = measure_cost(options.streams, options.seconds, is_frontend=True)
    if options.vllm:
        result["vllm"] = measure_vllm(options.vllm, options.streams, options.seconds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
