"""What an operator sets and reads: keys, origins, paths, limits, ids, log lines, probes."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import (
    BUNDLED_TOKENIZER,
    ScriptedEngine,
    SpeakingEngine,
    call,
    call_app,
    delta,
    new_app,
)

from rillm.errors import CapacityError, ConfigError, EngineGenerateError
from rillm.formats.registry import combine
from rillm.output_formats import OutputFormats
from rillm.server.config import ListenConfig
from rillm.server.options import HttpOptions

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
GENERATE = "/inference/v1/generate"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
FORMATS = OutputFormats(combine("hermes", "qwen3"), BUNDLED_TOKENIZER)
TIDE = '<tool_call>\n{"name": "tide", "arguments": {"port": "Brest"}}\n</tool_call>'
REQUEST = HELLO | {"tools": [{"type": "function", "function": {"name": "tide"}}]}
OPEN = ["/health", "/ready", "/ping", "/version", "/metrics", "/load", "/docs", "/openapi.json"]


def speaking() -> ScriptedEngine:
    return ScriptedEngine([delta(0, "a")], [delta(0, "b", [8, 9], "stop")])


@pytest.mark.parametrize(
    ("is_loaded", "errored", "status"), [(False, False, 503), (True, False, 200), (True, True, 503)]
)
async def test_ready_says_whether_requests_are_served(
    is_loaded: bool, errored: bool, status: int
) -> None:
    engine = ScriptedEngine()
    engine.ready_info = object() if is_loaded else None
    engine.errored = errored

    answer = await call(engine, "/ready", b"", method="GET")

    assert (answer.status, answer.json()) == (status, {"ready": status == 200})


async def test_load_counts_requests_that_are_being_answered() -> None:
    engine, gone = ScriptedEngine([delta(0, "a")], holds=True), asyncio.Event()
    app = new_app(engine)

    async def load() -> Any:
        return (await call_app(app, "/load", b"", method="GET")).json()["server_load"]

    before = await load()
    answering = asyncio.create_task(call_app(app, CHAT, HELLO | {"stream": True}, disconnect=gone))
    await engine.arrivals.acquire()
    during = await load()
    gone.set()
    await answering

    assert (before, during, await load()) == (0, 1, 0)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("authorization", "Bearer second-kéy"),
        ("authorization", "bearer first"),
        ("x-api-key", "first"),
    ],
)
async def test_any_of_the_keys_opens(header: str, value: str) -> None:
    engine = speaking()
    app = new_app(engine, HttpOptions(api_key=("first", "second-kéy")))

    answer = await call_app(app, CHAT, HELLO, headers=[(header, value)])

    assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer firs")],
        [("authorization", "Bearer first2")],
        [("authorization", "Basic first")],
        [("authorization", "first")],
        [("authorization", "Bearer ")],
        [("x-api-key", "FIRST")],
    ],
)
@pytest.mark.parametrize("path", [CHAT, GENERATE, "/v1/models", "/v1/nothing", "/nothing"])
async def test_without_a_key_nothing_is_done(path: str, headers: list[tuple[str, str]]) -> None:
    engine = speaking()
    app = new_app(engine, HttpOptions(api_key=("first",)))

    answer = await call_app(app, path, HELLO, headers=headers)

    error = answer.json()["error"]
    assert (answer.status, error["code"], error["type"]) == (401, 401, "Unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert engine.seen == []


@pytest.mark.parametrize("root_path", ["", "/llm"])
@pytest.mark.parametrize("path", OPEN)
async def test_probes_need_no_key(path: str, root_path: str) -> None:
    app = new_app(ScriptedEngine(), HttpOptions(api_key=("first",), root_path=root_path))

    answer = await call_app(app, root_path + path, b"", method="GET")

    assert answer.status == 200


@pytest.mark.parametrize("prefix", ["", "/llm"])
async def test_root_path_may_be_sent_or_stripped(prefix: str) -> None:
    engine = speaking()
    app = new_app(engine, HttpOptions(root_path="/llm"))

    answer = await call_app(app, prefix + CHAT, HELLO)

    assert answer.status == 200


async def test_pages_of_an_allowed_origin_may_read_a_stream() -> None:
    engine = speaking()
    app = new_app(engine, HttpOptions(allowed_origins=("https://a.example",), api_key=("k",)))
    preflight = [
        ("origin", "https://a.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ]
    allowed = [("origin", "https://a.example"), ("authorization", "Bearer k")]

    asked = await call_app(app, CHAT, b"", method="OPTIONS", headers=preflight)
    read = await call_app(app, CHAT, HELLO | {"stream": True}, headers=allowed)
    refused = await call_app(app, CHAT, HELLO, headers=[("origin", "https://a.example")])
    other = await call_app(app, CHAT, HELLO, headers=[("origin", "https://b.example"), allowed[1]])

    assert asked.status == 200
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert (read.status, refused.status) == (200, 401)
    for answer in (asked, read, refused):
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert "access-control-allow-origin" not in other.headers


async def test_no_origin_is_allowed_by_default() -> None:
    answer = await call(speaking(), CHAT, HELLO, headers=[("origin", "https://a.example")])

    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_body_limit_is_an_option() -> None:
    engine = speaking()
    size = len(json.dumps(HELLO))
    apps = [new_app(engine, HttpOptions(max_body_bytes=size - short)) for short in (0, 1)]

    statuses = [(await call_app(app, CHAT, HELLO)).status for app in apps]

    assert statuses == [200, 413]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", CHAT, HELLO, 200),
        ("POST", CHAT, HELLO | {"stream": True}, 200),
        ("POST", CHAT, {"messages": []}, 400),
        ("POST", CHAT, b"{", 400),
        ("POST", COMPLETIONS, {"prompt": "a"}, 200),
        ("GET", "/health", b"", 200),
        ("GET", "/metrics", b"", 200),
        ("GET", "/v1/models", b"", 200),
        ("GET", "/nothing", b"", 404),
        ("DELETE", "/v1/models", b"", 405),
    ],
)
async def test_every_answer_has_the_id_of_its_request(
    method: str, path: str, body: Any, status: int
) -> None:
    named = await call(speaking(), path, body, method=method, headers=[("x-request-id", "mine")])
    unnamed = await call(speaking(), path, body, method=method)

    assert (named.status, unnamed.status) == (status, status)
    assert named.headers["x-request-id"] == "mine"
    assert re.fullmatch(r"[0-9a-f]{32}", unnamed.headers["x-request-id"])


async def test_id_that_cannot_be_logged_is_refused_and_not_repeated() -> None:
    answer = await call(speaking(), CHAT, HELLO, headers=[("x-request-id", "a b")])

    assert (answer.status, answer.json()["error"]["param"]) == (400, "X-Request-Id")
    assert answer.headers["x-request-id"] != "a b"


async def logged(
    caplog: pytest.LogCaptureFixture, engine: ScriptedEngine, path: str, body: Any, **more: Any
) -> list[dict[str, Any]]:
    caplog.set_level(logging.INFO, "rillm.requests")
    app = new_app(engine, HttpOptions(request_log="json"))
    await call_app(app, path, body, **more)
    return [json.loads(each.message) for each in caplog.records if each.name == "rillm.requests"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_one_line_says_what_a_request_was(
    caplog: pytest.LogCaptureFixture, is_stream: bool
) -> None:
    engine = speaking()
    headers = [("x-request-id", "mine")]
    body = HELLO | {"stream": is_stream}

    [line] = await logged(caplog, engine, CHAT, body, headers=headers)

    assert line.pop("time") > 1.7e9
    assert 0 <= line.pop("ttft_seconds") <= line.pop("duration_seconds")
    assert line == {
        "request_id": "mine",
        "outcome": "completed",
        "method": "POST",
        "path": CHAT,
        "status": 200,
        "prompt_tokens": len(engine.seen[0][0]["prompt_token_ids"]),
        "completion_tokens": 3,
        "cached_tokens": 3,
        "finish_reasons": ["stop"],
    }


async def test_several_prompts_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    body = {"prompt": [[5, 6], [7]], "request_id": "from-the-body"}

    [line] = await logged(caplog, speaking(), COMPLETIONS, body)

    assert (line["prompt_tokens"], line["completion_tokens"]) == (3, 6)
    assert (line["finish_reasons"], line["request_id"]) == (["stop"] * 2, "from-the-body")


@pytest.mark.parametrize("is_stream", [False, True])
async def test_line_and_metrics_say_how_choices_ended_as_the_client_is_told(
    caplog: pytest.LogCaptureFixture, is_stream: bool
) -> None:
    engine = SpeakingEngine("Yes.", TIDE, TIDE[:-20], formats=FORMATS)
    body = REQUEST | {"n": 3, "stream": is_stream}
    caplog.set_level(logging.INFO, "rillm.requests")
    app = new_app(engine, HttpOptions(request_log="json"))

    answer = await call_app(app, CHAT, body)

    if is_stream:
        chunks = [choice for event in answer.events()[:-1] for choice in event["choices"]]
        told = {each["index"]: each["finish_reason"] for each in chunks if each["finish_reason"]}
    else:
        told = {each["index"]: each["finish_reason"] for each in answer.json()["choices"]}
    assert told == {0: "stop", 1: "tool_calls", 2: "stop"}
    [line] = [json.loads(each.message) for each in caplog.records if each.name == "rillm.requests"]
    assert line["finish_reasons"] == ["stop", "tool_calls", "stop"]
    metrics = (await call_app(app, "/metrics", b"", method="GET")).body.decode()
    counts = re.findall(r'request_success_total{.*reason="(\w+)".*} (\d+)', metrics)
    assert {name: int(count) for name, count in counts if count != "0"} == {
        "stop": 2,
        "tool_calls": 1,
    }


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("steps", [[], [[delta(0, "a")]]])
async def test_line_says_that_the_client_went_away(
    caplog: pytest.LogCaptureFixture, is_stream: bool, steps: list[Any]
) -> None:
    engine, gone = ScriptedEngine(*steps, holds=True), asyncio.Event()
    answering = asyncio.create_task(
        logged(caplog, engine, CHAT, HELLO | {"stream": is_stream}, disconnect=gone)
    )
    await engine.arrivals.acquire()
    gone.set()

    [line] = await answering

    assert (line["outcome"], line["aborted_by"]) == ("aborted", "client")


async def test_line_says_that_another_request_ended_this_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = ScriptedEngine([delta(0, "a")], [delta(0, "", [], "abort")])

    [line] = await logged(caplog, engine, CHAT, HELLO)

    assert (line["outcome"], line["aborted_by"]) == ("aborted", "request")


@pytest.mark.parametrize(
    ("steps", "body", "status", "error"),
    [
        ([[delta(0, "a")], EngineGenerateError("x")], {"stream": True}, 200, "InternalServerError"),
        ([EngineGenerateError("x")], {}, 500, "InternalServerError"),
        ([CapacityError("full")], {"stream": True}, 503, "ServiceUnavailableError"),
        ([], {"temperature": 9}, 400, "BadRequestError"),
        ([], {"model": "other"}, 404, "NotFoundError"),
    ],
)
async def test_line_names_the_error(
    caplog: pytest.LogCaptureFixture, steps: list[Any], body: Any, status: int, error: str
) -> None:
    [line] = await logged(caplog, ScriptedEngine(*steps), CHAT, HELLO | body)

    assert (line["outcome"], line["status"], line["error"]) == ("error", status, error)


async def test_text_form_quotes_what_could_break_the_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "rillm.requests")

    await call(ScriptedEngine(), '/a b\n"=', b"", method="GET")

    [line] = [each.message for each in caplog.records if each.name == "rillm.requests"]
    assert r'path="/a b\n\"="' in line
    assert " outcome=error error=" in line
    assert "\n" not in line


async def test_probes_and_a_log_switched_off_write_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "rillm.requests")
    for path in ("/health", "/ready", "/metrics", "/load", "/version", "/ping"):
        await call(ScriptedEngine(), path, b"", method="GET")
    off = new_app(speaking(), HttpOptions(request_log="off"))
    await call_app(off, CHAT, HELLO)

    assert [each for each in caplog.records if each.name == "rillm.requests"] == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"api_key": ("",)}, "api_key"),
        ({"root_path": "llm"}, "root_path"),
        ({"root_path": "/llm/"}, "root_path"),
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"max_requests_per_key": -1}, "max_requests_per_key"),
        ({"tokens_per_minute_per_key": -1}, "tokens_per_minute_per_key"),
        ({"heartbeat_seconds": -1}, "heartbeat_seconds"),
        ({"heartbeat_seconds": float("nan")}, "heartbeat_seconds"),
    ],
)
def test_options_out_of_range_are_named(fields: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HttpOptions(**fields)


@pytest.mark.parametrize("seconds", [-1, 0.5, float("nan"), 1e9])
def test_write_timeout_out_of_range_is_named(seconds: float) -> None:
    with pytest.raises(ConfigError, match="write_timeout"):
        ListenConfig(write_timeout=seconds)


def test_key_is_not_shown() -> None:
    assert "hush" not in repr(HttpOptions(api_key=("hush",)))


SERVE = [sys.executable, "-m", "rillm", "serve", "--port", "0", "--num-threads", "2"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_serve_over_tls_with_keys_and_a_json_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-keyout", str(key), "-out", str(certificate)]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    monkeypatch.setenv("RILLM_API_KEY", "from-environment")
    command = [*SERVE, "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)]
    command += ["--api-key", "one", "--api-key", "two", "--request-log", "json"]
    command += ["--kv-cache-memory-bytes", str(64 * 2**20)]
    trusted = ssl.create_default_context(cafile=str(certificate))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stderr is not None
            url = serving.stderr.readline().split()[-1]
            for shown in ("one", "two", "from-environment"):
                request = urllib.request.Request(
                    f"{url}/v1/models", headers={"Authorization": f"Bearer {shown}"}
                )
                with urllib.request.urlopen(request, context=trusted, timeout=30) as response:
                    assert response.status == 200
            serving.terminate()
            _, rest = serving.communicate(timeout=30)
        finally:
            serving.kill()

    assert url.startswith("https://")
    lines = [json.loads(line) for line in rest.splitlines()]
    assert [(line["path"], line["status"]) for line in lines] == [("/v1/models", 200)] * 3


@pytest.mark.parametrize(
    "flags",
    [["--ssl-keyfile", "nothing.pem"], ["--ssl-certfile", "nothing.pem"]],
)
def test_certificate_that_cannot_be_used_is_named(flags: list[str]) -> None:
    result = subprocess.run(
        [*SERVE, *flags], capture_output=True, text=True, timeout=60, check=False
    )

    assert result.returncode == 2
    assert "ssl_certfile" in result.stderr
    assert "Traceback" not in result.stderr
