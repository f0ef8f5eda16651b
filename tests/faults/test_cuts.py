"""Connections that are cut at random bytes: whoever reads on has lost nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Any

import httpx2
import pytest
from fault_harness import check_idle, request_of, running_server

pytestmark = pytest.mark.timeout(300)

NUM_CUTS = int(os.environ.get("RILLM_CUTS", "200"))
NUM_STREAMS = 24


def stream_of(number: int) -> tuple[str, dict[str, Any]]:
    """A path and a body that streams, of every route that can."""
    path, body = request_of(number)
    messages = [{"role": "user", "content": "Tell me a story about a river."}]
    match number % 6:
        case 4:
            path = "/v1/messages"
            body = {"messages": messages, "max_tokens": 60, "model": "bundled", "temperature": 0}
        case 5:
            path = "/v1/responses"
            body = {"input": messages, "max_output_tokens": 60, "temperature": 0}
    return path, body | {"stream": True}


async def read_first(response: httpx2.Response, seen: bytearray, rng: random.Random) -> None:
    """Read until an event is whole, and cut the connection somewhere in what came after it."""
    async for part in response.aiter_bytes():
        seen += part
        if (end := seen.find(b"\n\n")) >= 0:
            cut = rng.randint(end + 2, len(seen))
            del seen[seen.rfind(b"\n\n", 0, cut) + 2 :]
            return


async def read_some(response: httpx2.Response, seen: bytearray, num_bytes: int | None) -> bool:
    """Read up to `num_bytes` more, keep the events that are whole; returns whether it ended."""
    rest = bytearray()
    async for part in response.aiter_bytes():
        rest += part
        if num_bytes is not None and len(rest) >= num_bytes:
            # What came after the cut is lost, and so is an event that was cut.
            del rest[num_bytes:]
            whole = rest.rfind(b"\n\n")
            seen += rest[: whole + 2] if whole >= 0 else b""
            return False
    seen += rest
    return True


def last_id(seen: bytes) -> str:
    ids = [line[4:] for line in seen.splitlines() if line.startswith(b"id: ")]
    return ids[-1].decode()


async def cut_and_resume(
    client: httpx2.AsyncClient, number: int, num_cuts: int, rng: random.Random
) -> bytes:
    """Read a stream over many connections; returns the bytes of all whole events."""
    path, body = stream_of(number)
    headers = {"X-On-Disconnect": "continue", "X-Request-Id": f"cut-{number}"}
    seen = bytearray()
    async with client.stream("POST", path, json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        # Its id says where to go on.
        await read_first(response, seen, rng)
    assert seen
    ended = False
    for cut in range(num_cuts):
        resume = {"Last-Event-ID": last_id(seen)}
        is_last = cut == num_cuts - 1
        method, where = rng.choice([("POST", path), ("GET", f"/v1/streams/cut-{number}")])
        async with client.stream(method, where, json=body, headers=resume) as response:
            assert response.status_code == 200, await response.aread()
            num_bytes = None if is_last else rng.choice([1, 30, rng.randint(1, 2000), 20_000])
            ended = await read_some(response, seen, num_bytes)
    assert ended
    return bytes(seen)


async def test_cut_streams_are_read_on_without_loss() -> None:
    rng = random.Random(7)
    async with running_server(**{"resume-seconds": "15"}) as server:
        limits = httpx2.Limits(max_connections=64)
        async with httpx2.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
            await cut_and_resume(client, NUM_STREAMS, 2, rng)
            before = await server.held()
            share = -(-NUM_CUTS // NUM_STREAMS)

            async def check(number: int) -> None:
                seen = await cut_and_resume(client, number, share, rng)
                uncut = await client.get(f"/v1/streams/cut-{number}")
                assert seen == uncut.content
                numbers = [int(each.rsplit(b":", 1)[1]) for each in ids_of(seen)]
                assert numbers == list(range(len(numbers)))
                assert len(numbers) == seen.count(b"\n\n")
                if number % 6 < 4:
                    path, body = stream_of(number)
                    plain = await client.post(path, json=body)
                    assert told(seen) == told(plain.content)
                    assert ids_of(plain.content) == []

            await asyncio.gather(*(check(number) for number in range(NUM_STREAMS)))
        await check_idle(server, before)


def ids_of(events: bytes) -> list[bytes]:
    return [line for line in events.splitlines() if line.startswith(b"id: ")]


def told(events: bytes) -> list[Any]:
    """What a stream says, without what differs from answer to answer, as text by choice."""
    said: dict[int, list[Any]] = {}
    for line in events.splitlines():
        if line.startswith(b"data: {"):
            for choice in json.loads(line[6:]).get("choices", ()):
                place = said.setdefault(choice["index"], ["", [], None])
                delta = choice.get("delta", {})
                place[0] += choice.get("text") or delta.get("content") or ""
                place[1] += choice.get("token_ids") or []
                place[2] = choice["finish_reason"] or place[2]
    return [said, events.count(b"[DONE]")]


async def test_stream_that_nobody_comes_back_to_is_aborted() -> None:
    settings = {"resume-seconds": "1", "on-disconnect": "continue", "hang-timeout": "60"}
    async with running_server(**settings) as server:  # noqa: SIM117 - the second needs the first
        async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
            before = await server.held()
            path, body = request_of(0)
            async with client.stream("POST", path, json=body | {"max_tokens": 1500}) as response:
                async for line in response.aiter_lines():
                    if line.startswith("id: "):
                        break
                core = server.core()
                assert core is not None
                core.suspend()
            assert (await server.held())["requests"] == 1
            # It ends because it was left, not because all has been said.
            while (await server.held())["requests"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            core.resume()
            held = await check_idle(server, before)
            gone = await client.get("/v1/streams/" + line[4:].partition(":")[0])
    assert (held["requests"], held["used_blocks"]) == (0, 0)
    assert gone.status_code == 404
