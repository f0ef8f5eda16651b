"""What is refused: status, type and the name of the field."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from refusals import (
    ACCEPTABLE,
    CHAT,
    COMPLETIONS,
    HELLO,
    ROWS,
    post,
    wrong_types,
)
from running_server import RunningServer


def refused_body(path: str, fields: dict[str, Any]) -> bytes:
    return json.dumps(ACCEPTABLE[path] | fields).encode()


class Stream:
    """A completion that is read as fast as the test wants."""

    def __init__(self, server: RunningServer, body: bytes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", COMPLETIONS, body, headers)
        self._response = self._connection.getresponse()
        self.text = ""

    def read_event(self) -> bool:
        """Read one event; returns whether there was one."""
        line = self._response.readline()
        self._response.readline()
        if line == b"data: [DONE]\n":
            self._connection.close()
            return False
        self.text += json.loads(line.removeprefix(b"data: "))["choices"][0]["text"]
        return True

    def read_to_end(self) -> str:
        while self.read_event():
            pass
        return self.text


def name_of(value: Any) -> str | None:
    text = json.dumps(value) if isinstance(value, dict) else None
    return text[:60] if text else None


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(ROWS) >= 120
    assert len(wrong_types()) >= 60


@pytest.mark.parametrize(("path", "fields", "param"), ROWS, ids=name_of)
def test_a_refusal_names_the_field(
    server: RunningServer, path: str, fields: dict[str, Any], param: str
) -> None:
    status, answer = post(server, path, refused_body(path, fields))

    error = answer["error"]
    assert (status, error["code"]) == (400, 400)
    assert (error["type"], error["param"]) == ("BadRequestError", param)
    assert param.split(".")[-1].split("[")[0] in error["message"] or param == "input_tokens"
    assert len(error["message"]) <= 1003


@pytest.mark.parametrize("param", sorted({param for path, _, param in ROWS if path == CHAT}))
def test_a_stream_is_refused_with_a_status_of_its_own(server: RunningServer, param: str) -> None:
    """The rows of one field each; those of a stream itself have no stream to be refused in."""
    for path, fields, name in ROWS:
        if path == CHAT and name == param and "stream" not in fields:
            status, answer = post(server, path, refused_body(path, fields | {"stream": True}))
            assert (status, answer["error"]["param"]) == (400, param)


@pytest.mark.parametrize(("path", "name", "value"), wrong_types())
def test_a_value_of_the_wrong_type_is_a_bad_request_with_the_path(
    server: RunningServer, path: str, name: str, value: Any
) -> None:
    status, answer = post(server, path, refused_body(path, {name: value}))

    error = answer["error"]
    assert (status, error["type"]) == (400, "Bad Request")
    assert error["param"].split(".")[0] == name
    assert error["message"].startswith(f"1 validation error: {name}")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b"5", None),
        (b"\xff", None),
        (b'{"messages": [{"role": "\xff"}]}', None),
        (b"{}", "messages"),
        (b'{"messages": null}', "messages"),
        (b'{"messages": {}}', "messages"),
        (b'{"messages": ["hello"]}', "messages[0]"),
        (b'{"messages": [], "temperature": "hot"}', "temperature"),
        (b'{"messages": [], "temperature": NaN}', None),
        (b'{"messages": [], "n": 1.5}', "n"),
        (b'{"messages": [], "n": 1e999}', "n"),
        (b'{"messages": [], "seed": 18446744073709551616}', "seed"),
        (b'{"messages": [], "stop_token_ids": [18446744073709551616]}', "stop_token_ids[0]"),
        (b'{"messages": [], "stream": "yes"}', "stream"),
        (b'{"messages": [], "stop": [1]}', "stop[0]"),
        (b'{"messages": [], "tools": ["f"]}', "tools[0]"),
        (b'{"messages": [], "reasoning_effort": "huge"}', "reasoning_effort"),
        (b'{"messages": [], "truncation_side": "middle"}', "truncation_side"),
        (b'{"messages": [], "logit_bias": {"1": "much"}}', "logit_bias[...]"),
        (
            b'{"messages": [], "repetition_detection": {}}',
            "repetition_detection.max_pattern_size",
        ),
        (
            b'{"messages": [], "stream_options": {"include_usage": 1}}',
            "stream_options.include_usage",
        ),
        (b"[" * 100_000, None),
        (b'{"guided_json": ' + b"[" * 100_000, None),
        (b'{"user": ' + b"[" * 100_000, None),
    ],
)
def test_wrong_json_is_a_bad_request_with_the_path(
    server: RunningServer, body: bytes, param: str | None
) -> None:
    status, answer = post(server, CHAT, body)

    error = answer["error"]
    assert (status, error["type"], error["param"]) == (400, "Bad Request", param)
    assert error["message"].startswith("1 validation error")


def test_a_prompt_that_is_too_long_says_how_long_it_may_be(server: RunningServer) -> None:
    _, answer = post(server, COMPLETIONS, json.dumps({"prompt": [5] * 3000}).encode())

    length = server.llm.max_model_len
    assert f"maximum context length is {length} tokens" in answer["error"]["message"]


def test_another_model_is_not_found(server: RunningServer) -> None:
    for path, body in ACCEPTABLE.items():
        status, answer = post(server, path, json.dumps(body | {"model": "none"}).encode())
        error = answer["error"]
        assert (status, error["type"], error["param"]) == (404, "NotFoundError", "model")


def test_other_content_types_are_refused(server: RunningServer) -> None:
    status, answer = post(server, CHAT, b'{"messages": []}', "text/plain")

    assert (status, answer["error"]["type"]) == (400, "Bad Request")
    assert answer["error"]["param"] == "Content-Type"


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [("/v1/nothing", 404, "Not Found"), ("/v1/models", 405, "Method Not Allowed")],
)
def test_unknown_routes_and_methods_have_the_same_shape(
    server: RunningServer, path: str, status: int, kind: str
) -> None:
    assert post(server, path, b"{}") == (
        status,
        {"error": {"message": kind, "type": kind, "param": None, "code": status}},
    )


def test_nothing_refused_stays_in_the_engine(server: RunningServer) -> None:
    post(server, CHAT, json.dumps({"messages": HELLO, "temperature": 9}).encode())

    assert server.llm.get_num_unfinished_requests() == 0


def test_no_refusal_disturbs_a_running_stream(server: RunningServer) -> None:
    options = {"temperature": 0, "max_tokens": 100, "ignore_eos": True, "stream": True}
    body = json.dumps({"prompt": "Once upon a time"} | options).encode()
    expected = Stream(server, body).read_to_end()
    one_of_each = {(path, param): fields for path, fields, param in ROWS}

    stream = Stream(server, body)
    for (path, _), fields in one_of_each.items():
        if not stream.read_event():
            assert stream.text == expected
            stream = Stream(server, body)
        assert post(server, path, refused_body(path, fields))[0] == 400

    assert stream.read_to_end() == expected
