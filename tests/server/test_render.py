"""Render and derender: a request's way to an engine and back, by hand."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from running_server import RunningServer
from scripted_engine import BUNDLED_TOKENIZER, ScriptedEngine, SpeakingEngine, call, parse_events

from rillm.engine_args import EngineArgs
from rillm.output_formats import choose_formats

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
GENERATE = "/inference/v1/generate"
MESSAGES = [{"role": "user", "content": "What is the tide in Brest?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_tide",
            "description": "The tide in a port.",
            "parameters": {"type": "object", "properties": {"port": {"type": "string"}}},
        },
    }
]
FORMATS = choose_formats(EngineArgs().model_directory(), BUNDLED_TOKENIZER, "bundled")
# What no two requests have in common.
OWN = ("id", "created", "request_id")

CHATS: list[dict[str, Any]] = [
    {"temperature": 0, "max_tokens": 1},
    {"temperature": 0, "max_tokens": 16},
    {"temperature": 0},
    {"temperature": 0, "max_tokens": 40, "tools": TOOLS},
    {"temperature": 0, "max_tokens": 40, "tools": TOOLS, "tool_choice": "none"},
    {"temperature": 0, "max_tokens": 60, "chat_template_kwargs": {"enable_thinking": True}},
    {"seed": 7, "n": 3, "max_tokens": 12, "logprobs": True, "top_logprobs": 2},
    {"temperature": 0, "max_tokens": 24, "logprobs": True, "return_token_ids": True},
    {"temperature": 0, "max_tokens": 24, "stop": ["e"]},
    {"temperature": 0, "max_tokens": 24, "stop": "ide", "include_stop_str_in_output": True},
    {"temperature": 0, "max_tokens": 24, "ignore_eos": True, "stop_token_ids": [5, 97]},
]


def post(server: RunningServer, path: str, body: Any) -> Any:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        raw = response.read()
    assert response.status == 200, raw
    is_stream = response.headers["Content-Type"].startswith("text/event-stream")
    return parse_events(raw) if is_stream else json.loads(raw)


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what is made anew each time."""
    answer = {name: value for name, value in answer.items() if name not in OWN}
    # What is in the prefix cache depends on who came before.
    answer["usage"] = answer["usage"] | {"prompt_tokens_details": None}
    for choice in answer["choices"]:
        for tool_call in choice["message"].get("tool_calls", ()):
            assert tool_call.pop("id")
    return answer


def whole_of(chunks: Sequence[Any], index: int) -> dict[str, Any]:
    """What the chunks of a chat stream add up to, for one choice."""
    whole: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": {}, "ends": []}
    whole |= {"logprobs": [], "roles": [], "token_ids": []}
    for choice in (each for chunk in chunks for each in chunk["choices"]):
        if choice["index"] != index:
            continue
        delta = choice["delta"]
        if "role" in delta:
            whole["roles"].append(delta["role"])
        for name in ("content", "reasoning_content"):
            whole[name] += delta.get(name, "")
        for tool_call in delta.get("tool_calls", ()):
            known = whole["calls"].setdefault(tool_call["index"], {"name": "", "arguments": ""})
            for name in known:
                known[name] += tool_call["function"].get(name) or ""
        if choice["logprobs"] is not None:
            whole["logprobs"] += choice["logprobs"]["content"]
        whole["token_ids"] += choice.get("token_ids") or []
        if choice["finish_reason"] is not None:
            whole["ends"].append((choice["finish_reason"], choice["stop_reason"]))
    return whole


@pytest.mark.parametrize("fields", CHATS)
def test_render_generate_derender_is_chat(server: RunningServer, fields: dict[str, Any]) -> None:
    request = {"messages": MESSAGES} | fields

    rendered = post(server, f"{CHAT}/render", request)
    generated = post(server, GENERATE, rendered)
    told = post(
        server,
        f"{CHAT}/derender",
        {
            "generate_response": generated,
            "prompt_token_ids": rendered["token_ids"],
            "chat_request": request,
            "id": "mine",
            "created": 17,
        },
    )

    assert (told["id"], told["created"]) == ("mine", 17)
    assert comparable(told) == comparable(post(server, CHAT, request))


@pytest.mark.parametrize(
    "fields", [each for each in CHATS if "stop" not in each and "max_tokens" in each]
)
def test_chunks_derendered_one_by_one_are_a_chat_stream(
    server: RunningServer, fields: dict[str, Any]
) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    request = {"messages": MESSAGES} | fields | options
    rendered = post(server, f"{CHAT}/render", request)
    assert rendered["stream_options"]["include_usage"] is True

    states: dict[int, Any] = {}
    chunks = []
    *generated, done = post(server, GENERATE, rendered)
    assert done == "[DONE]"
    for chunk in generated:
        index = chunk["choices"][0]["index"] if chunk["choices"] else 0
        told = post(
            server,
            f"{CHAT}/derender",
            {
                "stream": True,
                "generate_chunk": chunk,
                "stream_state": states.get(index),
                "prompt_tokens": len(rendered["token_ids"]),
                "prompt_token_ids": rendered["token_ids"],
                "chat_request": request,
                "created": 17,
            },
        )
        states[index] = told["stream_state"]
        chunks.append(told["chunk"])

    *expected, _ = post(server, CHAT, request)
    assert {chunk["created"] for chunk in chunks} == {17}
    assert {chunk["id"] for chunk in chunks} == {f"generate-tokens-{rendered['request_id']}"}
    for index in range(fields.get("n", 1)):
        assert whole_of(chunks, index) == whole_of(expected, index)
        assert whole_of(chunks, index)["roles"] == ["assistant"]
    *_, usage = chunks
    assert usage["choices"] == []
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert usage["usage"][name] == expected[-1]["usage"][name]
    if fields.get("n", 1) == 1:
        details = "completion_tokens_details"
        assert usage["usage"][details] == expected[-1]["usage"][details]


def test_completions_go_the_same_way(server: RunningServer) -> None:
    request = {
        "prompt": ["The sea", "A tide"],
        "temperature": 0.5,
        "seed": 3,
        "n": 2,
        "logprobs": 1,
        "return_token_ids": True,
    }
    rendered = post(server, f"{COMPLETIONS}/render", request)
    # The default of 16 is said: the token endpoint would go on to the end of the context.
    assert [each["sampling_params"]["max_tokens"] for each in rendered] == [16, 16]
    assert [each["request_id"][-2:] for each in rendered] == ["-0", "-1"]

    generated = [post(server, GENERATE, each) for each in rendered]
    told = post(
        server,
        f"{COMPLETIONS}/derender",
        {
            "generate_responses": generated,
            "prompt_token_ids": [each["token_ids"] for each in rendered],
            "prompt_tokens": [len(each["token_ids"]) for each in rendered],
            "completion_request": request,
        },
    )

    assert [choice["index"] for choice in told["choices"]] == [0, 1, 2, 3]
    for choice in told["choices"]:
        answer = generated[choice["index"] // 2]["choices"][choice["index"] % 2]
        assert choice["token_ids"] == answer["token_ids"]
        text = BUNDLED_TOKENIZER.decode(choice["token_ids"])
        assert choice["text"] == text
        assert len(choice["logprobs"]["tokens"]) == len(choice["token_ids"])
    assert told["usage"]["completion_tokens"] == sum(
        len(choice["token_ids"]) for choice in told["choices"]
    )


def test_completion_chunks_one_by_one(server: RunningServer) -> None:
    request = {"prompt": "The sea", "max_tokens": 6, "temperature": 0, "logprobs": 1}
    [rendered] = post(server, f"{COMPLETIONS}/render", request)
    *generated, _ = post(server, GENERATE, rendered | {"stream": True})
    state, chunks = None, []
    for chunk in generated:
        told = post(
            server,
            f"{COMPLETIONS}/derender",
            {
                "stream": True,
                "generate_chunk": chunk,
                "stream_state": state,
                "prompt_token_ids": rendered["token_ids"],
                "completion_request": request,
            },
        )
        state = told["stream_state"]
        chunks.append(told["chunk"]["choices"][0])

    [whole] = post(server, COMPLETIONS, request)["choices"]
    assert "".join(each["text"] for each in chunks) == whole["text"]
    for name in ("tokens", "text_offset", "token_logprobs"):
        told = [item for each in chunks for item in each["logprobs"][name]]
        assert len(told) == len(whole["logprobs"][name])
        if name != "token_logprobs":
            assert told == whole["logprobs"][name]
    assert chunks[-1]["finish_reason"] == whole["finish_reason"]


async def test_rendering_asks_no_engine_and_names_fit() -> None:
    engine = ScriptedEngine()
    headers = [("x-request-id", "r" * 128)]
    body = {"messages": MESSAGES, "tools": TOOLS, "tool_choice": "none", "max_tokens": 16}

    answer = await call(engine, f"{CHAT}/render", body, headers=headers)

    rendered = answer.json()
    assert engine.seen == []
    assert rendered["request_id"] == "chatcmpl-" + "r" * 119
    assert rendered["sampling_params"]["max_tokens"] == 16
    assert rendered["parse_context"] == {
        "tools": TOOLS,
        "tool_choice": "none",
        "parallel_tool_calls": True,
        "include_reasoning": True,
        "chat_template_kwargs": {},
        "history_tool_call_cnt": 0,
    }
    assert rendered["token_ids"] == BUNDLED_TOKENIZER.encode_chat(MESSAGES, tools=TOOLS)


def told(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "token_ids": [97], "finish_reason": "stop"} | choice]}


ASKED = {"chat_request": {"messages": MESSAGES}, "prompt_token_ids": [1]}
PLAIN = {"content": [{"token_id": 97, "logprob": -1}]}
MANY = {"content": [{"token_id": 97, "logprob": -1, "top_logprobs": PLAIN["content"] * 22}]}


@pytest.mark.parametrize(
    ("path", "body", "phrase"),
    [
        (f"{CHAT}/derender", {}, "chat_request"),
        (f"{CHAT}/derender", {"chat_request": ASKED["chat_request"]}, "prompt_token_ids"),
        (f"{CHAT}/derender", ASKED, "generate_response"),
        (f"{CHAT}/derender", ASKED | {"generate_response": {}}, "choices"),
        (f"{CHAT}/derender", ASKED | {"generate_response": told(index=1)}, "indices"),
        (f"{CHAT}/derender", ASKED | {"generate_response": told(token_ids=[])}, "is empty"),
        (
            f"{CHAT}/derender",
            ASKED | {"generate_response": told(token_ids=[9] * 2049)},
            "max_model_len",
        ),
        (f"{CHAT}/derender", ASKED | {"generate_response": told(token_ids=[10**9])}, "vocabulary"),
        (f"{CHAT}/derender", ASKED | {"generate_response": told(finish_reason="odd")}, "odd"),
        (f"{CHAT}/derender", ASKED | {"generate_response": told(logprobs={})}, "logprobs"),
        (f"{CHAT}/derender", ASKED | {"generate_response": told(logprobs=MANY)}, "top_logprobs"),
        (
            f"{CHAT}/derender",
            ASKED | {"generate_response": told() | {"output_mode": "text"}},
            "output_mode=text",
        ),
        (f"{CHAT}/derender", ASKED | {"generate_response": {"error": {}}}, "error"),
        (f"{CHAT}/derender", ASKED | {"stream": True}, "generate_chunk"),
        (
            f"{CHAT}/derender",
            ASKED | {"stream": True, "generate_chunk": {"choices": [{"index": 0}, {"index": 1}]}},
            "at most one choice",
        ),
        (
            f"{CHAT}/derender",
            {
                "stream": True,
                "generate_chunk": told(),
                "chat_request": {"messages": MESSAGES, "stop": ["a"]},
                "prompt_token_ids": [1],
            },
            "stop",
        ),
        (f"{COMPLETIONS}/derender", {}, "generate_responses count"),
        (
            f"{COMPLETIONS}/derender",
            {"generate_responses": [told()], "prompt_tokens": [1, 2]},
            "prompt_tokens",
        ),
        (
            f"{COMPLETIONS}/derender",
            {"generate_responses": [told()], "prompt_token_ids": [[1], [2]]},
            "prompt_token_ids",
        ),
        (f"{CHAT}/render", {"messages": [MESSAGES[0] | {"content": "a " * 4000}]}, "context"),
    ],
)
async def test_what_is_refused(path: str, body: Any, phrase: str) -> None:
    engine = SpeakingEngine("", formats=FORMATS)

    answer = await call(engine, path, body)

    assert answer.status == 400, answer.body
    assert phrase in answer.json()["error"]["message"]


async def test_unknown_model_is_not_found() -> None:
    for path in (f"{CHAT}/render", f"{CHAT}/derender", f"{COMPLETIONS}/derender"):
        body = {"messages": MESSAGES, "model": "nobody"}
        assert (await call(ScriptedEngine(), path, body)).status == 404
