"""The token endpoint: what is on the wire, byte by byte and field by field."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from generate_script import (
    ABC,
    GENERATE,
    REQUEST,
    STREAM,
    WITHOUT_DETAILS,
    OutputsEngine,
    choice,
    chunk,
    counts,
    ids_step,
    output,
    with_logprobs,
)
from scripted_engine import Answer, ScriptedEngine, call, call_app, delta

from rillm.errors import EngineGenerateError
from rillm.models.config import GenerationConfig
from rillm.outputs import Logprob
from rillm.sampling_params import RequestOutputKind
from rillm.server.app import create_app


async def test_whole_answer_is_the_transcript() -> None:
    rows = [
        {358: Logprob(-0.51, 1)},
        {1079: Logprob(-2.5, 3), 358: Logprob(-0.25, 1)},
        {264: Logprob(float("-inf"), 0), 5: Logprob(float("nan"), 1)},
    ]
    last = with_logprobs([1079, 264], rows[1:])
    last.finish_reason = "length"
    engine = OutputsEngine(output(with_logprobs([358], rows[:1])), output(last))
    sampling = {"temperature": 0, "max_tokens": 3, "logprobs": 1}

    answer = await call(engine, GENERATE, REQUEST | {"sampling_params": sampling}, headers=ABC)

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    entries = [
        {"token_id": 358, "logprob": -0.51, "rank": 1},
        {"token_id": 1079, "logprob": -2.5, "rank": 3},
        {"token_id": 264, "logprob": -9999.0, "rank": None},
    ]
    content = [
        {**entries[0], "top_logprobs": [entries[0]]},
        {
            **entries[1],
            "top_logprobs": [entries[1], {"token_id": 358, "logprob": -0.25, "rank": 1}],
        },
        {
            **entries[2],
            "top_logprobs": [entries[2], {"token_id": 5, "logprob": -9999.0, "rank": 1}],
        },
    ]
    expected = {
        "request_id": "generate-tokens-abc",
        "model": "scripted",
        "created": body["created"],
        "usage": counts(2, 3) | WITHOUT_DETAILS,
        "prompt_logprobs": None,
        "prompt_token_id_logprobs": None,
        "prompt_token_ids": None,
        "mm_placeholders": None,
        "metrics": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "output_mode": "tokens",
        "choices": [
            choice(
                finish_reason="length", token_ids=[358, 1079, 264], logprobs={"content": content}
            )
        ],
    }
    assert json.dumps(body) == json.dumps(expected)


async def test_stream_is_the_transcript() -> None:
    engine = ScriptedEngine(
        ids_step(358), ids_step(1079, 264), [delta(0, "", [1645], "stop", 1645)]
    )

    answer = await call(engine, GENERATE, STREAM, headers=ABC)

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-request-id"] == "abc"
    expected = [
        chunk(choice(token_ids=[358])),
        chunk(choice(token_ids=[1079, 264])),
        chunk(choice(token_ids=[1645], finish_reason="stop", stop_reason=1645)),
    ]
    lines = [f"data: {json.dumps(each, separators=(',', ':'))}\n\n" for each in expected]
    assert answer.body.decode() == "".join(lines) + "data: [DONE]\n\n"
    assert answer.is_complete


async def test_engine_is_asked_for_what_the_request_says() -> None:
    engine = ScriptedEngine(ids_step(1, finish="stop"))
    body = {
        "token_ids": [5, 6, 7],
        "sampling_params": {
            "temperature": 0.5,
            "seed": 4,
            "stop_token_ids": [9],
            "logit_bias": {"12": 300},
            "repetition_detection": {"max_pattern_size": 4},
            "extra_args": {"own": 1},
            "output_kind": 0,
            "invented": True,
        },
        "model": "other-name",
        "request_id": "from-body",
        "priority": -3,
        "cache_salt": "mine",
        "kv_transfer_params": {"do_remote_decode": True},
        "parse_context": {"invented": 1},
        "invented": [],
    }

    answer = (await call(engine, GENERATE, body)).json()

    assert answer["request_id"] == "generate-tokens-from-body"
    assert answer["model"] == "other-name"
    [(prompt, params, engine_id, priority)] = engine.seen
    assert prompt == {"prompt_token_ids": [5, 6, 7], "cache_salt": "mine"}
    assert engine_id.startswith("from-body-")
    assert priority == -3
    assert (params.temperature, params.seed, params.stop_token_ids) == (0.5, 4, [9])
    assert params.max_tokens is None
    assert params.logit_bias == {12: 100.0}
    assert params.repetition_detection is not None
    assert params.repetition_detection.max_pattern_size == 4
    assert params.extra_args == {"own": 1, "kv_transfer_params": {"do_remote_decode": True}}
    assert params.output_kind is RequestOutputKind.FINAL_ONLY
    assert params.detokenize is False


async def test_max_tokens_that_is_not_said_is_what_the_model_recommends() -> None:
    engine = ScriptedEngine(ids_step(1, finish="stop"))
    engine.generation_config = GenerationConfig(max_new_tokens=40)

    await call(engine, GENERATE, REQUEST)
    await call(engine, GENERATE, REQUEST | {"sampling_params": {"max_tokens": 50}})

    assert [params.max_tokens for _, params, _, _ in engine.seen] == [40, 50]


async def test_text_is_made_only_where_it_is_needed() -> None:
    engine = ScriptedEngine(ids_step(1, finish="stop"))

    await call(engine, GENERATE, STREAM)
    await call(engine, GENERATE, STREAM | {"sampling_params": {"stop": "x"}})
    await call(engine, GENERATE, STREAM | {"output_mode": "text"})

    assert [params.detokenize for _, params, _, _ in engine.seen] == [False, True, True]
    assert all(params.output_kind is RequestOutputKind.DELTA for _, params, _, _ in engine.seen)


async def test_finish_without_tokens_is_told_and_nothing_is_not() -> None:
    engine = ScriptedEngine(ids_step(), ids_step(358), ids_step(), ids_step(finish="abort"))
    body = STREAM | {"return_token_ids": True}

    answer = await call(engine, GENERATE, body, headers=ABC)

    events = answer.events()
    assert events[0] == chunk(choice(token_ids=[358])) | {"prompt_token_ids": [97, 11]}
    assert list(events[0]) == [
        "request_id", "usage", "prompt_token_ids", "output_mode", "choices",
    ]  # fmt: skip
    assert events[1:] == [chunk(choice(finish_reason="abort")), "[DONE]"]


async def test_prompt_token_ids_ride_on_a_finish_that_is_the_only_chunk() -> None:
    engine = ScriptedEngine(ids_step(), ids_step(finish="length"))

    answer = await call(engine, GENERATE, STREAM | {"return_token_ids": True}, headers=ABC)

    expected = chunk(choice(finish_reason="length")) | {"prompt_token_ids": [97, 11]}
    assert answer.events() == [expected, "[DONE]"]


async def test_choices_interleave_and_finish_once_each() -> None:
    engine = ScriptedEngine(
        ids_step(5, index=1),
        [delta(0, "", [6]), delta(1, "", [7], "length")],
        [delta(2, "", [], "stop"), delta(0, "", [8], "stop", 8)],
    )
    body = STREAM | {
        "sampling_params": {"n": 3},
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }

    events = (await call(engine, GENERATE, body, headers=ABC)).events()

    assert all("prompt_token_ids" in event for event in events[:1])
    assert not any("prompt_token_ids" in event for event in events[1:])
    events[0].pop("prompt_token_ids")
    assert events == [
        chunk(choice(1, token_ids=[5])),
        chunk(choice(0, token_ids=[6])),
        chunk(choice(1, token_ids=[7], finish_reason="length")),
        chunk(choice(2, finish_reason="stop")),
        chunk(choice(0, token_ids=[8], finish_reason="stop", stop_reason=8)),
        chunk(usage=counts(2, 4)),
        "[DONE]",
    ]


async def test_continuous_usage_counts_each_choice() -> None:
    steps = [ids_step(1), [delta(1, "", [2, 3])], ids_step(4, finish="stop")]
    engine = ScriptedEngine(*steps, ids_step(index=1, finish="length"))
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = STREAM | {"sampling_params": {"n": 2}, "stream_options": options}

    events = (await call(engine, GENERATE, body)).events()

    assert [event["usage"] for event in events[:-1]] == [
        counts(2, 1),
        counts(2, 2),
        counts(2, 2),
        counts(2, 2),
        counts(2, 4),
    ]
    assert events[-2]["choices"] == []


async def test_continuous_usage_is_inert_alone() -> None:
    engine = ScriptedEngine(ids_step(1, finish="stop"))
    body = STREAM | {"stream_options": {"continuous_usage_stats": True}}

    events = (await call(engine, GENERATE, body, headers=ABC)).events()

    assert events == [chunk(choice(token_ids=[1], finish_reason="stop")), "[DONE]"]


@pytest.mark.parametrize("cached", [0, 1])
async def test_what_is_learnt_late_of_the_prompt_is_counted(cached: int) -> None:
    outputs = [output(delta(0, "", [1])), output(delta(0, "", [2], "stop"), cached=cached)]
    engine = OutputsEngine(*outputs)
    app = create_app(engine, model_names=["m"], model_root="root", has_prompt_details=True)
    options = {"include_usage": True, "continuous_usage_stats": True}

    events = (await call_app(app, GENERATE, STREAM | {"stream_options": options})).events()
    body = (await call_app(app, GENERATE, REQUEST)).json()

    details = [event["usage"]["prompt_tokens_details"] for event in events[:-1]]
    assert details == [{"cached_tokens": each} for each in (0, cached, cached)]
    assert events[-2]["usage"] == counts(2, 2) | {"prompt_tokens_details": details[-1]}
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": cached}


FAILURES = [EngineGenerateError("secret"), [delta(0, "", [], "error")]]


@pytest.mark.parametrize("failure", FAILURES)
async def test_failure_ends_a_stream_with_an_error_and_no_usage(failure: Any) -> None:
    engine = ScriptedEngine(ids_step(358, 1079), failure)
    body = STREAM | {"stream_options": {"include_usage": True}}

    events = (await call(engine, GENERATE, body, headers=ABC)).events()

    error = {
        "message": "Internal server error",
        "type": "InternalServerError",
        "param": None,
        "code": 500,
    }
    assert events == [chunk(choice(token_ids=[358, 1079])), {"error": error}, "[DONE]"]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("failure", FAILURES)
async def test_failure_before_the_first_token_has_a_status(failure: Any, is_stream: bool) -> None:
    answer = await call(ScriptedEngine(failure), GENERATE, REQUEST | {"stream": is_stream})

    assert (answer.status, answer.json()["error"]["type"]) == (500, "InternalServerError")


@pytest.mark.parametrize("is_stream", [False, True])
async def test_client_that_goes_away_ends_its_request(is_stream: bool) -> None:
    engine = ScriptedEngine(ids_step(1), holds=True)
    gone = asyncio.Event()
    body = REQUEST | {"stream": is_stream}
    calling = asyncio.create_task(call(engine, GENERATE, body, disconnect=gone))
    await engine.arrivals.acquire()
    assert engine.num_live == 1

    gone.set()
    await calling

    assert engine.num_live == 0


async def test_text_comes_with_its_tokens() -> None:
    engine = ScriptedEngine(
        [delta(0, "He", [1])],
        [delta(0, "", [2])],
        [delta(0, "é", [])],
        [delta(0, "", [])],
        [delta(0, "!", [3], "stop", "END")],
    )
    body = {"output_mode": "text", "stream_options": {"include_usage": True}}

    events = (await call(engine, GENERATE, STREAM | body, headers=ABC)).events()
    whole = (await call(engine, GENERATE, REQUEST | {"output_mode": "text"})).json()

    pieces = [("He", [1]), ("", [2]), ("é", [])]
    assert events == [
        *(chunk(choice(token_ids=ids, text=text), mode="text") for text, ids in pieces),
        chunk(
            choice(token_ids=[3], text="!", finish_reason="stop", stop_reason="END"), mode="text"
        ),
        chunk(usage=counts(2, 3), mode="text"),
        "[DONE]",
    ]
    for each in (events[0], events[3]):
        assert list(each["choices"][0])[-2:] == ["text", "logprobs"]
    assert whole["choices"] == [
        choice(token_ids=[1, 2, 3], text="Heé!", finish_reason="stop", stop_reason="END")
    ]
    assert list(whole["choices"][0])[-2:] == ["text", "logprobs"]


async def test_server_without_a_tokenizer_serves_tokens_only() -> None:
    class BareEngine(ScriptedEngine):
        def get_tokenizer(self) -> Any:
            raise AssertionError

    app = create_app(
        BareEngine(ids_step(1, finish="stop")),
        model_names=["m"],
        model_root="root",
        tokens_only=True,
    )

    async def status(path: str, body: Any = None) -> Answer:
        return await call_app(app, path, body, method="GET" if body is None else "POST")

    assert (await status(GENERATE, REQUEST)).json()["choices"][0]["token_ids"] == [1]
    for path in ("/v1/models", "/health", "/version"):
        assert (await status(path)).status == 200
    for path in ("/v1/chat/completions", "/v1/completions"):
        assert (await status(path, {})).status == 404
    for fields, param, phrase in (
        ({"sampling_params": {"stop": ["x"]}}, "stop", "stop strings"),
        ({"output_mode": "text"}, "output_mode", "requires a tokenizer"),
        ({"output_mode": "derender"}, "output_mode", "requires a tokenizer"),
    ):
        refusal = await status(GENERATE, REQUEST | fields)
        assert refusal.status == 400
        assert refusal.json()["error"]["param"] == param
        assert phrase in refusal.json()["error"]["message"]
