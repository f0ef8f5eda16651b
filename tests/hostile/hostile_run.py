"""Sends bad inputs to a real server while a good stream is read, and looks what they have done."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field

import httpx2
from bad_inputs import GOOD, Case, case_of
from faults.fault_harness import Readers, Server, check_idle

SETTINGS = {"response-store-count": "20"}
"""Of the server: responses are kept on purpose, and would look like a leak."""
_PATIENCE_S = 2.0
"""Until the rest of an answer is not waited for: the client hangs up then."""
_SILENCE_S = 60.0
"""Until a server that says nothing at all counts as stuck."""
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_GOOD_STREAM = 1
"""Number of the request that is read all along."""


@dataclass
class Harm:
    """What a run has seen."""

    num_cases: int = 0
    num_streams: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    """0: the server said nothing."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.num_cases} cases, {self.num_streams} good streams beside them, "
            f"{len(self.wrong)} wrong; statuses {dict(sorted(self.statuses.items()))}"
        )


async def warm_up(server: Server) -> None:
    """Send every good body once, so that what is made on first use is there."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
        for path, body in GOOD.items():
            answer = await client.post(path, json=body)
            assert answer.status_code == 200, (path, answer.text)


async def idle(server: Server) -> dict[str, int]:
    """What a server holds that has nothing to do."""
    return await check_idle(server, {"requests": 0, "journal_tokens": 0, "used_blocks": 0})


async def run_cases(server: Server, first: int, count: int, num_senders: int = 6) -> Harm:
    """Send cases.

    Args:
        server: runs already.
        first: number of the first case.
        count: of cases.
        num_senders: connections at a time.
    """
    harm = Harm()
    numbers = iter(range(first, first + count))
    async with httpx2.AsyncClient(base_url=server.url, timeout=300) as client:
        readers = Readers(client)
        expected = await readers.read(_GOOD_STREAM)

        async def sender() -> None:
            for number in numbers:
                await _try(server, case_of(number), harm)

        async def reader() -> None:
            while True:
                answer = await readers.read(_GOOD_STREAM)
                harm.num_streams += 1
                if answer != expected:
                    harm.wrong.append(f"a good stream was disturbed: {answer}")

        sending = asyncio.gather(*(sender() for _ in range(num_senders)))
        reading = asyncio.create_task(reader())
        await sending
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
    return harm


async def _try(server: Server, case: Case, harm: Harm) -> None:
    address = urllib.parse.urlsplit(server.url)
    harm.num_cases += 1
    received = b""
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        with contextlib.suppress(ConnectionError):
            for piece in case.pieces:
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                else:
                    writer.write(piece)
                    await writer.drain()
        received = await _received(reader, _SILENCE_S if case.is_whole else _PATIENCE_S)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    if case.is_whole and not received:
        harm.wrong.append(f"{case.name}: no answer")
    _judge(case, received, harm)


async def _received(reader: asyncio.StreamReader, silence_s: float) -> bytes:
    """What comes back, as far as it comes in time."""
    parts: list[bytes] = []
    with contextlib.suppress(ConnectionError, TimeoutError):
        while True:
            async with asyncio.timeout(_PATIENCE_S if parts else silence_s):
                part = await reader.read(65536)
            if not part:
                break
            parts.append(part)
    return b"".join(parts)


def _judge(case: Case, received: bytes, harm: Harm) -> None:
    found = _STATUS.match(received)
    status = int(found[1]) if found else 0
    harm.statuses[status] += 1
    told = received.partition(b"\r\n\r\n")[2]
    is_failure = status >= 500 or b"InternalServerError" in told or b'"api_error"' in told
    if is_failure and status != 501:
        shown = [each if isinstance(each, float) else each[-600:] for each in case.pieces]
        harm.wrong.append(f"{case.name}: {received[:600]!r} to {shown!r}")


async def check_unharmed(server: Server, core_id: int, before: dict[str, int]) -> dict[str, int]:
    """Check that the server and its engine are the same ones, and hold no more than before.

    Raises:
        AssertionError: they are not.
    """
    assert server.process.poll() is None, server.log()
    core = server.core()
    assert core is not None
    assert core.pid == core_id, server.log()
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
        health = await client.get("/health")
        assert (health.status_code, json.loads(health.text)["status"]) == (200, "ok")
        metrics = (await client.get("/metrics")).text
    (restarts,) = re.findall(r"^rillm:engine_restarts_total{.*} (.+)$", metrics, re.MULTILINE)
    assert restarts == "0.0"
    log = server.log()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:6000]
    return await check_idle(server, before)
