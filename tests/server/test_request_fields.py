"""What single request fields do to the answer."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from refusals import CHAT, COMPLETIONS, HELLO, post
from running_server import RunningServer
from scripted_engine import BUNDLED_TOKENIZER, ScriptedEngine, SpeakingEngine, call, delta, new_app
from scripted_engine import call_app as send

from rillm.formats.registry import combine
from rillm.models.config import GenerationConfig
from rillm.output_formats import OutputFormats
from rillm.outputs import Logprob
from rillm.server.options import HttpOptions

ENDS = [delta(0, "a", finish="stop")]
TIMING_KEYS = [
    "time_to_first_token_ms",
    "generation_time_ms",
    "queue_time_ms",
    "mean_itl_ms",
    "tokens_per_second",
    "speculative_decoding",
]


def ask(server: RunningServer, path: str, **fields: Any) -> Any:
    status, answer = post(server, path, json.dumps(fields).encode())
    assert status == 200, answer
    return answer


async def prompt_of(**fields: Any) -> str:
    """The prompt that a chat request makes, as text."""
    engine = ScriptedEngine(ENDS)
    answer = await call(engine, CHAT, {"messages": HELLO} | fields)
    assert answer.status == 200, answer.body
    token_ids = engine.seen[0][0]["prompt_token_ids"]
    return BUNDLED_TOKENIZER.decode(token_ids, skip_special_tokens=False)


def reasoning_engine() -> SpeakingEngine:
    formats = OutputFormats(combine(None, "qwen3"), BUNDLED_TOKENIZER)
    return SpeakingEngine("<think>\nhm\n</think>\n\nA", formats=formats)


async def test_recommended_defaults_give_way_to_the_request() -> None:
    engine = ScriptedEngine(ENDS)
    engine.generation_config = GenerationConfig(temperature=0.5, top_k=7, max_new_tokens=9)

    await call(engine, CHAT, {"messages": HELLO, "top_k": 3})
    await call(engine, COMPLETIONS, {"prompt": "a"})

    chat, completions = (params for _, params, _, _ in engine.seen)
    assert (chat.temperature, chat.top_k, chat.max_tokens) == (0.5, 3, 9)
    assert (completions.temperature, completions.top_k, completions.max_tokens) == (0.5, 7, 16)


async def test_sampling_fields_reach_the_engine() -> None:
    fields: dict[str, Any] = {
        "stop": "x",
        "stop_token_ids": [5],
        "ignore_eos": True,
        "min_tokens": 2,
        "bad_words": ["b"],
        "allowed_token_ids": [1, 2],
        "skip_special_tokens": False,
        "include_stop_str_in_output": True,
        "stream_interval": 4,
        "presence_penalty": 0.5,
    }
    for path, body in ((CHAT, {"messages": HELLO}), (COMPLETIONS, {"prompt": "a"})):
        engine = ScriptedEngine(ENDS)
        sent = body | fields | {"logit_bias": {"5": 400}, "priority": -3, "nobody_knows": {}}
        sent["repetition_detection"] = {"max_pattern_size": 4}
        assert (await call(engine, path, sent)).status == 200
        [(_, params, _, priority)] = engine.seen
        assert {name: getattr(params, name) for name in fields} == fields | {"stop": ["x"]}
        assert params.logit_bias == {5: 100.0}
        assert priority == -3
        assert params.repetition_detection is not None
        assert params.repetition_detection.min_count == 3


async def test_reasoning_effort_is_for_the_template() -> None:
    assert "<think>" not in await prompt_of(reasoning_effort="low")
    assert "<think>" in await prompt_of(reasoning_effort="none")
    off = {"enable_thinking": False}
    assert "<think>" in await prompt_of(reasoning_effort="high", chat_template_kwargs=off)


async def test_a_final_message_is_continued_and_echoed() -> None:
    messages = [*HELLO, {"role": "assistant", "content": [{"type": "text", "text": "Once "}]}]
    body = {"messages": messages, "continue_final_message": True, "echo": True}

    assert (await prompt_of(**body)).endswith("assistant\nOnce ")
    whole = (await call(ScriptedEngine(ENDS), CHAT, body)).json()
    events = (await call(ScriptedEngine(ENDS), CHAT, body | {"stream": True})).events()

    assert whole["choices"][0]["message"]["content"] == "Once a"
    assert [event["choices"][0]["delta"] for event in events[:-1]] == [
        {"role": "assistant", "content": ""},
        {"content": "Once "},
        {"content": "a"},
        {},
    ]


async def test_echo_repeats_no_message_of_another_role() -> None:
    whole = (await call(ScriptedEngine(ENDS), CHAT, {"messages": HELLO, "echo": True})).json()

    assert whole["choices"][0]["message"]["content"] == "a"


async def test_without_a_generation_prompt_the_role_is_the_last_messages() -> None:
    body = {"messages": HELLO, "add_generation_prompt": False, "echo": True}
    message = (await call(ScriptedEngine(ENDS), CHAT, body)).json()["choices"][0]["message"]

    assert (message["role"], message["content"]) == ("user", "helloa")


@pytest.mark.parametrize("is_stream", [True, False])
async def test_reasoning_that_is_not_included_shows_in_nothing(is_stream: bool) -> None:
    body: dict[str, Any] = {"messages": HELLO, "stream": is_stream, "reasoning_effort": "high"}
    body |= {"return_token_ids": True, "logprobs": True}
    shown = await call(reasoning_engine(), CHAT, body)
    hidden = await call(reasoning_engine(), CHAT, body | {"include_reasoning": False})

    assert b"reasoning_content" in shown.body
    assert b"reasoning_content" not in hidden.body
    events = hidden.events()[:-1] if is_stream else [hidden.json()]
    choices = [choice for event in events for choice in event["choices"]]
    assert all(choice.get("token_ids") is None for choice in choices)
    assert all(choice["logprobs"] is None for choice in choices)
    said = [choice["delta" if is_stream else "message"] for choice in choices]
    assert "".join(each.get("content") or "" for each in said) == "A"


async def test_the_prompt_is_told_as_text() -> None:
    body = {"messages": HELLO, "return_prompt_text": True}
    whole = (await call(ScriptedEngine(ENDS), CHAT, body)).json()
    events = (await call(ScriptedEngine(ENDS), CHAT, body | {"stream": True})).events()

    assert whole["prompt_text"] == events[0]["prompt_text"] == await prompt_of()


async def test_tokens_can_be_named_by_id() -> None:
    [token_id] = BUNDLED_TOKENIZER.encode("a", add_special_tokens=False)
    output = delta(0, "a", [token_id], "stop")
    output.logprobs = [{token_id: Logprob(-0.5, 1), 9: Logprob(-1.5, 2)}]
    fields = {"return_tokens_as_token_ids": True}
    chat = {"messages": HELLO, "logprobs": True, "top_logprobs": 2} | fields
    completions = {"prompt": "b", "logprobs": 1} | fields

    [entry] = (await call(ScriptedEngine([output]), CHAT, chat)).json()["choices"][0]["logprobs"][
        "content"
    ]
    found = (await call(ScriptedEngine([output]), COMPLETIONS, completions)).json()["choices"][0]

    assert entry["token"] == f"token_id:{token_id}"
    assert bytes(entry["bytes"]) == b"a"
    assert [each["token"] for each in entry["top_logprobs"]] == [entry["token"], "token_id:9"]
    assert found["logprobs"]["tokens"] == [f"token_id:{token_id}"]
    assert found["logprobs"]["top_logprobs"] == [{f"token_id:{token_id}": -0.5, "token_id:9": -1.5}]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"truncate_prompt_tokens": 2}, [8, 9]),
        ({"truncate_prompt_tokens": 2, "truncation_side": "left"}, [8, 9]),
        ({"truncate_prompt_tokens": 2, "truncation_side": "right"}, [5, 6]),
        ({"truncate_prompt_tokens": 9}, [5, 6, 7, 8, 9]),
        ({"truncate_prompt_tokens": -1, "max_tokens": 2047}, [9]),
        ({"truncate_prompt_tokens": -1, "max_tokens": 2045}, [7, 8, 9]),
        ({"truncation_side": "right"}, [5, 6, 7, 8, 9]),
    ],
)
async def test_a_prompt_is_cut_where_it_is_asked_to_be(
    fields: dict[str, Any], kept: list[int]
) -> None:
    engine = ScriptedEngine(ENDS)
    answer = await call(engine, COMPLETIONS, {"prompt": [5, 6, 7, 8, 9]} | fields)

    assert engine.seen[0][0]["prompt_token_ids"] == kept
    assert answer.json()["usage"]["prompt_tokens"] == len(kept)


async def test_a_prompt_without_special_tokens() -> None:
    engine = ScriptedEngine(ENDS)
    await call(engine, COMPLETIONS, {"prompt": "a", "add_special_tokens": False})

    expected = BUNDLED_TOKENIZER.encode("a", add_special_tokens=False)
    assert engine.seen[0][0]["prompt_token_ids"] == expected


@pytest.mark.parametrize("is_stream", [True, False])
async def test_times_that_nobody_took_are_null(is_stream: bool) -> None:
    app = new_app(ScriptedEngine(ENDS), HttpOptions(enable_per_request_metrics=True))
    answer = await send(app, CHAT, {"messages": HELLO, "stream": is_stream})

    told = answer.events()[-2] if is_stream else answer.json()
    assert told["metrics"] is None


def test_a_scored_prompt_has_logprobs_and_nothing_generated(server: RunningServer) -> None:
    text = "Once upon a time"
    fields = {"prompt": [text, "The"], "echo": True, "max_tokens": 0, "logprobs": 2}
    scored = ask(server, COMPLETIONS, **fields)
    longer = ask(server, COMPLETIONS, **fields | {"max_tokens": 3, "temperature": 0})

    first = scored["choices"][0]
    num_prompt = len(first["logprobs"]["tokens"])
    assert (first["text"], first["finish_reason"]) == (text, "length")
    assert [choice["text"] for choice in scored["choices"]] == [text, "The"]
    assert "".join(first["logprobs"]["tokens"]).endswith(text)
    assert first["logprobs"]["token_logprobs"][0] is None
    assert scored["usage"]["completion_tokens"] == 0
    for key, values in first["logprobs"].items():
        assert longer["choices"][0]["logprobs"][key][:num_prompt] == values


def test_a_scored_prompt_streams(server: RunningServer) -> None:
    body = {"prompt": "The", "echo": True, "max_tokens": 0, "logprobs": 0, "stream": True}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", COMPLETIONS, json.dumps(body).encode(), headers)
    data = connection.getresponse().read().decode().split("\n\n")
    connection.close()
    choices = [json.loads(each.removeprefix("data: "))["choices"][0] for each in data[:-2]]

    assert "".join(choice["text"] for choice in choices) == "The"
    assert [choice["finish_reason"] for choice in choices][-1] == "length"


def test_logprobs_of_chosen_ids(server: RunningServer) -> None:
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 2, "logprob_token_ids": [300, 301]}
    fields["return_tokens_as_token_ids"] = True
    chat = ask(server, CHAT, messages=HELLO, logprobs=True, **fields)["choices"][0]
    text = ask(server, COMPLETIONS, prompt="The", logprobs=2, **fields)["choices"][0]

    for entry in chat["logprobs"]["content"]:
        names = {each["token"] for each in entry["top_logprobs"]}
        assert names == {entry["token"], "token_id:300", "token_id:301"}
    for token, top in zip(
        text["logprobs"]["tokens"], text["logprobs"]["top_logprobs"], strict=True
    ):
        assert set(top) == {token, "token_id:300", "token_id:301"}


def test_prompt_logprobs_are_by_token_id(server: RunningServer) -> None:
    fields = {"max_tokens": 1, "prompt_logprobs": 1, "return_token_ids": True, "temperature": 0}
    chat = ask(server, CHAT, messages=HELLO, **fields)
    [choice] = ask(server, COMPLETIONS, prompt="Once upon", **fields)["choices"]

    for told in (chat, choice):
        rows, ids = told["prompt_logprobs"], told["prompt_token_ids"]
        assert rows[0] is None
        assert len(rows) == len(ids)
        for token_id, row in zip(ids[1:], rows[1:], strict=True):
            assert row[str(token_id)]["logprob"] <= 0
            assert min(entry["rank"] for entry in row.values()) == 1
    assert ask(server, CHAT, messages=HELLO, max_tokens=1)["prompt_logprobs"] is None


@pytest.mark.parametrize(
    ("path", "body"), [(CHAT, {"messages": HELLO}), (COMPLETIONS, {"prompt": "Once"})]
)
def test_a_request_is_told_its_times(
    server: RunningServer, path: str, body: dict[str, Any]
) -> None:
    body = body | {"max_tokens": 4, "ignore_eos": True}
    told = ask(server, path, **body, return_metrics=True)["metrics"]

    assert list(told) == TIMING_KEYS
    numbers = [told[key] for key in TIMING_KEYS[:-1]]
    assert all(number >= 0 for number in numbers)
    assert ask(server, path, **body)["metrics"] is None
    several = ask(server, path, **body, return_metrics=True, n=2, temperature=1)
    assert several["metrics"] is None


def test_usage_has_numbers_always(server: RunningServer) -> None:
    for path, body in ((CHAT, {"messages": HELLO}), (COMPLETIONS, {"prompt": "Once"})):
        usage = ask(server, path, **body, max_tokens=2)["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] >= 0
        assert usage["completion_tokens_details"]["reasoning_tokens"] >= 0
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
