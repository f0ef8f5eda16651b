"""The token endpoint over the bundled model: its tokens are the engine's."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

from running_server import RunningServer
from scripted_engine import BUNDLED_TOKENIZER, call_app, parse_events

from rillm.async_llm import AsyncLLM
from rillm.engine_args import AsyncEngineArgs
from rillm.sampling_params import SamplingParams
from rillm.server.app import create_app

GENERATE = "/inference/v1/generate"
ABORT = "/inference/v1/abort_requests"
MESSAGES = [{"role": "user", "content": "Tell me about the sea."}]
PROMPT = BUNDLED_TOKENIZER.encode_chat(MESSAGES)
ENDLESS = {"max_tokens": 1900, "ignore_eos": True}


@contextmanager
def opened(server: RunningServer, path: str, body: Any) -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        headers = {"Content-Type": "application/json", "X-Request-Id": "abc"}
        connection.request("POST", path, json.dumps(body), headers)
        with connection.getresponse() as response:
            yield response


def post(server: RunningServer, path: str, body: Any) -> Any:
    with opened(server, path, body) as response:
        assert response.status == 200
        raw = response.read()
    return parse_events(raw) if body.get("stream") else json.loads(raw)


def body_of(mode: str = "tokens", **sampling: Any) -> dict[str, Any]:
    return {
        "token_ids": PROMPT,
        "sampling_params": {"temperature": 0, "max_tokens": 24} | sampling,
        "output_mode": mode,
        "parse_context": {},
    }


@asynccontextmanager
async def bare_llm() -> AsyncIterator[AsyncLLM]:
    """An engine without a tokenizer."""
    settings = AsyncEngineArgs(
        skip_tokenizer_init=True, kv_cache_memory_bytes=64 * 2**20, num_threads=1
    )
    llm = AsyncLLM.from_engine_args(settings)
    try:
        yield llm
    finally:
        llm.shutdown()


def token_ids_of(events: list[Any], num_choices: int = 1) -> list[list[int]]:
    ids: list[list[int]] = [[] for _ in range(num_choices)]
    for event in events[:-1]:
        for choice in event["choices"]:
            ids[choice["index"]] += choice["token_ids"]
    return ids


async def test_tokens_are_those_of_the_engine_with_a_tokenizer_and_without(
    server: RunningServer,
) -> None:
    sampling: dict[str, Any] = {"n": 2, "temperature": 0.8, "seed": 5, "max_tokens": 24}
    params = SamplingParams(**sampling)
    async with bare_llm() as llm:
        app = create_app(llm, model_names=["m"], model_root="root", tokens_only=True)
        outputs = [each async for each in llm.generate(PROMPT, params, "reference")]
        bare = await call_app(app, GENERATE, body_of(**sampling))
        bare_stream = await call_app(app, GENERATE, body_of(**sampling) | {"stream": True})
        loads = await call_app(app, ABORT, {"request_ids": ["generate-tokens-nobody"]})

    expected = [each.token_ids for each in outputs[-1].outputs]
    assert [len(ids) > 1 for ids in expected] == [True, True]
    assert [each["token_ids"] for each in bare.json()["choices"]] == expected
    assert token_ids_of(bare_stream.events(), 2) == expected
    whole = post(server, GENERATE, body_of(**sampling))
    events = post(server, GENERATE, body_of(**sampling) | {"stream": True})
    assert [each["token_ids"] for each in whole["choices"]] == expected
    assert token_ids_of(events, 2) == expected
    assert (loads.status, loads.body) == (200, b"")


def test_text_and_message_are_those_of_chat(server: RunningServer) -> None:
    chat = post(
        server,
        "/v1/chat/completions",
        {"messages": MESSAGES, "temperature": 0, "max_tokens": 24, "return_token_ids": True},
    )
    [expected] = chat["choices"]
    assert chat["prompt_token_ids"] == PROMPT

    for mode in ("text", "derender"):
        [whole] = post(server, GENERATE, body_of(mode))["choices"]
        events = post(server, GENERATE, body_of(mode) | {"stream": True})
        choices = [choice for event in events[:-1] for choice in event["choices"]]
        if mode == "text":
            assert whole["text"] == "".join(each["text"] for each in choices)
            assert whole["text"] == expected["message"]["content"]
        else:
            assert whole["message"] == expected["message"]
            told = "".join(each["delta"].get("content", "") for each in choices)
            assert told == expected["message"]["content"]
        assert token_ids_of(events) == [whole["token_ids"]] == [expected["token_ids"]]


def test_stop_strings_end_tokens_and_text(server: RunningServer) -> None:
    text = post(server, GENERATE, body_of("text"))["choices"][0]["text"]
    stop = text.split()[3]

    [choice] = post(server, GENERATE, body_of(stop=[stop]))["choices"]
    [told] = post(server, GENERATE, body_of("text", stop=[stop]))["choices"]

    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    assert told["text"] == text.partition(stop)[0]
    assert choice["token_ids"] == told["token_ids"]
    assert stop in BUNDLED_TOKENIZER.decode(choice["token_ids"])


def test_logprobs_are_by_id(server: RunningServer) -> None:
    answer = post(server, GENERATE, body_of(logprobs=2, prompt_logprobs=0))

    [choice] = answer["choices"]
    content = choice["logprobs"]["content"]
    assert [each["token_id"] for each in content] == choice["token_ids"]
    # Greedy: the token is the best one, so that it is among the two.
    assert all([top["rank"] for top in each["top_logprobs"]] == [1, 2] for each in content)
    assert answer["prompt_logprobs"][0] is None
    assert [list(each) for each in answer["prompt_logprobs"][1:]] == [
        [str(token_id)] for token_id in PROMPT[1:]
    ]


def test_max_tokens_that_is_not_said_is_the_rest_of_the_context(server: RunningServer) -> None:
    length = server.llm.max_model_len
    for max_tokens in ({}, {"max_tokens": None}):
        sampling = {"temperature": 0, "ignore_eos": True} | max_tokens
        body = {"token_ids": [97] * (length - 20), "sampling_params": sampling}

        [choice] = post(server, GENERATE, body)["choices"]

        assert (len(choice["token_ids"]), choice["finish_reason"]) == (20, "length")


def test_abort_ends_every_request_of_that_id_and_no_other(server: RunningServer) -> None:
    body = body_of(**ENDLESS) | {"stream": True, "stream_options": {"include_usage": True}}
    with opened(server, GENERATE, body) as first, opened(server, GENERATE, body) as second:
        heads = [each.readline() for each in (first, second)]
        assert all(b'"generate-tokens-abc"' in head for head in heads)

        ids = {"request_ids": ["nobody", "generate-tokens-abc"]}
        with server.suspended(), opened(server, ABORT, ids) as answer:
            assert (answer.status, answer.read()) == (200, b"")

        for head, response in zip(heads, (first, second), strict=True):
            *chunks, usage, done = parse_events(head + response.read())
            [choice] = chunks[-1]["choices"]
            assert choice["finish_reason"] == "abort"
            told = sum(len(chunk["choices"][0]["token_ids"]) for chunk in chunks)
            assert usage["usage"]["completion_tokens"] == told < 1900
            assert done == "[DONE]"


def test_abort_of_a_whole_answer_tells_what_there_was(server: RunningServer) -> None:
    with (
        opened(server, GENERATE, body_of(**ENDLESS) | {"stream": True}) as other,
        closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as whole,
    ):
        other.readline()
        with server.suspended():
            headers = {"Content-Type": "application/json", "X-Request-Id": "whole"}
            whole.request("POST", GENERATE, json.dumps(body_of(**ENDLESS)), headers)
            while server.llm.get_num_unfinished_requests() < 2:
                time.sleep(0.01)

            post_ids = {"request_ids": ["generate-tokens-whole"]}
            with opened(server, ABORT, post_ids) as answer:
                assert answer.status == 200

            body = json.load(whole.getresponse())
        assert body["choices"][0]["finish_reason"] == "abort"
        # The other one goes on to its end.
        assert b'"finish_reason":"length"' in other.read()


async def test_request_is_ended_while_the_model_loads() -> None:
    async with bare_llm() as llm:
        outputs = llm.generate(PROMPT, SamplingParams(), "early")
        asking = asyncio.create_task(anext(outputs))
        await asyncio.sleep(0)
        assert llm.ready_info is None

        await llm.abort("early")

        output = await asking
        assert [each async for each in outputs] == []
    assert output.finished
    assert [(each.token_ids, each.finish_reason) for each in output.outputs] == [([], "abort")]


def test_command_serves_tokens_only() -> None:
    command = [sys.executable, "-m", "rillm", "serve", "--tokens-only", "--port", "0"]
    sizes = ["--kv-cache-memory-bytes", str(64 * 2**20), "--num-threads", "1"]
    with subprocess.Popen([*command, *sizes], stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        url = serving.stderr.readline().split()[-1]
        address = url.removeprefix("http://")
        with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", GENERATE, json.dumps(body_of(max_tokens=4)), headers)
            answer = json.load(connection.getresponse())
            connection.request("POST", "/v1/chat/completions", "{}", headers)
            status = connection.getresponse().status
        serving.terminate()
        serving.communicate(timeout=30)

    assert len(answer["choices"][0]["token_ids"]) == 4
    assert (status, serving.returncode) == (404, 0)
