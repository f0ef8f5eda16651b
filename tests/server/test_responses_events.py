"""The events of a response: their order for every output and every cut, and the whole answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from response_events import PATH, comparable, fold, parse
from scripted_engine import (
    BUNDLED_TOKENIZER,
    ScriptedEngine,
    SpeakingEngine,
    Step,
    call,
    delta,
)

from rillm.errors import EngineDeadError, EngineGenerateError
from rillm.formats.registry import combine
from rillm.output_formats import OutputFormats
from rillm.outputs import Logprob

FORMATS = OutputFormats(combine("hermes", "qwen3"), BUNDLED_TOKENIZER)
TOOLS: list[Any] = [
    {"type": "function", "name": "tide", "parameters": {"type": "object"}},
    {"type": "custom", "name": "apply_patch", "description": "Change files."},
]
REQUEST: dict[str, Any] = {"input": "Hi", "tools": TOOLS}
THOUGHT = "<think>\nhm, hm\n</think>\n\n"
TIDE = '<tool_call>\n{"name": "tide", "arguments": {"port": "Brést"}}\n</tool_call>'
MOON = '<tool_call>\n{"name": "moon", "arguments": {}}\n</tool_call>'
PATCH = (
    '<tool_call>\n{"name": "apply_patch", "arguments": {"input": "*** Begin\\n+é\\n"}}\n'
    "</tool_call>"
)


async def speak(said: str, finish: str = "stop", **fields: Any) -> tuple[Any, Any]:
    """The final response of a stream, and the whole answer to the same request."""
    engine = SpeakingEngine(said, finish=finish, formats=FORMATS)
    streamed = await call(engine, PATH, REQUEST | fields | {"stream": True})
    whole = await call(engine, PATH, REQUEST | fields)
    assert streamed.status == whole.status == 200
    assert streamed.headers["content-type"].startswith("text/event-stream")
    return fold(parse(streamed.body)), whole.json()


async def play(*steps: Step, **fields: Any) -> list[Any]:
    answer = await call(ScriptedEngine(*steps), PATH, {"input": "Hi", "stream": True} | fields)
    assert answer.status == 200
    assert b"[DONE]" not in answer.body
    return parse(answer.body)


async def test_every_kind_of_item_in_the_order_it_was_written() -> None:
    streamed, whole = await speak(f"{THOUGHT}One moment.\n{TIDE}\n{MOON}\n{PATCH}")

    assert comparable(whole) == comparable(streamed)
    reasoning, message, tide, moon, patch = whole["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm, hm"}]
    assert reasoning["summary"] == []
    assert message["content"][0]["text"] == "One moment."
    assert (tide["name"], json.loads(tide["arguments"])) == ("tide", {"port": "Brést"})
    assert (moon["name"], moon["arguments"]) == ("moon", "{}")
    assert (patch["type"], patch["input"]) == ("custom_tool_call", "*** Begin\n+é\n")
    assert len({item["id"] for item in whole["output"]}) == 5
    assert len({item["call_id"] for item in whole["output"][2:]}) == 3
    assert {item["status"] for item in whole["output"]} == {"completed"}
    assert (whole["status"], whole["incomplete_details"], whole["error"]) == (
        "completed",
        None,
        None,
    )


async def test_arguments_come_in_fragments_and_each_output_is_one_write() -> None:
    engine = SpeakingEngine(TIDE, formats=FORMATS)
    answer = await call(engine, PATH, REQUEST | {"stream": True})
    kinds = [event["type"] for event in parse(answer.body)]

    assert kinds.count("response.function_call_arguments.delta") > 2
    assert kinds.count("response.output_text.delta") == 0
    assert len(answer.writes) <= len(BUNDLED_TOKENIZER.encode(TIDE)) + 2


async def test_nothing_said_is_a_response_without_items() -> None:
    streamed, whole = await speak("")

    assert comparable(whole) == comparable(streamed)
    assert (whole["status"], whole["output"]) == ("completed", [])


async def test_usage_counts_reasoning_and_what_was_cached() -> None:
    _, whole = await speak(THOUGHT + "Yes.")
    [*_, last] = await play([delta(0, "a")], [delta(0, "b", finish="stop")])

    usage = whole["usage"]
    reasoning = usage["output_tokens_details"]["reasoning_tokens"]
    assert 3 <= reasoning < usage["output_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert last["response"]["usage"]["input_tokens_details"]["cached_tokens"] == 3


@pytest.mark.parametrize(
    ("text", "statuses"),
    [
        ("Half a sen", ["incomplete"]),
        ("<think>\nhm", ["incomplete"]),
        (THOUGHT + "Half", ["completed", "incomplete"]),
        ('<tool_call>\n{"name": "tide", "arguments": {"port": "Br', ["incomplete"]),
        (f"{TIDE}\n{TIDE[:-20]}", ["completed", "incomplete"]),
    ],
)
async def test_what_is_cut_off_is_incomplete(text: str, statuses: list[str]) -> None:
    streamed, whole = await speak(text, finish="length")

    assert comparable(whole) == comparable(streamed)
    assert [item["status"] for item in whole["output"]] == statuses
    assert whole["status"] == "incomplete"
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_a_call_that_a_stop_string_cuts_off_is_incomplete() -> None:
    _, whole = await speak('<tool_call>\n{"name": "tide", "arguments": {"port": "Br')

    assert whole["status"] == "completed"
    assert [item["status"] for item in whole["output"]] == ["incomplete"]


async def test_repetition_is_incomplete_for_no_reason_that_the_protocol_has() -> None:
    [*_, last] = await play([delta(0, "a a a", finish="repetition")])

    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] is None


async def test_an_aborted_request_is_a_cancelled_response() -> None:
    events = await play([delta(0, "a")], [delta(0, "", (), "abort")])

    assert fold(events)["status"] == "cancelled"
    assert events[-1]["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize("error", [EngineGenerateError("x"), EngineDeadError("x"), ValueError("x")])
async def test_a_stream_that_fails_ends_with_a_failed_response(error: Exception) -> None:
    response = fold(await play([delta(0, "a")], error))

    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert "x" not in response["error"]["message"]
    assert [item["status"] for item in response["output"]] == ["incomplete"]


async def test_what_fails_before_the_first_output_has_a_status_of_its_own() -> None:
    for stream in (True, False):
        answer = await call(
            ScriptedEngine(EngineGenerateError("x")), PATH, {"input": "Hi", "stream": stream}
        )
        assert answer.status == 500
        assert answer.json()["error"]["type"] == "InternalServerError"


@pytest.mark.parametrize("is_custom", [True, False])
async def test_arguments_of_a_custom_tool_that_are_not_one_string_are_its_input(
    is_custom: bool,
) -> None:
    arguments = '{"path": "a", "input": 5}'
    text = f'<tool_call>\n{{"name": "apply_patch", "arguments": {arguments}}}\n</tool_call>'
    _, whole = await speak(text, tools=TOOLS if is_custom else TOOLS[:1])

    [item] = whole["output"]
    assert item["type"] == ("custom_tool_call" if is_custom else "function_call")
    assert json.loads(item["input" if is_custom else "arguments"]) == {"path": "a", "input": 5}


async def test_logprobs_are_those_of_the_text_and_no_others() -> None:
    ids = {text: BUNDLED_TOKENIZER.encode(text)[0] for text in "abc"}
    steps = []
    for text, finish in (("a", None), ("b", None), ("", None), ("c", "stop")):
        output = delta(0, text, [ids[text or "b"]], finish)
        output.logprobs = [{ids[text or "b"]: Logprob(-1.0, 2), ids["a"]: Logprob(-0.5, 1)}]
        steps.append([output])
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}

    events = await play(*steps, **asked)
    plain = await play(*steps, top_logprobs=1)

    deltas = [each for each in events if each["type"] == "response.output_text.delta"]
    assert [[p["token"] for p in each["logprobs"]] for each in deltas] == [["a"], ["b"], ["b", "c"]]
    [item] = fold(events)["output"]
    [part] = item["content"]
    assert [entry["token"] for entry in part["logprobs"]] == ["a", "b", "b", "c"]
    assert [len(entry["top_logprobs"]) for entry in part["logprobs"]] == [1] * 4
    assert fold(plain)["output"][0]["content"][0]["logprobs"] == []


@given(st.data())
async def test_any_cut_gives_the_same_response(data: Any) -> None:
    """The same text in any pieces: the order holds, and what comes of it is the same."""
    pieces = data.draw(st.permutations([THOUGHT, "Wait.\n", TIDE + "\n", PATCH + "\n", MOON]))
    text = "".join(pieces[: data.draw(st.integers(0, 5))])
    text = text[: data.draw(st.integers(0, len(text)))]
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    parts = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    finish = data.draw(st.sampled_from(["stop", "length"]))

    responses = []
    for script in (parts, list(text)):
        steps: list[Step] = [[delta(0, part)] for part in script]
        engine = ScriptedEngine(*steps, [delta(0, "", (), finish)])
        engine.formats = FORMATS
        answer = await call(engine, PATH, REQUEST | {"stream": True})
        response = comparable(fold(parse(answer.body)))
        responses.append(response | {"usage": None})

    assert responses[0] == responses[1]


async def test_the_response_says_what_was_asked_for() -> None:
    fields: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "s",
        "store": False,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "tide"},
        "top_logprobs": 2,
        "top_p": 0.9,
        "truncation": "auto",
        "user": "u",
    }
    _, whole = await speak("Yes.", **fields, service_tier="flex")

    assert {name: whole[name] for name in fields} == fields
    assert whole["tools"] == TOOLS
    assert (whole["object"], whole["service_tier"]) == ("response", "default")
    assert whole["created_at"] <= whole["completed_at"]


async def test_reasoning_can_be_handed_back_by_callers_that_keep_no_state() -> None:
    _, whole = await speak(THOUGHT + "Yes.", include=["reasoning.encrypted_content"], store=False)
    reasoning = whole["output"][0]
    without_text = {**reasoning, "content": None}

    prompts = []
    for item in (reasoning, without_text):
        engine = ScriptedEngine([delta(0, "a", finish="stop")])
        await call(engine, PATH, {"input": [{"role": "user", "content": "Hi"}, item]})
        prompts.append(engine.seen[0][0]["prompt_token_ids"])

    assert prompts[0] == prompts[1]
    assert "hm, hm" in BUNDLED_TOKENIZER.decode(prompts[0])
    assert "hm" not in reasoning["encrypted_content"]
