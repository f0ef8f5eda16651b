"""Ending a request from another connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from running_server import RunningServer

LONG: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Tell me a story."}],
    "max_tokens": 1500,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}
NAMED = {"X-Request-Id": "to-be-ended"}


@pytest.fixture
async def client(server: RunningServer) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        yield client


async def events_of(response: httpx2.Response, on_first: Any) -> list[Any]:
    """All events of a stream; calls back when the first text is there."""
    events: list[Any] = []
    async for line in response.aiter_lines():
        if line.startswith("data: {"):
            events.append(json.loads(line[6:]))
            if len(events) == 3:
                await on_first()
    return events


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/requests/to-be-ended/cancel"),
        ("POST", "/v1/requests/chatcmpl-to-be-ended/cancel"),
        ("DELETE", "/v1/requests/to-be-ended"),
    ],
)
async def test_a_stream_ends_with_its_usage(
    client: httpx2.AsyncClient, server: RunningServer, method: str, path: str
) -> None:
    told = []

    async def end() -> None:
        with server.suspended():
            told.append(await client.request(method, path))

    body = LONG | {"n": 2}
    async with client.stream("POST", "/v1/chat/completions", json=body, headers=NAMED) as response:
        events = await events_of(response, end)

    assert told[0].json() == {
        "id": path.split("/")[3],
        "object": "request",
        "status": "cancelled",
    }
    reasons = [each["finish_reason"] for event in events for each in event["choices"]]
    assert [reason for reason in reasons if reason] == ["abort", "abort"]
    assert 0 < events[-1]["usage"]["completion_tokens"] < 3000
    await all_blocks_are_free(server)
    assert (await client.request(method, path)).status_code == 404


async def test_a_whole_answer_ends_too(client: httpx2.AsyncClient, server: RunningServer) -> None:
    body = LONG | {"stream": False, "stream_options": None}
    with server.suspended():
        asked = asyncio.create_task(client.post("/v1/chat/completions", json=body, headers=NAMED))
        while True:
            ended = await client.post("/v1/requests/to-be-ended/cancel")
            if ended.status_code == 200:
                break
            assert ended.json()["error"]["type"] == "NotFoundError"

        answer = (await asked).json()
    assert answer["choices"][0]["finish_reason"] == "abort"
    assert answer["usage"]["completion_tokens"] < 1500
    await all_blocks_are_free(server)


async def test_a_stream_without_reader_can_be_ended_and_forgotten(
    client: httpx2.AsyncClient, server: RunningServer
) -> None:
    headers = NAMED | {"X-On-Disconnect": "continue"}
    async with client.stream(
        "POST", "/v1/chat/completions", json=LONG, headers=headers
    ) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                break

    with server.suspended():
        assert (await client.post("/v1/requests/to-be-ended/cancel")).status_code == 200
    rest = (await client.get("/v1/streams/to-be-ended")).text
    assert '"finish_reason":"abort"' in rest
    assert rest.endswith("data: [DONE]\n\n")
    assert (await client.delete("/v1/requests/to-be-ended")).status_code == 200
    assert (await client.get("/v1/streams/to-be-ended")).status_code == 404
    await all_blocks_are_free(server)


async def all_blocks_are_free(server: RunningServer) -> None:
    info = server.llm.ready_info
    assert info is not None
    async with asyncio.timeout(30):
        while server.llm.engine_stats.num_free_blocks != info.num_blocks:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
