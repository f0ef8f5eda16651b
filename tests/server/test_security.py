"""What docs/security.md states of keys, routes, defaults, heads and bodies."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hostile_schemas import HOSTILE, nested
from scripted_engine import (
    BUNDLED_TOKENIZER,
    ScriptedEngine,
    SpeakingEngine,
    call,
    call_app,
    delta,
    new_app,
)

import rillm
from rillm.errors import InvalidRequestError
from rillm.formats.registry import combine
from rillm.output_formats import OutputFormats
from rillm.sampling_params import MAX_STOP_STRINGS, MAX_STRING_CHARACTERS, SamplingParams
from rillm.server import http_connection, protocol
from rillm.server.config import ListenConfig
from rillm.server.http_connection import HttpConnection
from rillm.server.options import HttpOptions
from rillm.server.paths import is_open

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
SECRET = "sk-not-to-be-seen"
OPTIONS = HttpOptions(api_key=(SECRET,), enable_tokenizer_info_endpoint=True)
SOURCE = Path(rillm.__file__).parent
DANGEROUS = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}


def speaking() -> ScriptedEngine:
    return ScriptedEngine([delta(0, "a")], [delta(0, "b", [8, 9], "stop")])


async def operations() -> list[tuple[str, str]]:
    """Every path and method of the application."""
    answer = await call_app(new_app(speaking(), OPTIONS), "/openapi.json", b"", method="GET")
    return [
        (re.sub(r"\{\w+\}", "a", path), method.upper())
        for path, methods in answer.json()["paths"].items()
        for method in methods
        if method in ("get", "post", "put", "patch", "delete")
    ]


async def test_no_route_does_anything_without_a_key_but_those_that_only_tell() -> None:
    found = await operations()
    assert (CHAT, "POST") in found
    assert len(found) > 25
    for path, method in found:
        engine = speaking()
        answer = await call_app(new_app(engine, OPTIONS), path, HELLO, method=method)
        if is_open(path):
            assert method == "GET" or path == "/ping"
        else:
            assert answer.status == 401, (method, path)
        assert engine.seen == []


@pytest.mark.parametrize("form", ["text", "json"])
async def test_keys_are_never_logged_and_never_answered(
    form: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    near = SECRET[:-1] + "x"
    headers = [
        [("authorization", f"Bearer {SECRET}")],
        [("authorization", f"Bearer {near}")],
        [("x-api-key", SECRET)],
        [("x-api-key", near)],
        [("authorization", SECRET)],
        [("authorization", f"Bearer {SECRET}"), ("x-request-id", "é")],
    ]
    answers = []
    for sent in headers:
        for body in (HELLO, b"{", {"messages": 5}):
            app = new_app(speaking(), HttpOptions(api_key=(SECRET,), request_log=form))
            answers.append(await call_app(app, CHAT, body, headers=sent))
    failing = ScriptedEngine(RuntimeError("broken"))
    app = new_app(failing, HttpOptions(api_key=(SECRET,), request_log=form))
    with pytest.raises(RuntimeError):
        await call_app(app, CHAT, HELLO, headers=headers[0])

    assert {answer.status for answer in answers} >= {200, 400, 401}
    assert "outcome" in caplog.text
    for text in (caplog.text, *(answer.body.decode() for answer in answers)):
        assert SECRET[:12] not in text
    assert SECRET not in repr(OPTIONS)


def test_a_server_listens_on_this_machine_and_answers_no_other_origin_by_default() -> None:
    config = ListenConfig()
    assert config.host == "127.0.0.1"
    assert config.allowed_origins == ()
    assert not config.allow_credentials


async def test_a_page_of_another_origin_gets_no_leave_to_read_and_cannot_send_json() -> None:
    headers = [("origin", "https://evil.example"), ("access-control-request-method", "POST")]
    app = new_app(speaking())
    for method, body in (("OPTIONS", b""), ("POST", HELLO)):
        answer = await call_app(app, CHAT, body, method=method, headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = await call_app(app, CHAT, HELLO, content_type=kind)
        assert answer.status == 400


async def test_a_body_has_to_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.05)
    async with served() as address:
        reader, writer = await asyncio.open_connection(*address)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        writer.write(head.encode() + b"Content-Length: 100\r\n\r\n{")
        assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        writer.close()


async def test_a_head_has_to_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "HEAD_SECONDS", 0.5)
    async with served() as address:
        for sent in (b"", b"GET /health HTTP/1.1\r\nHost: a\r\n"):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(sent)
            assert await _rest(reader) == b""
            writer.close()
        # After an answer, the next head has its own time.
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        while await reader.readline() != b"\r\n":
            pass
        writer.write(b"GET /health HT")
        assert b"HTTP/1.1" not in await _rest(reader)
        writer.close()


@pytest.mark.parametrize(
    "lines",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %d\r\n" % (i, i) for i in range(9000)),
    ],
)
@pytest.mark.parametrize("end", [b"\r\n", b""])
async def test_a_head_is_not_larger_than_it_may_be(lines: bytes, end: bytes) -> None:
    async with served() as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(lines + end)
        assert (await _rest(reader)).startswith(b"HTTP/1.1 400 ")
        writer.close()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /health HTTP/1.1\r\nX: " + b"x" * 60_000 + b"\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        writer.close()


def test_stop_strings_are_bounded() -> None:
    with pytest.raises(InvalidRequestError, match="stop has 129"):
        SamplingParams(stop=["a"] * (MAX_STOP_STRINGS + 1))
    with pytest.raises(InvalidRequestError, match="stop holds a string of 4097"):
        SamplingParams(stop="a" * (MAX_STRING_CHARACTERS + 1))


def test_nothing_reads_code_from_data() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    assert DANGEROUS.isdisjoint(each.name.split(".")[0] for each in names), path
                case ast.ImportFrom(module=module):
                    assert str(module).split(".")[0] not in DANGEROUS, path
                case ast.Call(func=ast.Name(id=name)):
                    assert name not in ("eval", "exec", "compile"), path
                case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr=name)):
                    assert name != "load", path


def test_a_model_folder_brings_no_code(tmp_path: Path) -> None:
    bundled = SOURCE / "bundled"
    for file in bundled.rglob("*"):
        if file.is_file() and file.suffix != ".py":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    trap = tmp_path / "ran"
    for name in ("modeling_custom.py", "tokenization_custom.py", "sitecustomize.py"):
        (tmp_path / name).write_text(f"open({str(trap)!r}, 'w')")
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    script = "import sys; from rillm import LLM; LLM(sys.argv[1], num_threads=1).generate('a')"
    environment = os.environ | {"PYTHONPATH": str(SOURCE.parent)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
    assert not trap.exists()


@pytest.mark.parametrize("policy", ["auto", "always"])
@pytest.mark.parametrize(
    ("schema", "param"),
    [
        (nested(40), "tools[0].function.parameters"),
        (HOSTILE["alternatives that double"], "tools"),
        (HOSTILE["long pattern"], "tools"),
        ({"properties": {"a": {"enum": ["a" * 600_000]}}}, "tools"),
        ({"type": "array"}, "tools"),
    ],
)
async def test_functions_that_are_too_much_are_refused_by_name(
    schema: Any, param: str, policy: Any
) -> None:
    formats = OutputFormats(combine("qwen3_coder", None), BUNDLED_TOKENIZER, tool_strict=policy)
    engine = SpeakingEngine("a", formats=formats)
    function = {"name": "f", "parameters": schema}
    body = HELLO | {"tools": [{"type": "function", "function": function}]}
    answer = await call(engine, CHAT, body | {"tool_choice": "required"})
    assert (answer.status, answer.json()["error"]["param"]) == (400, param)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[str, int]]:
    """A scripted engine behind the connections of `rillm serve`."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        new_app(speaking()), http=HttpConnection, log_config=None, lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        await serving


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the connection ends."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := await reader.read(65536):
            parts.append(part)
    return b"".join(parts)
