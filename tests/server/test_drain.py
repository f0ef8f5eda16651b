"""A server that is told to stop: what runs ends well, or honestly; what is new is refused."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from faces import BODIES, CHAT, COMPLETIONS, GENERATE, MESSAGES, RESPONSES
from scripted_engine import ScriptedEngine, call_app, delta, new_app
from suspended_cores import cores, suspended


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
async def test_new_requests_are_refused_in_the_words_of_their_api(
    path: str, is_stream: bool
) -> None:
    engine = ScriptedEngine([delta(0, "a")])
    app = new_app(engine)
    app.intake.is_draining = True

    answer = await call_app(app, path, BODIES[path] | {"stream": is_stream})

    error = answer.json()["error"]
    is_messages = path == MESSAGES
    assert answer.status == (529 if is_messages else 503)
    assert error["type"] == ("overloaded_error" if is_messages else "ServiceUnavailableError")
    assert "shutting down" in error["message"]
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["connection"] == "close"
    assert engine.seen == []


async def test_probes_say_that_the_server_drains_and_others_answer() -> None:
    app = new_app(ScriptedEngine())
    app.intake.is_draining = True

    health = await call_app(app, "/health", b"", method="GET")
    ready = await call_app(app, "/ready", b"", method="GET")
    models = await call_app(app, "/v1/models", b"", method="GET")

    assert (health.status, health.json()) == (503, {"status": "draining"})
    assert (ready.status, models.status) == (503, 200)


@pytest.mark.parametrize("path", BODIES)
async def test_what_has_not_ended_ends_with_an_error_of_its_api(path: str) -> None:
    engine = ScriptedEngine([delta(0, "a")], holds=True)
    app = new_app(engine)
    written = asyncio.Event()
    streaming = asyncio.create_task(
        call_app(app, path, BODIES[path] | {"stream": True}, on_write=lambda _: written.set())
    )
    whole = asyncio.create_task(call_app(app, path, BODIES[path]))
    await written.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not app.intake.is_idle

    app.intake.end()
    stream, answer = await streaming, await whole

    assert (stream.status, stream.is_complete) == (200, True)
    events = stream.body.split(b"\n\n")[:-1]
    if path in (CHAT, COMPLETIONS, GENERATE):
        assert events.pop() == b"data: [DONE]"
    assert b"shutting down" in events[-1]
    assert b"error" in events[-1]
    assert answer.status == (529 if path == MESSAGES else 503)
    assert app.intake.is_idle
    assert engine.num_live == 0


@contextmanager
def serving(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its address."""
    command = [sys.executable, "-m", "rillm", "serve", "--port", "0", "--num-threads", "1"]
    # Few chunks: it is the server that is to be busy, not its readers.
    command += ["--kv-cache-memory-bytes", str(64 * 2**20), "--stream-interval", "50", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process, process.stderr.readline().split()[-1]
        finally:
            process.kill()


def long_body(path: str, num_tokens: int) -> dict[str, Any]:
    """A stream that does not end by itself."""
    body = BODIES[path] | {"stream": True, "ignore_eos": True, "max_tokens": num_tokens}
    if path == RESPONSES:
        body["max_output_tokens"] = body.pop("max_tokens")
    if path == MESSAGES:
        body["model"] = "bundled"
    if path == GENERATE:
        options = {"ignore_eos": True, "max_tokens": num_tokens}
        body = {"token_ids": [400], "sampling_params": options, "stream": True}
    return body


async def read(client: httpx2.AsyncClient, path: str, begun: asyncio.Event, n: int) -> str:
    """The text of a stream."""
    text = ""
    async with client.stream("POST", path, json=long_body(path, n)) as response:
        assert response.status_code == 200
        async for part in response.aiter_text():
            text += part
            begun.set()
    return text


async def test_running_streams_end_while_probes_are_told() -> None:
    with serving("--shutdown-timeout", "120") as (process, url):
        async with httpx2.AsyncClient(base_url=url, timeout=120) as client:
            begun = [asyncio.Event() for _ in range(4)]
            reading = [asyncio.create_task(read(client, COMPLETIONS, each, 1000)) for each in begun]
            for each in begun:
                await each.wait()

            (core,) = cores(process.pid)
            with suspended(core):
                process.send_signal(signal.SIGTERM)
                health = await client.get("/health")
                while health.status_code == 200:
                    health = await client.get("/health")
                refused = await client.post(CHAT, json=BODIES[CHAT])
            texts = await asyncio.gather(*reading)
        _, log = await asyncio.to_thread(process.communicate, timeout=60)

    assert health.json() == {"status": "draining"}
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    for text in texts:
        assert '"finish_reason":"length"' in text
        assert text.endswith("data: [DONE]\n\n")
        assert '"error"' not in text
    assert process.returncode == 0
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("shutdown_timeout", "signals"),
    [("0", [signal.SIGTERM]), ("600", [signal.SIGINT, signal.SIGTERM])],
)
async def test_streams_that_outlive_the_timeout_or_meet_a_second_signal_end_with_an_error(
    shutdown_timeout: str, signals: list[signal.Signals]
) -> None:
    with serving("--shutdown-timeout", shutdown_timeout) as (process, url):
        async with httpx2.AsyncClient(base_url=url, timeout=120) as client:
            begun = {path: asyncio.Event() for path in BODIES}
            reading = [
                asyncio.create_task(read(client, path, begun[path], 2000)) for path in BODIES
            ]
            for each in begun.values():
                await each.wait()

            (core,) = cores(process.pid)
            with suspended(core):
                for signum in signals:
                    process.send_signal(signum)
                texts = dict(zip(BODIES, await asyncio.gather(*reading), strict=True))
        _, log = await asyncio.to_thread(process.communicate, timeout=60)

    assert process.returncode == 0
    for path in (CHAT, COMPLETIONS, GENERATE):
        *_, last, done, rest = texts[path].split("\n\n")
        error = json.loads(last.removeprefix("data: "))["error"]
        assert (error["code"], error["type"]) == (503, "ServiceUnavailableError")
        assert (done, rest) == ("data: [DONE]", "")
    assert '"type":"overloaded_error"' in texts[MESSAGES].split("\n\n")[-2]
    assert '"type":"response.failed"' in texts[RESPONSES].split("\n\n")[-2]
    assert len(re.findall(r"outcome=error", log)) == len(BODIES)
    assert "Traceback" not in log
