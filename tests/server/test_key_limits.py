"""What one API key may ask for, and what it is told beyond that."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from faces import BODIES, COMPLETIONS
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import ScriptedEngine, call_app, delta, new_app

from rillm.errors import RateLimitError
from rillm.server.key_limits import KeyLimits
from rillm.server.options import HttpOptions

KEYS = ("one", "two")


def shown(key: str) -> list[tuple[str, str]]:
    return [("x-api-key", key)]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
async def test_a_key_with_enough_running_is_refused_and_others_are_not(
    path: str, is_stream: bool
) -> None:
    engine = ScriptedEngine([delta(0, "a")], holds=True)
    app = new_app(engine, HttpOptions(api_key=KEYS, max_requests_per_key=2))
    gone = asyncio.Event()

    def ask(key: str) -> asyncio.Task[Any]:
        body = {"prompt": "a"}
        return asyncio.create_task(
            call_app(app, COMPLETIONS, body, headers=shown(key), disconnect=gone)
        )

    running = [ask("one"), ask("one"), ask("two")]
    for _ in running:
        await engine.arrivals.acquire()

    body = BODIES[path] | {"stream": is_stream}
    refused = await call_app(app, path, body, headers=shown("one"))
    metrics = (await call_app(app, "/metrics", b"", method="GET")).body.decode()
    gone.set()
    await asyncio.gather(*running)

    error = refused.json()["error"]
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    is_messages = path == "/v1/messages"
    assert error["type"] == ("rate_limit_error" if is_messages else "RateLimitError")
    assert "2 requests" in error["message"]
    assert len(engine.seen) == 3
    assert 'reason="key_limit"} 1.0' in metrics
    assert engine.num_live == 0
    for _ in range(5):
        again = ask("one")
        await engine.arrivals.acquire()
        await again


async def test_refused_and_failed_requests_give_back_their_place() -> None:
    engine = ScriptedEngine([delta(0, "a")], [delta(0, "", [], "stop")])
    app = new_app(engine, HttpOptions(max_requests_per_key=1))

    for body in ({"prompt": "a", "temperature": 9}, {"prompt": ["a", "b"]}, {"prompt": "a"}):
        answer = await call_app(app, COMPLETIONS, body)

    assert answer.status == 200


async def test_tokens_are_counted_when_a_request_has_ended() -> None:
    engine = ScriptedEngine([delta(0, "a", [7] * 50)], [delta(0, "", [], "stop")])
    app = new_app(engine, HttpOptions(tokens_per_minute_per_key=60))
    body = {"prompt": [5] * 40}

    first = await call_app(app, COMPLETIONS, body)
    second = await call_app(app, COMPLETIONS, body)

    # 90 of 60 were used: a second gives one, and one is needed.
    assert (first.status, second.status) == (200, 429)
    assert 25 <= int(second.headers["retry-after"]) <= 31
    assert "60 tokens a minute" in json.dumps(second.json())


@given(
    per_minute=st.integers(1, 50),
    waits=st.lists(st.floats(0, 100, allow_nan=False), max_size=60),
)
def test_requests_a_minute_are_never_more_and_waiting_as_told_helps(
    per_minute: int, waits: list[float]
) -> None:
    now = [1000.0]
    limits = KeyLimits(HttpOptions(requests_per_minute_per_key=per_minute), lambda: now[0])
    taken: list[float] = []
    for wait in waits:
        now[0] += wait
        try:
            limits.enter("key")
        except RateLimitError as error:
            now[0] += error.retry_after_s
            limits.enter("key")
        limits.leave("key", 5)
        taken.append(now[0])
        limits.enter(f"other {now[0]}")

    # Within a minute a full bucket, and what flows into it meanwhile.
    for start in taken:
        assert sum(start <= each < start + 60 for each in taken) <= 2 * per_minute
