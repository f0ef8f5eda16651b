"""Requests that may take so long only, by the header `X-Request-Timeout`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from faces import BODIES, COMPLETIONS, served
from scripted_engine import ScriptedEngine, call_app, delta, new_app
from suspended_cores import core_of, suspended


def within(seconds: str) -> list[tuple[str, str]]:
    return [("x-request-timeout", seconds)]


@pytest.mark.parametrize("path", BODIES)
async def test_what_is_not_done_in_time_ends_with_an_error_of_its_api(path: str) -> None:
    engine = ScriptedEngine([delta(0, "a")], holds=True)
    app = new_app(engine)
    body = BODIES[path] | {"model": "scripted"}

    whole = await call_app(app, path, body, headers=within("0.6"))
    stream = await call_app(app, path, body | {"stream": True}, headers=within("0.6"))

    kind = "timeout_error" if path == "/v1/messages" else "DeadlineExceededError"
    assert (whole.status, whole.json()["error"]["type"]) == (504, kind)
    assert whole.headers["x-should-retry"] == "false"
    assert (stream.status, stream.is_complete) == (200, True)
    events = [each for each in stream.body.split(b"\n\n") if each and b"[DONE]" not in each]
    assert b"within its 0.6 seconds" in events[-1]
    assert b"error" in events[-1]
    assert engine.num_live == 0


async def test_reader_that_takes_nothing_does_not_keep_the_engine() -> None:
    engine = ScriptedEngine(*([delta(0, "a")] for _ in range(3)), holds=True)
    stalled, gone = asyncio.Event(), asyncio.Event()
    body = {"prompt": "a", "stream": True}
    answering = asyncio.create_task(
        call_app(
            new_app(engine),
            COMPLETIONS,
            body,
            headers=within("0.6"),
            stalled=stalled,
            disconnect=gone,
        )
    )
    await stalled.wait()

    async with asyncio.timeout(30):
        while engine.num_live:  # noqa: ASYNC110 - no event of ours to wait for
            await asyncio.sleep(0.01)

    gone.set()
    await answering


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e3", "", "ten", "86401", "١"])
async def test_time_that_is_none_is_refused(seconds: str) -> None:
    engine = ScriptedEngine([delta(0, "a")])
    headers = [("x-request-timeout", seconds.encode().decode("latin-1"))]

    answer = await call_app(new_app(engine), COMPLETIONS, {"prompt": "a"}, headers=headers)

    error = answer.json()["error"]
    assert (answer.status, error["param"]) == (400, "X-Request-Timeout")
    assert engine.seen == []


async def test_answer_that_is_done_in_time_is_whole() -> None:
    engine = ScriptedEngine([delta(0, "a")], [delta(0, "b", [8], "stop")])

    answer = await call_app(new_app(engine), COMPLETIONS, {"prompt": "a"}, headers=within("60"))

    assert answer.json()["choices"][0]["text"] == "ab"


async def test_request_that_waits_too_long_never_runs_and_leaves_nothing() -> None:
    async with served(max_num_seqs=1) as (app, llm):
        gone, begun = asyncio.Event(), asyncio.Event()
        body: dict[str, Any] = {"prompt": "a", "stream": True, "ignore_eos": True}
        busy = asyncio.create_task(
            call_app(
                app,
                COMPLETIONS,
                body | {"max_tokens": 2000},
                disconnect=gone,
                on_write=lambda _: begun.set(),
            )
        )
        await begun.wait()

        with suspended(core_of(llm)):
            late = await call_app(app, COMPLETIONS, {"prompt": "b"}, headers=within("0.1"))

            assert late.status == 504
            assert llm.get_num_unfinished_requests() == 1
        metrics = (await call_app(app, "/metrics", b"", method="GET")).body.decode()
        gone.set()
        await busy
        assert llm.get_num_unfinished_requests() == 0
        # Only what ran was computed: one prompt.
        (line,) = [each for each in metrics.splitlines() if "prompt_tokens_total{" in each]
        assert line.endswith(" 1.0")
