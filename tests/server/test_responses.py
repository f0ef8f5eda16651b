"""How responses begin, go on and end: each write is seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted_engine import ScriptedEngine, call, delta

from rillm.errors import (
    CapacityError,
    ContextLengthError,
    EngineDeadError,
    EngineGenerateError,
    RillmError,
)
from rillm.sampling_params import RequestOutputKind
from rillm.server.options import MAX_BODY_BYTES

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def contents(events: list[Any], index: int) -> str:
    choices = [choice for event in events if event != "[DONE]" for choice in event["choices"]]
    return "".join(
        choice["delta"].get("content", "") for choice in choices if choice["index"] == index
    )


async def test_each_engine_output_is_one_write() -> None:
    engine = ScriptedEngine(
        [delta(0, "a"), delta(1, "b")],
        [delta(0, "c"), delta(1, "", [2])],
        [delta(0, "", [2], "stop")],
    )

    answer = await call(engine, CHAT, HELLO | {"stream": True, "n": 2, "temperature": 1})

    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-accel-buffering"] == "no"
    assert [write.count(b"data: ") for write in answer.writes] == [4, 1, 1, 1]
    assert answer.is_complete


async def test_three_interleaved_choices_stay_apart() -> None:
    letters = ["abc", "xyz", "123"]
    order = [(0, 0), (2, 0), (2, 1), (1, 0), (0, 1), (1, 1), (2, 2), (1, 2), (0, 2)]
    steps = [[delta(choice, letters[choice][position])] for choice, position in order]
    finishes = [[delta(choice, "", [], "stop")] for choice in (1, 0, 2)]
    engine = ScriptedEngine(*steps, *finishes)

    answer = await call(engine, CHAT, HELLO | {"stream": True, "n": 3, "temperature": 1})

    events = answer.events()
    assert [contents(events, index) for index in range(3)] == letters
    finished = [
        choice["index"]
        for event in events[:-1]
        for choice in event["choices"]
        if choice["finish_reason"]
    ]
    assert finished == [1, 0, 2]


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ContextLengthError("too long", param="prompt"), 400, "BadRequestError"),
        (CapacityError("full"), 503, "ServiceUnavailableError"),
        (EngineGenerateError("secret"), 500, "InternalServerError"),
        (EngineDeadError("secret"), 500, "InternalServerError"),
    ],
)
async def test_refusal_has_a_status_of_its_own(
    is_stream: bool, error: RillmError, status: int, kind: str
) -> None:
    answer = await call(ScriptedEngine(error), CHAT, HELLO | {"stream": is_stream})

    assert answer.status == status
    body = answer.json()["error"]
    assert (body["type"], body["code"]) == (kind, status)
    assert "secret" not in body["message"]
    assert (answer.headers.get("retry-after") is not None) == (status == 503)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_failure_after_the_first_byte_ends_the_stream_with_an_error(path: str) -> None:
    engine = ScriptedEngine([delta(0, "a")], EngineGenerateError("secret"))
    body = HELLO | {"prompt": "x", "stream": True, "stream_options": {"include_usage": True}}

    answer = await call(engine, path, body)

    assert answer.status == 200
    events = answer.events()
    assert events[-2:] == [
        {
            "error": {
                "message": "Internal server error",
                "type": "InternalServerError",
                "param": None,
                "code": 500,
            }
        },
        "[DONE]",
    ]
    assert all(event["choices"][0]["finish_reason"] is None for event in events[:-2])
    assert answer.is_complete


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("steps", [[], [[delta(0, "a")]]])
async def test_client_that_goes_away_ends_its_request(is_stream: bool, steps: list[Any]) -> None:
    engine = ScriptedEngine(*steps, holds=True)
    gone = asyncio.Event()
    answering = asyncio.create_task(
        call(engine, CHAT, HELLO | {"stream": is_stream}, disconnect=gone)
    )
    await engine.arrivals.acquire()

    gone.set()
    await answering

    assert engine.num_live == 0


async def test_client_that_stopped_reading_and_goes_away_ends_its_request() -> None:
    engine = ScriptedEngine([delta(0, "a")], [delta(0, "b")], holds=True)
    stalled, gone = asyncio.Event(), asyncio.Event()
    answering = asyncio.create_task(
        call(engine, CHAT, HELLO | {"stream": True}, disconnect=gone, stalled=stalled)
    )
    await stalled.wait()
    assert engine.num_live == 1

    gone.set()
    await answering

    assert engine.num_live == 0


async def test_request_fields_reach_the_engine() -> None:
    engine = ScriptedEngine([delta(0, "a", finish="stop")])
    body = HELLO | {
        "max_tokens": 5,
        "max_completion_tokens": 7,
        "logit_bias": {"12": 150, "13": -2},
        "top_k": 4,
        "stop": "END",
        "seed": 3,
        "logprobs": True,
        "top_logprobs": 2,
        "cache_salt": "salt",
        "priority": -1,
        "metadata": {"ignored": True},
    }

    await call(engine, CHAT, body)

    [(prompt, params, _, priority)] = engine.seen
    assert (prompt["cache_salt"], priority) == ("salt", -1)
    assert (params.max_tokens, params.top_k, params.seed, params.stop) == (7, 4, 3, ["END"])
    assert (params.logit_bias, params.logprobs) == ({12: 100.0, 13: -2.0}, 2)
    assert params.output_kind == RequestOutputKind.FINAL_ONLY


async def test_requests_with_the_same_id_are_told_apart_inside() -> None:
    engine = ScriptedEngine([delta(0, "a", finish="stop")])
    headers = [("x-request-id", "mine")]

    answers = [await call(engine, CHAT, HELLO, headers=headers) for _ in range(2)]

    assert [answer.json()["id"] for answer in answers] == ["chatcmpl-mine"] * 2
    assert [answer.headers["x-request-id"] for answer in answers] == ["mine"] * 2
    assert len({request_id for _, _, request_id, _ in engine.seen}) == 2


async def test_long_messages_are_rendered_like_short_ones() -> None:
    engine = ScriptedEngine([delta(0, "a", finish="stop")])
    messages = [{"role": "user", "content": "word " * 4000}]

    await call(engine, CHAT, {"messages": messages})

    expected = engine.get_tokenizer().encode_chat(messages)
    assert engine.seen[0][0]["prompt_token_ids"] == expected


async def test_tools_are_shown_to_the_model_when_none_may_be_called() -> None:
    engine = ScriptedEngine([delta(0, "a", finish="stop")])
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]

    await call(engine, CHAT, HELLO | {"tools": tools, "tool_choice": "none"})

    rendered = engine.get_tokenizer().decode(engine.seen[0][0]["prompt_token_ids"])
    assert "weather" in rendered


async def test_completion_stream_echoes_each_prompt_first() -> None:
    engine = ScriptedEngine([delta(0, " and")], [delta(0, " so", [1, 2], "stop", "on")])
    body = {"prompt": ["One", "Two"], "echo": True, "stream": True, "return_token_ids": True}

    answer = await call(engine, COMPLETIONS, body)

    events = answer.events()
    for index, prompt in enumerate(body["prompt"]):  # type: ignore[arg-type]
        choices = [c for event in events[:-1] for c in event["choices"] if c["index"] == index]
        assert [choice["text"] for choice in choices] == [f"{prompt} and", " so"]
        assert [choice["token_ids"] for choice in choices] == [[7], [1, 2]]
        assert [choice["finish_reason"] for choice in choices] == [None, "stop"]
        assert choices[0]["prompt_token_ids"] == engine.get_tokenizer().encode(prompt)
        assert choices[1]["stop_reason"] == "on"
    assert events[-1] == "[DONE]"


async def test_continuous_usage_counts_up_to_the_total() -> None:
    engine = ScriptedEngine([delta(0, "a")], [delta(0, "b", [1, 2], "stop")])
    options = {"include_usage": True, "continuous_usage_stats": True}

    for path in (CHAT, COMPLETIONS):
        body = HELLO | {"prompt": "x", "stream": True, "stream_options": options}
        events = (await call(engine, path, body)).events()
        counts = [event["usage"]["completion_tokens"] for event in events[:-1]]
        assert counts == ([0, 1, 3, 3, 3] if path == CHAT else [1, 3, 3])


@pytest.mark.parametrize(
    ("is_loaded", "is_restarting", "errored", "status", "text"),
    [
        (True, False, False, 200, "ok"),
        (False, False, False, 503, "loading"),
        (True, True, False, 503, "restarting"),
        (True, False, True, 503, "dead"),
    ],
)
async def test_health_says_what_the_engine_does(
    is_loaded: bool, is_restarting: bool, errored: bool, status: int, text: str
) -> None:
    engine = ScriptedEngine()
    engine.ready_info = object() if is_loaded else None
    engine.is_restarting = is_restarting
    engine.errored = errored

    answer = await call(engine, "/health", b"", method="GET")

    assert (answer.status, answer.json()) == (status, {"status": text})


async def test_models_are_listed_under_every_name() -> None:
    listed = (await call(ScriptedEngine(), "/v1/models", b"", method="GET")).json()
    one = (await call(ScriptedEngine(), "/v1/models/other-name", b"", method="GET")).json()

    assert [card["id"] for card in listed["data"]] == ["scripted", "other-name"]
    assert (one["id"], one["max_model_len"]) == ("other-name", 2048)


async def test_body_over_the_limit_is_refused() -> None:
    answer = await call(ScriptedEngine(), CHAT, b" " * (MAX_BODY_BYTES + 1))

    assert answer.status == 413
    assert "length limit exceeded" in answer.json()["error"]["message"]
