"""`response_format` and `structured_outputs` over HTTP, with the bundled model."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from bad_constraints import ROWS
from openai import OpenAI
from random_schemas import random_object
from refusals import CHAT, COMPLETIONS, HELLO, TOOLS, post
from running_server import RunningServer
from scripted_engine import BUNDLED_TOKENIZER

NUM_SCHEMAS = int(os.environ.get("RILLM_SCHEMAS", "12"))
"""Requests with random schemas; 500 take some minutes."""
GENERATE = "/inference/v1/generate"
MESSAGES: list[Any] = [{"role": "user", "content": "Tell me about the port of Brest, as JSON."}]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url, api_key="any", max_retries=0, timeout=120) as client:
        yield client


def answer(client: OpenAI, is_stream: bool, **fields: Any) -> tuple[str, str | None]:
    """Text and finish reason of a chat."""
    fields = {"model": "bundled", "messages": MESSAGES, "max_tokens": 1500} | fields
    if not is_stream:
        (choice,) = client.chat.completions.create(**fields).choices
        return choice.message.content or "", choice.finish_reason
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(stream=True, **fields)]
    return "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason


def test_answers_validate_against_random_schemas_streamed_and_whole(client: OpenAI) -> None:
    def ask(seed: int) -> None:
        schema = random_object(random.Random(seed))
        text, reason = answer(
            client,
            is_stream=seed % 2 == 0,
            seed=seed,
            temperature=(0, 0.7, 1.0)[seed % 3],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            },
        )
        assert reason == "stop", (schema, text)
        jsonschema.validate(json.loads(text), schema)

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(ask, range(NUM_SCHEMAS)))) == NUM_SCHEMAS


def test_json_object_is_an_object_or_cut(client: OpenAI) -> None:
    for seed in range(2):
        text, reason = answer(
            client, seed % 2 == 0, seed=seed, max_tokens=60, response_format={"type": "json_object"}
        )

        assert text.startswith("{")
        if reason == "stop":
            assert isinstance(json.loads(text), dict)
        else:
            assert reason == "length"


@pytest.mark.parametrize("is_stream", [True, False])
def test_every_constraint_holds_on_every_route(server: RunningServer, is_stream: bool) -> None:
    constraints: list[tuple[dict[str, Any], str]] = [
        ({"regex": r"[a-f]{3}-\d{4}"}, r"[a-f]{3}-\d{4}"),
        ({"choice": ["ebb", "flood tide"]}, "ebb|flood tide"),
        ({"grammar": 'root ::= "port " [A-Z] [a-z]{2,5}'}, "port [A-Z][a-z]{2,5}"),
        ({"json": {"enum": [1, 2]}}, "1|2"),
        ({"json": '{"const": "a"}'}, '"a"'),
    ]
    for constraint, expression in constraints:
        for path, body in (
            (CHAT, {"messages": MESSAGES}),
            (COMPLETIONS, {"prompt": "The tide"}),
            (GENERATE, {"token_ids": BUNDLED_TOKENIZER.encode("The tide")}),
        ):
            text = complete(server, path, body, constraint, is_stream)
            assert re.fullmatch(expression, text), (path, text)


def complete(
    server: RunningServer,
    path: str,
    body: dict[str, Any],
    constraint: dict[str, Any],
    is_stream: bool,
) -> str:
    options = {"structured_outputs": constraint, "max_tokens": 64, "seed": 1}
    body = body | ({"sampling_params": options} if path == GENERATE else options)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body | {"stream": is_stream}), headers)
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    assert response.status == 200, raw
    parts = (
        [json.loads(line[6:]) for line in raw.split(b"\n") if line.startswith(b"data: {")]
        if is_stream
        else [json.loads(raw)]
    )
    choices = [part["choices"][0] for part in parts if part["choices"]]
    if path == GENERATE:
        ids = [i for choice in choices for i in choice["token_ids"] or []]
        return BUNDLED_TOKENIZER.decode(ids)
    if path == COMPLETIONS:
        return "".join(choice["text"] for choice in choices)
    messages = [choice.get("delta") or choice.get("message") or {} for choice in choices]
    return "".join(message.get("content") or "" for message in messages)


def test_an_answer_cut_by_max_tokens_says_so(client: OpenAI) -> None:
    _, reason = answer(
        client, False, max_tokens=3, extra_body={"structured_outputs": {"regex": "[a-z]{200}"}}
    )

    assert reason == "length"


def test_choices_are_constrained_each_on_its_own(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="bundled",
        messages=MESSAGES,
        n=6,
        temperature=1.5,
        seed=1,
        extra_body={"structured_outputs": {"regex": "[a-z]{4}"}},
    )

    texts = [choice.message.content or "" for choice in completion.choices]
    assert all(re.fullmatch("[a-z]{4}", text) for text in texts)
    assert len(set(texts)) > 1


def test_bad_constraints_are_refused_and_disturb_nobody(server: RunningServer) -> None:
    endless = {"prompt": "The sea", "max_tokens": 200, "temperature": 0, "ignore_eos": True}
    expected = post(server, COMPLETIONS, json.dumps(endless).encode())[1]["choices"][0]["text"]
    has_refused_all = threading.Event()
    read: list[str] = []

    def read_streams() -> None:
        while not has_refused_all.is_set():
            read.append(streamed(server, endless))

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_streams)
        for name, (fields, param) in ROWS.items():
            body = {"prompt": "a", "structured_outputs": fields, "stream": len(name) % 2 == 0}
            status, error = post(server, COMPLETIONS, json.dumps(body).encode())
            assert status == 400, name
            path = "structured_outputs" + (f".{param}" if param else "")
            assert error["error"]["param"].startswith(path), name
        has_refused_all.set()
        reading.result()

    assert len(ROWS) >= 60
    assert read == [expected] * len(read)


def streamed(server: RunningServer, body: dict[str, Any]) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", COMPLETIONS, json.dumps(body | {"stream": True}), headers)
    lines = connection.getresponse().read().split(b"\n")
    connection.close()
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    return "".join(event["choices"][0]["text"] for event in events)


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        (
            CHAT,
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "text"}},
                }
            },
            "response_format.json_schema.schema",
        ),
        (f"{CHAT}/render", {"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
        (
            "/v1/responses",
            {
                "messages": None,
                "input": "a",
                "text": {
                    "format": {"type": "json_schema", "name": "n", "schema": {"type": "text"}}
                },
            },
            "text.format",
        ),
        (
            "/v1/messages",
            {
                "max_tokens": 5,
                "model": "bundled",
                "output_config": {"format": {"type": "json_schema", "schema": {"type": "text"}}},
            },
            "output_config.format",
        ),
        (
            GENERATE,
            {"token_ids": [5], "sampling_params": {"structured_outputs": {"regex": "("}}},
            "structured_outputs.regex",
        ),
    ],
)
def test_every_face_names_its_own_field(
    server: RunningServer, path: str, fields: dict[str, Any], name: str, is_stream: bool
) -> None:
    body = {"messages": HELLO, "stream": is_stream} | fields

    status, answer = post(server, path, json.dumps(body).encode())

    assert status == 400
    assert answer["error"]["message"].startswith(name)


def test_tools_that_must_not_be_called_exclude_nothing(client: OpenAI) -> None:
    text, _ = answer(
        client,
        False,
        tools=TOOLS,
        tool_choice="none",
        extra_body={"structured_outputs": {"choice": ["yes"]}},
    )

    assert text == "yes"


@pytest.mark.parametrize("is_stream", [False, True])
def test_reasoning_is_free_before_a_constrained_answer(client: OpenAI, is_stream: bool) -> None:
    text, _ = answer(
        client,
        is_stream,
        extra_body={
            "structured_outputs": {"choice": ["certainly not"]},
            "chat_template_kwargs": {"enable_thinking": True},
        },
    )

    assert text == "certainly not"


def test_a_client_that_leaves_frees_its_constrained_request(server: RunningServer) -> None:
    async def leave() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = json.dumps(
            {
                "prompt": "a",
                "max_tokens": 1900,
                "stream": True,
                "structured_outputs": {"regex": "[a-z]{4000}"},
            }
        ).encode()
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await reader.readuntil(b"data: ")
        writer.close()
        while server.llm.get_num_unfinished_requests():  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), 30))
