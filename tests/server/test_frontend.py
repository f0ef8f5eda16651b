"""A frontend and engines elsewhere: nobody can tell them from one server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import uvicorn
from openai import OpenAI
from scripted_engine import Answer, ScriptedEngine, call_app, delta
from starlette.types import ASGIApp
from varied_requests import CHAT, comparable, folded, varied_requests

from rillm.async_llm import AsyncLLM
from rillm.engine_args import AsyncEngineArgs, RemoteEngineArgs
from rillm.errors import CapacityError, ConfigError, EngineDeadError, InvalidRequestError
from rillm.output_formats import choose_formats
from rillm.remote_llm import RemoteLLM
from rillm.sampling_params import RequestOutputKind, SamplingParams
from rillm.server.app import create_app

SMALL = ["--kv-cache-memory-bytes", str(64 * 2**20), "--num-threads", "1"]
ASK = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0}
DELTAS = SamplingParams(temperature=0, max_tokens=8, output_kind=RequestOutputKind.DELTA)


def free_url() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Serve an application over HTTP, in this loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
    # The test's own signals stay where they are.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def engine_app(engine: Any) -> ASGIApp:
    return create_app(
        engine, model_names=["m"], model_root="root", tokens_only=True, has_prompt_details=True
    )


@asynccontextmanager
async def remote(*urls: str) -> AsyncIterator[RemoteLLM]:
    llm = RemoteLLM(RemoteEngineArgs(engine=list(urls)))
    try:
        yield llm
    finally:
        await llm.aclose()


def face(llm: RemoteLLM | AsyncLLM) -> ASGIApp:
    """The whole OpenAI surface over an engine."""
    formats = choose_formats(llm.directory, llm.get_tokenizer(), "bundled")
    return create_app(llm, model_names=["bundled"], model_root="bundled", formats=formats)


async def idle(llm: AsyncLLM) -> None:
    """Wait until an engine has nothing to do, so that the next request is alone in its batch."""
    # Seen only by asking: it is the other server that notices.
    while llm.get_num_unfinished_requests():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_frontend_and_engine_are_the_server() -> None:
    settings: dict[str, Any] = {"kv_cache_memory_bytes": 64 * 2**20, "num_threads": 1}
    settings["dtype"] = "float32"
    coupled = AsyncLLM.from_engine_args(AsyncEngineArgs(**settings))
    bare = AsyncLLM.from_engine_args(AsyncEngineArgs(**settings, skip_tokenizer_init=True))
    try:
        # A server waits for its engine by itself; these applications have none around them.
        await asyncio.gather(coupled.wait_ready(), bare.wait_ready())
        async with listening(engine_app(bare)) as url, remote(url) as llm:
            apps = face(coupled), face(llm)
            said = b""
            for number, (path, body) in enumerate(varied_requests(200)):
                headers = [("x-request-id", f"request-{number}")]
                one, other = await asyncio.gather(
                    *(call_app(app, path, body, headers=headers) for app in apps)
                )
                await asyncio.gather(idle(coupled), idle(bare))
                assert other.status == one.status == 200, (body, one.body, other.body)
                read = folded if body.get("stream") else comparable
                is_same = read(other.body) == read(one.body)
                assert is_same, (body, one.body, other.body)
                said += one.body
        for what in ("tool_calls", 'reasoning_content":"', '"stop_reason":"', '"tool_calls"'):
            assert what.encode() in said
    finally:
        coupled.shutdown()
        bare.shutdown()


def speaking(*, error: Exception | None = None, holds: bool = False) -> ScriptedEngine:
    """Two tokens, then an end, an error, or nothing."""
    end: Any = error or [delta(0, "", (2,), "stop")]
    steps = [[delta(0, "", (97,))], [delta(0, "", (11,))], *([] if holds else [end])]
    return ScriptedEngine(*steps, holds=holds)


async def left(engine: ScriptedEngine) -> None:
    """Wait until an engine's last request has ended."""
    while engine.num_live:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def ask(llm: RemoteLLM, **fields: Any) -> Answer:
    return await call_app(face(llm), CHAT, ASK | fields)


async def test_engine_that_is_down_or_refuses_is_passed_over() -> None:
    busy, good = ScriptedEngine(CapacityError("full")), speaking()
    broken = ScriptedEngine(EngineDeadError("gone"))
    bare = create_app(busy, model_names=["m"], model_root="root", tokens_only=True)
    async with (
        listening(bare) as first,
        listening(engine_app(broken)) as second,
        listening(engine_app(good)) as third,
        remote(first, free_url(), second, third) as llm,
    ):
        for stream in (False, True, False, True):
            answer = await ask(llm, stream=stream, stream_options=None)
            assert answer.status == 200
            assert b'"finish_reason":"stop"' in answer.body

    assert len(good.seen) == 4
    # Requests take turns, so that each of the others was the first once.
    assert busy.seen
    assert broken.seen


async def test_nothing_is_left_to_ask() -> None:
    busy = ScriptedEngine(CapacityError("full"))
    async with AsyncExitStack() as outer:
        async with listening(engine_app(busy)) as url:
            llm = await outer.enter_async_context(remote(url))
            full = await ask(llm)
            await llm.wait_ready()
        gone = await ask(llm)

    assert full.status == gone.status == 503
    assert full.headers["retry-after"]
    assert full.json()["error"]["type"] == "ServiceUnavailableError"
    assert gone.json()["error"]["message"] == "no engine answers at present"


@pytest.mark.parametrize("stream", [False, True])
async def test_engine_that_fails_midway_is_told(stream: bool) -> None:
    engine, spare = speaking(error=EngineDeadError("gone")), speaking()
    async with (
        listening(engine_app(engine)) as url,
        listening(engine_app(spare)) as other,
        remote(url, other) as llm,
    ):
        answer = await ask(llm, stream=stream)

    assert len(engine.seen) == 1
    if stream:
        *chunks, error, done = answer.events()
        text = "".join(each["choices"][0]["delta"].get("content", "") for each in chunks)
        assert text == llm.get_tokenizer().decode([97, 11])
        assert error["error"]["code"] == 500
        assert done == "[DONE]"
        # Nobody else is asked once tokens have been told.
        assert not spare.seen
    else:
        assert answer.status == 500


async def test_connection_that_breaks_midway_is_told() -> None:
    async def answer_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/generate" not in request:
            body = b'{"data":[{"max_model_len":100}]}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(body))
            writer.write(b"Connection: close\r\n\r\n" + body)
        else:
            chunk = b': hello\n\ndata: {"choices":[{"index":0,"token_ids":[97]}]}\r\n\r\n'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            writer.write(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(chunk), chunk))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer_half, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, remote(f"http://127.0.0.1:{port}") as llm:
        answer = await ask(llm, stream=True)
        assert llm.max_model_len == 100

    *chunks, error, done = answer.events()
    assert chunks[-1]["choices"][0]["delta"]["content"] == llm.get_tokenizer().decode([97])
    assert (error["error"]["type"], done) == ("InternalServerError", "[DONE]")


async def test_refusal_of_the_engine_reaches_the_caller() -> None:
    refusal = InvalidRequestError("n is 4, must be at most 2", param="n")
    async with listening(engine_app(ScriptedEngine(refusal))) as url, remote(url) as llm:
        for stream in (False, True):
            answer = await ask(llm, stream=stream)
            assert answer.status == 400
            assert answer.json()["error"]["param"] == "n"


async def test_abort_ends_here_and_is_told_there() -> None:
    ids: list[str] = []
    told: list[str] = []
    left = asyncio.Event()

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        """An engine that does not see that its client is gone."""
        body, content_type = b"{}", b"application/json"
        if scope["path"] == "/v1/models":
            body = b'{"data":[{}]}'
        elif scope["path"] == "/inference/v1/abort_requests":
            told.extend(json.loads((await receive())["body"])["request_ids"])
            left.set()
        elif scope["path"] == "/inference/v1/generate":
            ids.append(dict(scope["headers"])[b"x-request-id"].decode())
            body, content_type = (
                b'data: {"request_id":"there","choices":[{"index":0,"token_ids":[97]}]}\n\n',
                b"text/event-stream",
            )
        headers = [(b"content-type", content_type)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        more = content_type == b"text/event-stream"
        await send({"type": "http.response.body", "body": body, "more_body": more})
        if more:
            await left.wait()

    name = "ü" * 300
    async with listening(stubborn) as url, remote(url) as llm:
        outputs = llm.generate([97, 11], DELTAS, name)
        first = await anext(outputs)
        assert first.outputs[0].token_ids == [97]
        await llm.abort(["unknown", name])
        [last] = [each async for each in outputs]

    assert last.finished
    assert last.outputs[0].finish_reason == "abort"
    assert llm.get_num_unfinished_requests() == 0
    assert told == ["there"]
    assert [len(each) for each in ids] == [128]


async def test_leaving_a_stream_ends_the_request_there() -> None:
    engine = speaking(holds=True)
    async with listening(engine_app(engine)) as url, remote(url) as llm:
        outputs = llm.generate([97, 11], DELTAS, "a")
        await anext(outputs)
        await outputs.aclose()
        await left(engine)
        assert llm.get_num_unfinished_requests() == 0


async def test_stop_string_is_found_here_and_ends_the_request_there() -> None:
    engine = speaking(holds=True)
    text = RemoteLLM(RemoteEngineArgs(engine=["http://localhost"])).get_tokenizer().decode([97, 11])
    async with listening(engine_app(engine)) as url, remote(url) as llm:
        answer = await ask(llm, stop=[text[-1]])
        await left(engine)

    [choice] = answer.json()["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", text[-1])
    assert choice["message"]["content"] == text[: text.index(text[-1])]
    [(_, params, _, _)] = engine.seen
    assert params.stop is None


async def test_shutdown_ends_streams_with_an_error() -> None:
    engine = speaking(holds=True)
    async with listening(engine_app(engine)) as url, remote(url) as llm:
        outputs = llm.generate([97, 11], DELTAS, "a")
        await anext(outputs)
        llm.shutdown()
        with pytest.raises(EngineDeadError):
            [each async for each in outputs]
        with pytest.raises(EngineDeadError):
            await anext(llm.generate([97], DELTAS, "b"))


@pytest.mark.parametrize("urls", [[], ["localhost:8000"], ["ftp://host"]])
def test_engines_are_named_by_their_url(urls: list[str]) -> None:
    with pytest.raises(ConfigError, match="engine"):
        RemoteEngineArgs(engine=urls)


def test_commands_work_together() -> None:
    def started(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "rillm", *arguments, "--port", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"serves bundled: .* at (http://\S+)$", line):
                return process, found[1]
        raise AssertionError(process.wait())

    engine, url = started("engine", *SMALL)
    frontend, face_url = started("frontend", "--engine", url, "--model", "bundled")
    try:
        with OpenAI(base_url=f"{face_url}/v1", api_key="any") as client:
            whole = client.chat.completions.create(
                model="bundled",
                messages=[{"role": "user", "content": "hello"}],
                max_tokens=4,
                temperature=0,
            )
            chunks = list(
                client.completions.create(model="bundled", prompt="A", max_tokens=4, stream=True)
            )
    finally:
        for process in (frontend, engine):
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)

    assert whole.usage is not None
    assert whole.usage.completion_tokens == 4
    assert chunks[-1].choices[0].finish_reason is not None
    assert (frontend.returncode, engine.returncode) == (0, 0)
