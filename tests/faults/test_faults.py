"""A short run of the fault harness, and the end of a server whose engine cannot be kept alive."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re

import httpx2
import psutil
import pytest
from fault_harness import MEMORY_SLACK, Server, check_idle, request_of, run, running_server
from slow_readers import BYTES_PER_STREAM, NUM_SLOW, run_slow, wait_for_drop

pytestmark = pytest.mark.timeout(300)


async def test_streams_survive_kills_and_leave_nothing_behind() -> None:
    async with running_server() as server:
        await run(server, num_streams=16, num_kills=0, num_distinct=16, seed=0)
        before = await server.held()

        await check_probes(server)
        outcome = await run(server, num_streams=40, num_kills=2, num_distinct=16, seed=1)

        assert outcome.wrong == []
        assert outcome.num_kills == 2
        assert outcome.num_streams >= 40
        held = await check_idle(server, before)
        assert (held["requests"], held["journal_tokens"], held["used_blocks"]) == (0, 0, 0)


async def check_probes(server: Server) -> None:
    """Kill an idle core: probes say so until there is another one."""
    seen = []
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
        assert (await client.get("/health")).status_code == 200
        core = server.core()
        assert core is not None
        core.kill()
        while "restarting" not in seen or seen[-1] != "ok":
            health = await client.get("/health")
            seen.append(health.json()["status"])
            assert (health.status_code == 200) == (seen[-1] == "ok")
        metrics = (await client.get("/metrics")).text
    assert set(seen) <= {"ok", "restarting"}
    (line,) = re.findall(r"^rillm:engine_restarts_total{.*} (.+)$", metrics, re.MULTILINE)
    assert line == "1.0"


async def test_slow_readers_cost_their_own_output_and_lose_nothing() -> None:
    async with running_server() as server:
        # So that buffers and caches are warm.
        first = await run_slow(server)
        outcome = await run_slow(server)

    assert outcome.wrong == []
    assert outcome.num_merged > 0
    assert outcome.memory <= outcome.output + NUM_SLOW * BYTES_PER_STREAM
    assert outcome.idle_memory <= first.idle_memory + MEMORY_SLACK


async def test_readers_that_take_nothing_are_dropped() -> None:
    async with running_server(**{"write-timeout": "2"}) as server:
        await wait_for_drop(server, 3)


async def test_server_whose_engine_stays_dead_says_so_and_exits() -> None:
    async with running_server(**{"max-restarts": "0"}) as server:
        core = server.core()
        assert core is not None
        path, body = request_of(0)
        # Long, so that it is there yet when its first event has been read.
        body |= {"max_tokens": 1500, "n": 8}
        events = []
        async with (
            httpx2.AsyncClient(base_url=server.url, timeout=60) as client,
            client.stream("POST", path, json=body) as response,
        ):
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    events.append(line.removeprefix("data: "))
                    with contextlib.suppress(psutil.NoSuchProcess):
                        core.kill()
        code = await asyncio.to_thread(server.process.wait, 30)
        log = server.log()

    assert response.status_code == 200
    assert json.loads(events[-2])["error"]["message"].startswith("The engine has stopped")
    assert events[-1] == "[DONE]"
    assert code == 1
    assert "was killed by SIGKILL" in log
    assert "Traceback" not in log
    assert not psutil.pid_exists(core.pid) or core.status() == psutil.STATUS_ZOMBIE
