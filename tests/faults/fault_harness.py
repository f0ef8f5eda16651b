"""A real server, many streams over HTTP, and a killer of its engine core.

Every answer is compared with that of the same request while nothing was disturbed. Afterwards the
server must hold no more than before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
from native_support import is_exact
from suspended_cores import cores

from rillm.engine_args import EngineArgs

IS_EXACT = is_exact(EngineArgs().model_directory())
SERVER = [sys.executable, str(Path(__file__).with_name("telling_server.py")), "serve"]
SETTINGS = {
    "port": "0",
    "dtype": "bfloat16" if IS_EXACT else "float32",
    "num-threads": "1",
    "kv-cache-memory-bytes": str(48 * 2**20),
    "max-num-seqs": "48",
    "hang-timeout": "5",
    "load-timeout": "60",
    "request-log": "off",
}
PROMPTS = ("Tell me a story about a river.", "What is a rill?", "Hello", "Count to ten.", "Why?")
_IDLE_S = 30.0
_PATIENCE_S = 180.0
"""Until something that has to happen counts as never happening."""
MEMORY_SLACK = 48 * 2**20
"""Bytes that buffers and caches of a server may still grow by when they are warm."""

Answer = dict[str, Any]
"""What was said, by choice, however it was cut; and how much was counted."""


@dataclass
class Outcome:
    """What a run has seen."""

    num_streams: int = 0
    num_kills: int = 0
    wrong: list[str] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    """From each kill to the next token of any stream."""

    def __str__(self) -> str:
        times = sorted(self.recoveries_s) or [0.0]
        return (
            f"{self.num_streams} streams, {self.num_kills} kills, {len(self.wrong)} wrong; "
            f"recovery {statistics.median(times):.2f} s in the middle, {times[-1]:.2f} s at most"
        )


def request_of(number: int) -> tuple[str, dict[str, Any]]:
    """A path and a body; the same for the same number, and of every kind."""
    rng = random.Random(number)
    sampling: dict[str, Any] = {
        "max_tokens": rng.randint(20, 100),
        "ignore_eos": True,
        "seed": number,
        "temperature": rng.choice([0.0, 0.7, 1.0, 1.3]),
    }
    if not IS_EXACT:
        # Hardly ever is a draw closer to the edge than rounding then.
        sampling["top_k"] = 20
    sampling |= rng.choice(
        [
            {},
            {"top_p": 0.9},
            {"presence_penalty": 0.7, "frequency_penalty": 0.4},
            {"repetition_penalty": 1.2},
            {"min_tokens": 15},
            {"n": 2, "temperature": 1.0},
        ]
    )
    prompt = rng.choice(PROMPTS)
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    match number % 4:
        case 0:
            return "/v1/chat/completions", {
                "messages": [{"role": "user", "content": prompt}],
                **sampling,
                **stream,
            }
        case 1:
            return "/v1/completions", {"prompt": prompt, **sampling, **stream}
        case 2:
            body = {"token_ids": [rng.randrange(200, 900) for _ in range(30)]}
            return "/inference/v1/generate", body | {"sampling_params": sampling} | stream
        case _:
            return "/v1/completions", {"prompt": prompt, "logprobs": 1, **sampling}


class Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, url: str) -> None:
        self.process = process
        self.url = url
        self._log = log

    def core(self) -> psutil.Process | None:
        """The engine core of the moment."""
        found = cores(self.process.pid)
        return found[0] if found else None

    def log(self) -> str:
        """Everything written so far."""
        return self._log.read_text()

    async def held(self) -> dict[str, int]:
        """What the server holds now; memory in bytes."""
        before = self.log().count("HELD")
        self.process.send_signal(signal.SIGUSR1)
        await _until(lambda: self.log().count("HELD") > before and self.log().endswith("\n"))
        told = [line for line in self.log().splitlines() if line.startswith("HELD")][-1]
        held: dict[str, int] = json.loads(told.removeprefix("HELD"))
        return held | {"memory": psutil.Process(self.process.pid).memory_info().rss}


@asynccontextmanager
async def running_server(**settings: str) -> AsyncIterator[Server]:
    """A server that is ready; settings are flags of `rillm serve`."""
    flags = [part for name, value in (SETTINGS | settings).items() for part in (f"--{name}", value)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen([*SERVER, *flags], stderr=file)  # noqa: ASYNC220
        try:
            await _until(lambda: " at http" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            line = next(line for line in log.read_text().splitlines() if " at http" in line)
            yield Server(process, log, line.split()[-1])
        finally:
            process.kill()
            process.wait()


async def _until(condition: Callable[[], object]) -> None:
    """Wait for something that happens in another process."""
    async with asyncio.timeout(_PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - no event of ours to wait for
            await asyncio.sleep(0.01)


class Readers:
    """Sends requests and folds what comes back."""

    def __init__(self, client: httpx2.AsyncClient, gaps: list[float] | None = None) -> None:
        """Read with a client; `gaps` gets the seconds between the events of a stream."""
        self._client = client
        self._gaps = [] if gaps is None else gaps
        self.token_arrived = asyncio.Event()

    async def read(self, number: int) -> Answer:
        """The answer to request `number`; never an exception of a broken stream."""
        path, body = request_of(number)
        try:
            if not body.get("stream"):
                response = await self._client.post(path, json=body)
                self.token_arrived.set()
                return _whole(response.status_code, response.json())
            answer: Answer = {}
            async with self._client.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    return {"error": (await response.aread()).decode()}
                last_s = 0.0
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        self.token_arrived.set()
                        now_s = time.monotonic()
                        if last_s:
                            self._gaps.append(now_s - last_s)
                        last_s = now_s
                        fold(answer, line.removeprefix("data: "))
        except httpx2.HTTPError as error:
            return {"broken": repr(error)}
        return answer


def _whole(status: int, body: dict[str, Any]) -> Answer:
    if status != 200:
        return {"error": body}
    answer: Answer = {"usage": body["usage"]["completion_tokens"]}
    for choice in body["choices"]:
        answer[str(choice["index"])] = [
            choice["text"],
            choice["finish_reason"],
            choice["logprobs"]["tokens"],
        ]
    return answer


def fold(answer: Answer, data: str) -> None:
    """Add one event of a stream."""
    if data == "[DONE]":
        answer["done"] = answer.get("done", 0) + 1
        return
    event = json.loads(data)
    if "error" in event:
        answer["error"] = event["error"]
    if event.get("usage"):
        answer["usage"] = event["usage"]["completion_tokens"]
    for choice in event.get("choices", ()):
        said = answer.setdefault(str(choice["index"]), ["", None, []])
        delta = choice.get("delta", {})
        said[0] += choice.get("text") or delta.get("content") or ""
        said[0] += delta.get("reasoning_content") or ""
        said[1] = choice["finish_reason"] or said[1]
        said[2] += choice.get("token_ids") or []


async def run(
    server: Server, *, num_streams: int, num_kills: int, num_distinct: int, seed: int
) -> Outcome:
    """Read streams while the core is killed, and compare them with the same ones undisturbed.

    Args:
        server: runs already.
        num_streams: to read at least; more are read until the last kill is over.
        num_kills: of the core, one in five by stopping it.
        num_distinct: requests that take turns.
        seed: of the moments.
    """
    outcome = Outcome()
    limits = httpx2.Limits(max_connections=64)
    async with httpx2.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
        readers = Readers(client)
        expected = await asyncio.gather(*(readers.read(number) for number in range(num_distinct)))
        for number, answer in enumerate(expected):
            assert "error" not in answer, (number, answer)
            assert "broken" not in answer, (number, answer)
        killer = asyncio.create_task(
            _kill(server, readers, outcome, num_kills, random.Random(seed))
        )
        numbers = iter(range(10**9))

        async def reader() -> None:
            while not outcome.wrong and (outcome.num_streams < num_streams or not killer.done()):
                number = next(numbers) % num_distinct
                answer = await readers.read(number)
                outcome.num_streams += 1
                if answer != expected[number]:
                    outcome.wrong.append(f"{request_of(number)}: {answer} != {expected[number]}")

        await asyncio.gather(*(reader() for _ in range(min(24, num_streams))))
        if outcome.wrong:
            killer.cancel()
        await asyncio.wait([killer])
        if not killer.cancelled():
            killer.result()
    return outcome


async def _kill(
    server: Server, readers: Readers, outcome: Outcome, num_kills: int, rng: random.Random
) -> None:
    for _ in range(num_kills):
        await asyncio.sleep(rng.choice([0.0, 0.05, rng.uniform(0, 1.5)]))
        await _until(lambda: server.core() is not None)
        core = server.core()
        killed_s = time.monotonic()
        is_stopped = rng.random() < 0.2
        # It may have gone just now; it comes again.
        if core is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                core.send_signal(signal.SIGSTOP if is_stopped else signal.SIGKILL)
        outcome.num_kills += 1
        if rng.random() < 0.2:
            # The next one goes while it still loads.
            continue
        # What was on its way still arrives; then nothing until the next core.
        await asyncio.sleep(0.2)
        readers.token_arrived.clear()
        async with asyncio.timeout(_PATIENCE_S):
            await readers.token_arrived.wait()
        if not is_stopped:
            outcome.recoveries_s.append(time.monotonic() - killed_s)


async def check_idle(server: Server, before: dict[str, int]) -> dict[str, int]:
    """Wait until the server holds no more than before.

    Raises:
        AssertionError: it does not come to that.
    """
    deadline = time.monotonic() + _IDLE_S
    while True:
        held = await server.held()
        over = {
            name: (held[name], value)
            for name, value in before.items()
            if held[name] > value + (MEMORY_SLACK if name == "memory" else 0)
        }
        if not over:
            return held
        assert time.monotonic() < deadline, f"holds more than before: {over}\n{server.log()}"
        await asyncio.sleep(0.1)


async def rounds(minutes: float, num_streams: int, num_kills: int, seed: int) -> Outcome:
    """Run again and again for some time, always on the same server; prints each outcome."""
    deadline = time.monotonic() + 60 * minutes
    async with running_server() as server:
        await run(server, num_streams=24, num_kills=1, num_distinct=24, seed=seed)
        before = await server.held()
        while True:
            outcome = await run(
                server,
                num_streams=num_streams,
                num_kills=num_kills,
                num_distinct=60,
                seed=seed,
            )
            held = await check_idle(server, before)
            print(f"seed {seed}: {outcome}; holds {held}", flush=True)  # noqa: T201
            for wrong in outcome.wrong:
                print(wrong, flush=True)  # noqa: T201
            if outcome.wrong or time.monotonic() >= deadline:
                return outcome
            seed += 1
