"""A server that is asked for more than it takes, on every face."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from faces import BODIES, served
from scripted_engine import ScriptedEngine, call_app, delta, new_app
from suspended_cores import core_of, suspended

from rillm.admission import CLIENT
from rillm.server.options import HttpOptions


class AskingEngine(ScriptedEngine):
    """Notes whose requests it gets."""

    def __init__(self) -> None:
        super().__init__([delta(0, "a")], [delta(0, "", [], "stop")])
        self.clients: list[str] = []

    async def open_stream(self, *arguments: Any, **options: Any) -> Any:
        self.clients.append(CLIENT.get())
        return await super().open_stream(*arguments, **options)


@pytest.mark.parametrize("path", BODIES)
async def test_the_engine_hears_whose_request_it_is_and_not_the_key(path: str) -> None:
    engine = AskingEngine()
    app = new_app(engine, HttpOptions(api_key=("secret-a", "secret-b")))

    for key in ("secret-a", "secret-b", "secret-a"):
        body = BODIES[path] | {"model": "scripted"}
        answer = await call_app(app, path, body, headers=[("authorization", f"Bearer {key}")])
        assert answer.status == 200

    first, second, third = engine.clients
    assert first == third != second
    assert "secret" not in first + second
    assert CLIENT.get() == ""


async def test_a_response_in_the_background_is_its_callers_too() -> None:
    engine = AskingEngine()
    app = new_app(engine, HttpOptions(api_key=("a", "b")))
    body = {"input": "hello", "background": True}

    await call_app(app, "/v1/responses", body, headers=[("x-api-key", "b")])
    await engine.arrivals.acquire()

    assert engine.clients == ["key 1"]


async def test_without_keys_all_requests_are_one_clients() -> None:
    engine = AskingEngine()

    await call_app(new_app(engine), "/v1/completions", {"prompt": "a"})

    assert engine.clients == [""]


async def test_what_finds_no_room_is_refused_in_the_words_of_its_api() -> None:
    async with served(max_num_seqs=1, max_waiting_requests=0) as (app, llm):
        begun, gone = asyncio.Event(), asyncio.Event()
        body = {"prompt": "a", "stream": True, "ignore_eos": True, "max_tokens": 2000}
        busy = asyncio.create_task(
            call_app(app, "/v1/completions", body, disconnect=gone, on_write=lambda _: begun.set())
        )
        await begun.wait()
        with suspended(core_of(llm)):
            for path, plain in BODIES.items():
                for is_stream in (False, True):
                    answer = await call_app(app, path, plain | {"stream": is_stream})
                    error = answer.json()["error"]
                    if path == "/v1/messages":
                        assert (answer.status, error["type"]) == (529, "overloaded_error")
                    else:
                        assert (answer.status, error["type"]) == (503, "ServiceUnavailableError")
                    assert answer.headers["retry-after"] == "1"
            metrics = (await call_app(app, "/metrics", b"", method="GET")).body.decode()
            gone.set()
            await busy
        answer = await call_app(app, "/v1/completions", {"prompt": "a", "max_tokens": 1})

    assert answer.status == 200
    assert "rejections_total{" in metrics
    assert " 10.0\n" in metrics.partition("rejections_total{")[2].partition("#")[0]
