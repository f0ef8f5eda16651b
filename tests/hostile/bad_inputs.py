"""What means harm, or nothing: bytes to be sent, the same for the same number."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from hostile_messages import ODD_CONTENTS, ODD_MESSAGES, TEMPLATE_VARIABLES
from hostile_schemas import HOSTILE, random_hostile
from server.bad_constraints import ROWS

from rillm.server.openapi import OPERATIONS

Body = dict[str, Any]
HELLO: Final = [{"role": "user", "content": "Hello"}]
_ANSWER: Final = {
    "request_id": "a",
    "choices": [{"index": 0, "token_ids": [300, 301, 302], "finish_reason": "stop"}],
}
GOOD: Final[dict[str, Body]] = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 2},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 2},
    "/v1/messages": {"messages": HELLO, "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": HELLO},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 2},
    "/v1/chat/completions/render": {"messages": HELLO, "max_tokens": 2},
    "/v1/completions/render": {"prompt": "Hello", "max_tokens": 2},
    "/v1/chat/completions/derender": {
        "generate_response": _ANSWER,
        "chat_request": {"messages": HELLO},
        "prompt_token_ids": [300],
    },
    "/v1/completions/derender": {"generate_responses": [_ANSWER]},
    "/tokenize": {"prompt": "Hello"},
    "/detokenize": {"tokens": [300, 301]},
    "/inference/v1/generate": {"token_ids": [300, 301], "sampling_params": {"max_tokens": 2}},
    "/inference/v1/abort_requests": {"request_ids": ["a"]},
}
"""A body for each route that takes one; every one of them is answered with 200."""
ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**31, -(2**63), 2**63 - 1, 2**64, 10**30, 0.0, -0.5, 1e308),
    *("", "a", "0", "\0", "\ud800", "💧" * 50, "a" * 5000, "../../etc/passwd", "{{ 7 * 7 }}"),
    *([], [[]], {}, {"": ""}, [None], [1, "a", {}], {"type": 5}, {"a": {"b": [1]}}, [-1], [2**70]),
    *("auto", "none", "required", ["a"] * 2000, {str(i): i for i in range(2000)}),
)
RAW_VALUES: Final = (
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000, b"-0", b"01", b"0x10", b"+1"),
    *(b'"\\ud800"', b'"\\ud83d\\u"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\x01"', b"'a'", b""),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"[" * 700 + b"]" * 700, b"tru", b"undefined", b"{,}"),
    *(b'{"a":' * 900 + b"1" + b"}" * 900, b"[" * 90 + b"]" * 90, b"/**/1", b"1,1", b"\xef\xbb\xbf"),
    *(b'"' + b"a" * 300_000 + b'"', b"[" + b"0," * 100_000 + b"0]", b'"\\u0000"'),
)
_WAIT: Final = 0.1


@dataclass(frozen=True)
class Case:
    """What is sent over one connection."""

    name: str
    pieces: tuple[bytes | float, ...]
    """Bytes, and seconds to wait between them."""
    is_whole: bool
    """Whether it has an end, so that there is an answer to it."""


def case_of(number: int) -> Case:
    """The case of a number."""
    rng = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    pieces = kind(rng)
    is_whole = kind not in (_broken_http, _targets)
    return Case(f"{number} {kind.__name__.strip('_')}", pieces, is_whole)


def request(
    path: str,
    body: bytes,
    *,
    method: str = "POST",
    headers: tuple[bytes, ...] = (b"Content-Type: application/json",),
) -> tuple[bytes, ...]:
    """A well-formed request."""
    lines = [
        f"{method} {path} HTTP/1.1".encode(),
        b"Host: localhost",
        b"Connection: close",
        *headers,
        b"Content-Length: %d" % len(body),
    ]
    return (b"\r\n".join(lines) + b"\r\n\r\n" + body,)


def encoded(body: Any) -> bytes:
    """JSON, also of what is none."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _truncated(rng: random.Random) -> tuple[bytes, ...]:
    path = rng.choice(list(GOOD))
    body = encoded(GOOD[path])
    return request(path, body[: rng.randrange(len(body))])


def _mutated_text(rng: random.Random) -> tuple[bytes, ...]:
    path = rng.choice(list(GOOD))
    body = bytearray(encoded(GOOD[path]))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(body))
        match rng.randrange(3):
            case 0:
                body[at] = rng.randrange(256)
            case 1:
                del body[at : at + rng.randrange(4)]
            case _:
                body[at:at] = bytes([rng.choice(b'{}[]",:\\0\xff')])
    return request(path, bytes(body))


def _raw_value(rng: random.Random) -> tuple[bytes, ...]:
    """Text that is no JSON, or hard to read, in the place of a value."""
    path = rng.choice(list(GOOD))
    body = dict(GOOD[path])
    body[rng.choice([*body, *_fields(path)])] = "@@"
    text = encoded(body).replace(b'"@@"', rng.choice(RAW_VALUES))
    if rng.random() < 0.1:
        text = rng.choice(RAW_VALUES)
    return request(path, text)


def _twice(rng: random.Random) -> tuple[bytes, ...]:
    """Keys that come twice."""
    path = rng.choice(list(GOOD))
    first, second = encoded(GOOD[path])[:-1], encoded({rng.choice(list(GOOD[path])): _odd(rng)})[1:]
    return request(path, first + b", " + second)


def _wrong_fields(rng: random.Random) -> tuple[bytes, ...]:
    """Fields of the wrong type or out of range."""
    path = rng.choice(list(GOOD))
    body = dict(GOOD[path])
    for _ in range(rng.randrange(1, 4)):
        body[rng.choice(_fields(path))] = _odd(rng)
    return request(path, encoded(body))


def _wrong_inside(rng: random.Random) -> tuple[bytes, ...]:
    """One value somewhere inside of a good body is another."""
    path = rng.choice(list(GOOD))
    return request(path, encoded(_replaced(GOOD[path], rng)))


def _schemas(rng: random.Random) -> tuple[bytes, ...]:
    schema = rng.choice(list(HOSTILE.values())) if rng.random() < 0.1 else random_hostile(rng)
    function = {"name": "f", "parameters": schema, "strict": rng.random() < 0.7}
    tools = [{"type": "function", "function": function}]
    choice: Any = rng.choice(
        ["required", "auto", None, {"type": "function", "function": {"name": "f"}}]
    )
    anthropic = [{"name": "f", "input_schema": schema}]
    form = {"type": "json_schema", "name": "a", "schema": schema}
    path, fields = rng.choice(
        [
            ("/v1/chat/completions", {"tools": tools, "tool_choice": choice}),
            ("/v1/chat/completions", {"tools": tools, "tool_choice": choice}),
            ("/v1/chat/completions/render", {"tools": tools, "tool_choice": choice}),
            ("/v1/chat/completions", {"structured_outputs": {"json": schema}}),
            (
                "/v1/chat/completions",
                {"response_format": {"type": "json_schema", "json_schema": form}},
            ),
            ("/v1/responses", {"tools": [{"type": "function", **function}]}),
            ("/v1/responses", {"text": {"format": form}}),
            ("/v1/messages", {"tools": anthropic, "tool_choice": {"type": "any"}}),
        ]
    )
    return request(path, encoded(GOOD[path] | fields))


def _constraints(rng: random.Random) -> tuple[bytes, ...]:
    sent, _ = rng.choice(list(ROWS.values()))
    if rng.random() < 0.5 and "regex" in sent:
        sent = {"regex": _shuffled(str(sent["regex"])[:200], rng)}
    if rng.random() < 0.5 and "grammar" in sent:
        sent = {"grammar": _shuffled(str(sent["grammar"])[:200], rng)}
    path = rng.choice(["/v1/completions", "/v1/chat/completions"])
    return request(path, encoded(GOOD[path] | {"structured_outputs": sent}))


def _messages(rng: random.Random) -> tuple[bytes, ...]:
    messages = [rng.choice([*HELLO, *ODD_MESSAGES]) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.5:
        messages.append({"role": rng.choice(["user", "assistant", "system", "tool"])})
        messages[-1]["content"] = rng.choice(ODD_CONTENTS)
    if rng.random() < 0.3:
        messages = _replaced(messages, rng)
    paths = ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses"]
    path = rng.choice([*paths, "/tokenize", "/v1/chat/completions/render"])
    key = "input" if path == "/v1/responses" else "messages"
    body = {name: value for name, value in GOOD[path].items() if name != "prompt"}
    extra = {"continue_final_message": True} if rng.random() < 0.2 else {}
    return request(path, encoded(body | {key: messages} | extra))


def _templates(rng: random.Random) -> tuple[bytes, ...]:
    path = rng.choice(["/v1/chat/completions", "/tokenize", "/v1/chat/completions/render"])
    body = {name: value for name, value in GOOD[path].items() if name != "prompt"}
    body["messages"] = HELLO
    if rng.random() < 0.3:
        body["chat_template"] = "{% for i in range(10**9) %}{{ i }}{% endfor %}"
    names = ["enable_thinking", "tools", "messages", "range", "x", "loop", "self", "", "a.b"]
    body["chat_template_kwargs"] = {rng.choice(names): rng.choice([*TEMPLATE_VARIABLES, *ODD])}
    return request(path, encoded(body))


def _answers(rng: random.Random) -> tuple[bytes, ...]:
    """Tokens that no model would write, to be read as an answer."""
    pieces = [rng.randrange(2100) for _ in range(rng.randrange(40))]
    if rng.random() < 0.5:
        pieces = [rng.choice([2040, 2041, 2042, 2043, 2044, 63, 93, 60, 91]) for _ in range(600)]
    answer = {"request_id": "a", "choices": [{"index": 0, "token_ids": pieces}]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": random_hostile(rng)}}]
    body: Body = {"generate_response": answer}
    body["chat_request"] = {"messages": HELLO, "tools": tools}
    return request("/v1/chat/completions/derender", encoded(_replaced(body, rng)))


def _targets(rng: random.Random) -> tuple[bytes, ...]:
    """Paths, methods and headers."""
    path = rng.choice(
        [
            *OPERATIONS,
            *("/v1/models/" + "a" * 3000, "/v1/models/%00", "/v1/models/%ff%fe", "/%2e%2e/%2e%2e"),
            *("/playground/../../pyproject.toml", "/playground/%2e%2e%2fapp.py", "//"),
            *("/v1/responses/resp_0?stream=true&starting_after=-1", "/v1/responses/a/input_items"),
            *("/v1/responses/a/input_items?limit=x", "/metrics?%00", "/?a=%", "*", "/v1/x/é"),
        ]
    )
    path = re.sub(r"\{\w+\}", lambda _: rng.choice(["a", "..", "%00", "%F0%9F"]), path)
    method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "G@T"])
    header = rng.choice(
        [
            *(b"X-Request-Id: " + b"a" * 500, b"X-Request-Id: \xff", b"Accept: \xff\xff"),
            *(b"Content-Type: text/plain", b"Content-Type: application/json; charset=utf-16"),
            *(b"Authorization: Bearer " + b"k" * 9000, b"Last-Event-ID: -9"),
            b"Expect: 100-continue",
            *(b"Content-Encoding: gzip", b"Range: bytes=0-0", b"Upgrade: h2c", b"Host: \x01"),
            *(b"X: " + b"x" * 200_000, b"\r\n".join(b"X-%d: y" % i for i in range(3000))),
        ]
    )
    body = encoded(GOOD.get(path, {})) if rng.random() < 0.5 else b""
    return request(path, body, method=method, headers=(b"Content-Type: application/json", header))


def _broken_http(rng: random.Random) -> tuple[bytes | float, ...]:
    """What is no request, or never a whole one."""
    path = rng.choice(list(GOOD))
    body = encoded(GOOD[path])
    head = b"POST " + path.encode() + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    length = head + b"Content-Length: %d\r\n\r\n"
    (whole,) = request(path, body)
    return rng.choice(
        [
            (rng.randbytes(rng.randrange(1, 2000)),),
            (b"\r\n" * 100 + b"GET",),
            (b"GET / HTTP/9.9\r\n\r\n",),
            (b"GET\r\n\r\n",),
            (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",),
            (b"GET / HTTP/1.1\r\nHost a\r\n: x\r\n\r\n",),
            (b"GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",),
            (length % (len(body) + 50) + body,),
            (length % max(0, len(body) - 5) + body,),
            (head + b"Content-Length: -1\r\n\r\n" + body,),
            (head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + body,),
            (head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + whole,),
            (head + b"Content-Length: 99999999999999999999\r\n\r\n" + body,),
            (length % (1 << 30) + body,),
            (chunked + b"zz\r\n" + body + b"\r\n0\r\n\r\n",),
            (chunked + b"ffffffffffffffffff\r\n" + body,),
            (chunked + b"5\r\n" + body + b"\r\n0\r\n\r\n",),
            (chunked + b"%x\r\n" % len(body) + body + b"\r\n",),
            (whole[: rng.randrange(len(whole))],),
            (whole[: rng.randrange(len(whole))], _WAIT, b"\x00" * 10),
            tuple(piece for byte in whole[-8:] for piece in (bytes([byte]), _WAIT)),
            (whole[:-4], _WAIT, whole[-4:-2], _WAIT, whole[-2:]),
            (whole.replace(b"Connection: close", b"Connection: keep-alive") * 3,),
            (rng.choice(RAW_VALUES),),
        ]
    )


KINDS: Final[tuple[Callable[[random.Random], tuple[bytes | float, ...]], ...]] = (
    *(_wrong_fields, _wrong_inside, _wrong_fields, _wrong_inside, _messages, _messages),
    *(_schemas, _constraints, _schemas, _templates, _answers, _targets, _broken_http),
    *(_truncated, _mutated_text, _raw_value, _raw_value, _twice),
)


def _odd(rng: random.Random) -> Any:
    return rng.choice(ODD)


def _fields(path: str) -> list[str]:
    body = OPERATIONS[path].body
    assert body is not None
    return [each.encode_name for each in msgspec.structs.fields(body)]


def _replaced(value: Any, rng: random.Random) -> Any:
    """A copy with one of its values, at any depth, put in another's place."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        return value | {key: _replaced(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], _replaced(value[at], rng), *value[at + 1 :]]
    return _odd(rng)


def _shuffled(text: str, rng: random.Random) -> str:
    """A text with some of its characters elsewhere."""
    characters = list(text)
    for _ in range(rng.randrange(1, 6)):
        if characters:
            at = rng.randrange(len(characters))
            characters.insert(rng.randrange(len(characters)), characters.pop(at))
    return "".join(characters)
