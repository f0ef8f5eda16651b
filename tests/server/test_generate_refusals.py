"""What the token endpoint refuses: status, type and field, and which error is told first."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_engine import Answer, ScriptedEngine, call, delta

GENERATE = "/inference/v1/generate"
ABORT = "/inference/v1/abort_requests"
VOCABULARY = 2048
CONTEXT = 2048


async def post(body: Any, path: str = GENERATE) -> Answer:
    engine = ScriptedEngine([delta(0, "", [1], "stop")])
    answer = await call(engine, path, body)
    if answer.status != 200:
        assert engine.seen == []
    return answer


def sampling(**values: Any) -> dict[str, Any]:
    return {"sampling_params": values}


IN_ORDER: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "nobody"}, "model", "does not exist"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
    ({"token_ids": []}, "token_ids", "at least one token ID"),
    (sampling(max_tokens=0), "max_tokens", "greater than 0"),
    (sampling(prompt_logprobs=-2), "prompt_logprobs", "-1"),
    ({"features": [{}]}, "features", "empty"),
    (sampling(trace_decode_token_ids=True), "trace_decode_token_ids", "not supported"),
    ({"token_ids": [1, VOCABULARY]}, "token_ids", "out of vocabulary"),
    (sampling(logprobs=21), "logprobs", "20"),
    (
        {"token_ids": [1] * CONTEXT},
        "input_tokens",
        f"maximum context length is {CONTEXT} tokens",
    ),
    (sampling(min_tokens=2050), "min_tokens", "min_tokens=2050"),
    (sampling(temperature=9), "temperature", "temperature"),
]
"""Each is refused before all that follow it."""


def both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    params = {**second.get("sampling_params", {}), **first.get("sampling_params", {})}
    return {"token_ids": [1], **second, **first, "sampling_params": params}


@pytest.mark.parametrize("position", range(len(IN_ORDER)))
async def test_errors_are_told_in_order(position: int) -> None:
    fields, param, phrase = IN_ORDER[position]
    for later, _, _ in [({}, "", ""), *IN_ORDER[position + 1 :]]:
        answer = await post(both(fields, later))

        error = answer.json()["error"]
        status, kind = (404, "NotFoundError") if param == "model" else (400, "BadRequestError")
        assert (answer.status, error["code"]) == (status, status)
        assert (error["type"], error["param"]) == (kind, param)
        assert phrase in error["message"]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"content_parts": ["x"]}, "content_parts"),
        ({"cache_salt": "a@b"}, "cache_salt"),
        ({"cache_salt": ""}, "cache_salt"),
        ({"request_id": "a b"}, "request_id"),
        (sampling(max_tokens=-1), "max_tokens"),
        (sampling(n=0), "n"),
        (sampling(n=2, temperature=0), "n"),
        (sampling(stop=""), "stop"),
        (sampling(stop=["x", ""]), "stop"),
        (sampling(stop="x", detokenize=False), "stop"),
        (sampling(structured_outputs={}), "structured_outputs"),
        (sampling(structured_outputs={"regex": ""}), "structured_outputs.regex"),
        (sampling(guided_decoding={"regex": "a"}), "guided_decoding"),
        (sampling(thinking_token_budget=5), "thinking_token_budget"),
        (sampling(logprobs=-2), "logprobs"),
        (sampling(logprobs=-1), "logprobs"),
        (sampling(logprobs=2, logprob_token_ids=[1]), "logprobs"),
        (sampling(min_tokens=5, max_tokens=4), "min_tokens"),
        (sampling(top_p=0), "top_p"),
        (sampling(top_k=-2), "top_k"),
        (sampling(min_p=1.5), "min_p"),
        (sampling(repetition_penalty=0), "repetition_penalty"),
        (sampling(presence_penalty=2.5), "presence_penalty"),
        (sampling(frequency_penalty=-2.5), "frequency_penalty"),
        (sampling(logit_bias={"x": 1}), "logit_bias"),
        (sampling(allowed_token_ids=[]), "allowed_token_ids"),
        (sampling(stop_token_ids=[-1]), "stop_token_ids"),
        (sampling(bad_words=[""]), "bad_words"),
        (sampling(stream_interval=0), "stream_interval"),
        (
            sampling(repetition_detection={"max_pattern_size": 0}),
            "repetition_detection.max_pattern_size",
        ),
        (sampling(extra_args={"x": 2**64}), "extra_args"),
        ({"kv_transfer_params": {"x": 2**64}}, "extra_args"),
        ({"output_mode": "text"} | sampling(detokenize=False), "detokenize"),
    ],
)
async def test_field_that_cannot_be_served_is_named(
    fields: dict[str, Any], param: str, is_stream: bool
) -> None:
    answer = await post({"token_ids": [1], "sampling_params": {}, "stream": is_stream} | fields)

    error = answer.json()["error"]
    assert (answer.status, error["type"], error["param"]) == (400, "BadRequestError", param)
    assert error["message"]


@pytest.mark.parametrize("name", ["prompt_logprobs", "prompt_logprob_token_ids"])
async def test_what_a_stream_cannot_tell_is_refused(name: str) -> None:
    value = 1 if name == "prompt_logprobs" else [[1]]

    answer = await post({"token_ids": [1, 2], "stream": True} | sampling(**{name: value}))

    error = answer.json()["error"]
    assert (answer.status, error["param"]) == (400, name)
    assert "not available when `stream=true`" in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"token_ids": [1]', None),
        ({"token_ids": [1]}, "sampling_params"),
        ({"sampling_params": {}}, "token_ids"),
        ({"token_ids": [1], "sampling_params": None}, "sampling_params"),
        ({"token_ids": [1, -2], "sampling_params": {}}, "token_ids[1]"),
        ({"token_ids": [1, 2.5], "sampling_params": {}}, "token_ids[1]"),
        ({"token_ids": [1, "2"], "sampling_params": {}}, "token_ids[1]"),
        ({"token_ids": [True], "sampling_params": {}}, "token_ids[0]"),
        ({"token_ids": [1]} | sampling(temperature="hot"), "sampling_params.temperature"),
        ({"token_ids": [1]} | sampling(max_tokens=1.5), "sampling_params.max_tokens"),
        ({"token_ids": [1]} | sampling(logprobs=True), "sampling_params.logprobs"),
        ({"token_ids": [1]} | sampling(n="2"), "sampling_params.n"),
        ({"token_ids": [1]} | sampling(seed=2**70), "sampling_params.seed"),
        ({"token_ids": [1]} | sampling(stop=[1]), "sampling_params.stop[0]"),
        ({"token_ids": [1]} | sampling(ignore_eos=1), "sampling_params.ignore_eos"),
        (
            {"token_ids": [1]} | sampling(repetition_detection={}),
            "sampling_params.repetition_detection.max_pattern_size",
        ),
        ({"token_ids": [1], "output_mode": "words"} | sampling(), "output_mode"),
        ({"token_ids": [1], "priority": 1.5} | sampling(), "priority"),
        ({"token_ids": [1], "parse_context": []} | sampling(), "parse_context"),
        ({"token_ids": [1], "kv_transfer_params": 1} | sampling(), "kv_transfer_params"),
        (
            {"token_ids": [1], "reasoning_parser_kwargs": {"x": 1}} | sampling(),
            "reasoning_parser_kwargs",
        ),
        (
            {"token_ids": [1], "stream": True, "stream_options": {"include_usage": "yes"}}
            | sampling(),
            "stream_options.include_usage",
        ),
    ],
)
async def test_body_of_wrong_types_is_malformed(body: Any, param: str | None) -> None:
    answer = await post(body)

    error = answer.json()["error"]
    assert (answer.status, error["type"], error["param"]) == (400, "Bad Request", param)
    assert error["message"].startswith("1 validation error: ")


@pytest.mark.parametrize("body", [b"", b"{}", {"request_ids": "r"}, {"request_ids": [1]}])
async def test_abort_needs_ids(body: Any) -> None:
    answer = await post(body, ABORT)

    assert (answer.status, answer.json()["error"]["type"]) == (400, "Bad Request")
