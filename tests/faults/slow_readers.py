"""Readers that take one byte a second, or nothing, beside normal ones.

The slow ones must cost the normal ones nothing but the engine's time, and the server no more memory
than their own output; and they must get all of it when they read on.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
from fault_harness import Answer, Readers, Server, check_idle, fold

NUM_SLOW = int(os.environ.get("RILLM_SLOW_READERS", "24"))
NUM_NORMAL = 20
PATH = "/v1/chat/completions"
BYTES_PER_STREAM = 256 * 2**10
"""What a stream may cost the server besides its own output."""

_WIDE_EVERY = 8
"""One in so many slow readers asks for more than the kernel holds for it."""
_RECEIVE_BUFFER = 4096
_MERGED = 20
"""Tokens of a choice in one event that only a reader that was waited for gets."""


def wide_body(number: int) -> dict[str, Any]:
    """A stream of far more bytes than buffers hold."""
    return slow_body(number) | {"max_tokens": 250, "logprobs": True, "top_logprobs": 20, "n": 2}


def slow_body(number: int) -> dict[str, Any]:
    """A stream of few bytes."""
    return {
        "messages": [{"role": "user", "content": f"Tell me story {number}."}],
        "max_tokens": 40,
        "seed": number,
        "top_k": 20,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


class SlowReader:
    """One connection that is read as slowly as one likes."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self.body = body
        self.received = b""
        address = urlsplit(url)
        self._socket = socket.socket()
        # Before it connects, so that the window is small from the beginning.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket.connect((address.hostname, address.port))
        data = json.dumps(body).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n"
        kind = "Content-Type: application/json\r\nConnection: close\r\n\r\n"
        self._socket.sendall((head + kind).encode() + data)
        self._socket.setblocking(False)

    def read_byte(self) -> None:
        """Take one byte, if there is one."""
        try:
            self.received += self._socket.recv(1)
        except BlockingIOError:
            return

    async def read_rest(self) -> list[str]:
        """Read on to the end, quickly; returns the data of each event."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._socket, 2**20):
            self.received += data
        self.close()
        _, _, body = self.received.partition(b"\r\n\r\n")
        lines = _unchunked(body).decode().split("\n\n")
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

    def close(self) -> None:
        """Go away."""
        self._socket.close()


def _unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(parts)


@dataclass
class Latencies:
    """Gaps between the writes that normal readers saw, in seconds."""

    gaps: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        if len(self.gaps) < 2:
            return "none"
        cuts = statistics.quantiles(self.gaps, n=100)
        return f"{cuts[49] * 1000:.1f} ms in the middle, {cuts[98] * 1000:.1f} ms for 1 in 100"


@dataclass
class SlowOutcome:
    """What a run has seen."""

    alone: Latencies = field(default_factory=Latencies)
    beside_fast: Latencies = field(default_factory=Latencies)
    beside_slow: Latencies = field(default_factory=Latencies)
    memory: int = 0
    """Bytes by which the server grew while the slow readers were there."""
    idle_memory: int = 0
    """Bytes that the server has when all have gone."""
    output: int = 0
    """Bytes that the slow readers were sent, in all."""
    num_merged: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"gaps of normal readers: alone {self.alone}; beside fast ones {self.beside_fast}; "
            f"beside slow ones {self.beside_slow}\n"
            f"{self.memory / 2**20:.1f} MiB more in the server, for {self.output / 2**20:.1f} MiB "
            f"of output, {self.idle_memory / 2**20:.1f} MiB when all have gone; "
            f"{self.num_merged} streams were merged; {len(self.wrong)} wrong"
        )


async def run_slow(server: Server, num_slow: int = NUM_SLOW) -> SlowOutcome:
    """Let normal readers read beside slow ones, and see what both get, and what it costs.

    Raises:
        AssertionError: the server holds something when all have gone.
    """
    outcome = SlowOutcome()
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=server.url, timeout=600, limits=limits) as client:
        bodies = [(wide_body if i % _WIDE_EVERY == 0 else slow_body)(i) for i in range(num_slow)]
        expected = await _normal(client, outcome.alone)
        fast, beside = await asyncio.gather(
            asyncio.gather(*(_fast(client, body) for body in bodies)),
            _normal(client, outcome.beside_fast),
        )
        outcome.wrong += _differences(expected, beside)
        before = await server.held()
        memory = before.pop("memory")

        slow = [SlowReader(server.url, body) for body in bodies]
        reading = asyncio.create_task(_read_slowly(slow[::2]))
        outcome.wrong += _differences(expected, await _normal(client, outcome.beside_slow))
        # Until all of their tokens have been made: what is not read is in the server.
        while (held := await server.held())["used_blocks"]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        outcome.memory = held["memory"] - memory
        reading.cancel()

        num_read = len(slow) * 3 // 4
        for reader, events in zip(slow[:num_read], fast, strict=False):
            _compare(outcome, reader.body, events, await reader.read_rest())
        outcome.output = sum(len(reader.received) for reader in slow[:num_read])
        for reader in slow[num_read:]:
            reader.close()
        await check_idle(server, before)
        outcome.idle_memory = (await server.held())["memory"]
    return outcome


async def _read_slowly(readers: list[SlowReader]) -> None:
    while True:
        for reader in readers:
            reader.read_byte()
        await asyncio.sleep(1)


async def _normal(client: httpx2.AsyncClient, latencies: Latencies) -> list[Answer]:
    return await asyncio.gather(
        *(Readers(client, latencies.gaps).read(i * 4) for i in range(NUM_NORMAL))
    )


async def _fast(client: httpx2.AsyncClient, body: dict[str, Any]) -> list[str]:
    async with client.stream("POST", PATH, json=body) as response:
        lines = [line async for line in response.aiter_lines()]
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def _differences(expected: list[Answer], got: list[Answer]) -> list[str]:
    pairs = zip(expected, got, strict=True)
    return [f"normal reader {i}: {b} != {a}" for i, (a, b) in enumerate(pairs) if a != b]


def _compare(outcome: SlowOutcome, body: dict[str, Any], fast: list[str], slow: list[str]) -> None:
    """A slow reader gets what a fast one got, in larger events, and each finish in its own."""
    answers: list[Answer] = [{}, {}]
    for answer, events in zip(answers, (fast, slow), strict=True):
        for data in events:
            fold(answer, data)
    if answers[0] != answers[1]:
        outcome.wrong.append(f"slow reader of {body}: {answers[1]} != {answers[0]}")
    largest = 0
    for data in slow[:-1]:
        for choice in json.loads(data)["choices"]:
            if choice["finish_reason"] and choice["delta"]:
                outcome.wrong.append(f"a finish came with text: {choice}")
            if choice.get("logprobs"):
                largest = max(largest, len(choice["logprobs"]["content"]))
    if "logprobs" in body:
        # What buffers had no room for came as one piece when there was some.
        outcome.num_merged += largest >= _MERGED
        if largest < _MERGED:
            outcome.wrong.append(f"at most {largest} tokens came in one event of {body}")


async def wait_for_drop(server: Server, num_streams: int) -> None:
    """Readers that take nothing, and stay: the server gives up on them and holds nothing.

    Raises:
        AssertionError: it holds something.
    """
    before = await server.held()
    del before["memory"]
    readers = [SlowReader(server.url, wide_body(i)) for i in range(num_streams)]
    # Each has more to read than there is room for, so none is gone before it is seen.
    while (await server.held())["requests"] < num_streams:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await check_idle(server, before)
    for reader in readers:
        reader.close()
