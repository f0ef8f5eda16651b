"""The Messages API over scripted engines: events in order, blocks, stop reasons, failures."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages_script import (
    HELLO,
    MESSAGES,
    MOON,
    REQUEST,
    TIDE,
    CutEngine,
    by_character,
    fold,
    read_events,
    streamed,
    whole,
    without_ids,
)
from scripted_engine import ScriptedEngine, call, call_app, delta, new_app
from test_heartbeat import ALWAYS, GatedEngine

from rillm.errors import CapacityError, EngineDeadError, EngineGenerateError
from rillm.formats.events import (
    ContentDelta,
    Finish,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from rillm.server.anthropic.blocks import Blocks, WholeBlocks

STREAM = REQUEST | {"stream": True}
WITHOUT_TOOLS: dict[str, Any] = {"max_tokens": 5, "messages": HELLO}


def kinds(message: dict[str, Any]) -> list[str]:
    return [block["type"] for block in message["content"]]


async def test_events_come_in_order_with_a_ping_after_the_start() -> None:
    answer = await call(CutEngine("Good tide.", [5]), MESSAGES, STREAM)

    events = read_events(answer.body)
    assert [event["type"] for event in events] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start = events[0]["message"]
    assert start["usage"] | {"input_tokens": 0} == {
        "input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 3,
        "output_tokens": 0,
        "output_tokens_details": {"thinking_tokens": 0},
    }
    assert events[-2]["usage"]["output_tokens"] == 3
    assert events[-2]["usage"]["input_tokens"] == start["usage"]["input_tokens"] > 0
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert b"[DONE]" not in answer.body
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_every_output_is_written_at_once() -> None:
    answer = await call(CutEngine("One two three", [4, 8]), MESSAGES, STREAM)

    assert [write.count(b"text_delta") for write in answer.writes] == [1, 1, 1, 0, 0]


SEGMENTS = st.lists(
    st.sampled_from([TIDE, MOON, "Some words.", "Ünïcode 🌊 < \n", "<tool", " ", "<tool_call>\n{"]),
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    reasoning=st.sampled_from(["", "<think>\nhm, so\n</think>\n\n", "<think>\nonly begun"]),
    segments=SEGMENTS,
    data=st.data(),
)
def test_any_cut_of_any_answer_is_in_order_and_the_whole_one(
    reasoning: str, segments: list[str], data: st.DataObject
) -> None:
    text = reasoning + "".join(segments)
    ends = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    finish = data.draw(st.sampled_from(["stop", "length"]))

    async def both() -> tuple[dict[str, Any], dict[str, Any]]:
        cut = await streamed(CutEngine(text, ends, finish))
        return cut, await whole(CutEngine(text, [], finish))

    in_stream, at_once = asyncio.run(both())

    for block, other in zip(in_stream["content"], at_once["content"], strict=True):
        if block["type"] == "tool_use":
            try:
                block["input"] = json.loads(block["input"])
            except ValueError:
                block["input"] = {"INVALID_JSON": block["input"]}
            assert block["id"].startswith("toolu_")
            assert block["id"] != other["id"]
    in_stream["usage"] = at_once["usage"]
    assert without_ids(in_stream) == without_ids(at_once)


async def test_reasoning_then_text_then_several_calls() -> None:
    text = f"<think>\nhm\n</think>\n\nOne moment.\n{TIDE}\n{MOON}"
    for answer in (await whole(CutEngine(text)), await streamed(by_character(text))):
        assert kinds(answer) == ["thinking", "text", "tool_use", "tool_use"]
        thinking, words, tide, moon = answer["content"]
        assert (thinking["thinking"], words["text"]) == ("hm", "One moment.")
        assert (tide["name"], moon["name"]) == ("tide", "moon")
        assert tide["input"] in ({"port": "Brést"}, '{"port": "Brést"}')
        assert moon["input"] in ({}, "{}")
        assert tide["id"] != moon["id"]
        assert answer["stop_reason"] == "tool_use"


async def test_one_reasoning_has_one_signature_however_it_is_cut() -> None:
    text = "<think>\nso and so\n</think>\n\nYes."
    signatures = {
        answer["content"][0]["signature"]
        for answer in (
            await whole(CutEngine(text)),
            await streamed(CutEngine(text)),
            await streamed(by_character(text)),
        )
    }
    other = await whole(CutEngine(text.replace("so and", "such and")))

    assert len(signatures) == 1
    assert other["content"][0]["signature"] not in signatures


async def test_omitted_thinking_is_an_empty_block_with_the_signature() -> None:
    text = "<think>\nsecret\n</think>\n\nYes."
    thinking = {"type": "adaptive", "display": "omitted"}
    shown = await whole(CutEngine(text))
    for answer in (
        await whole(CutEngine(text), thinking=thinking),
        await streamed(by_character(text), thinking=thinking),
    ):
        assert kinds(answer) == ["thinking", "text"]
        assert answer["content"][0] == shown["content"][0] | {"thinking": ""}


@pytest.mark.parametrize(
    ("text", "finish", "stop_reason", "said"),
    [
        ("Yes.", "stop", None, ("end_turn", None)),
        ("Yes.", "stop", 17, ("end_turn", None)),
        ("Yes.", "stop", "END", ("stop_sequence", "END")),
        (TIDE, "stop", None, ("tool_use", None)),
        (TIDE, "length", None, ("max_tokens", None)),
        (TIDE[:-30], "stop", None, ("end_turn", None)),
        ("Yes.", "abort", None, ("abort", None)),
        ("Yes.", "repetition", None, ("repetition", None)),
    ],
)
async def test_stop_reasons(
    text: str, finish: str, stop_reason: int | str | None, said: tuple[str, str | None]
) -> None:
    for answer in (whole, streamed):
        engine = CutEngine(text, [], finish, stop_reason)
        message = await answer(engine, max_tokens=2)

        assert (message["stop_reason"], message["stop_sequence"]) == said


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "tide"}])
async def test_a_forced_call_is_the_reason_to_stop(choice: dict[str, Any]) -> None:
    for answer in (whole, streamed):
        message = await answer(CutEngine(TIDE), tool_choice=choice)

        assert message["stop_reason"] == "tool_use"


async def test_a_limit_of_the_context_is_told_from_that_of_the_request() -> None:
    for max_tokens, reason in ((2, "max_tokens"), (3, "model_context_window_exceeded")):
        message = await whole(CutEngine("Yes.", finish="length"), max_tokens=max_tokens)

        assert message["stop_reason"] == reason


async def test_more_tokens_than_the_context_has_are_asked_for_as_many_as_it_has() -> None:
    engine = CutEngine("Yes.")

    await whole(engine, max_tokens=64_000)

    assert engine.seen[0][1].max_tokens == engine.max_model_len


async def test_no_tokens_only_compute_the_prompt() -> None:
    for answer in (whole, streamed):
        engine = CutEngine("Yes.", finish="length")
        message = await answer(engine, max_tokens=0)

        assert engine.seen[0][1].max_tokens == 1
        assert (message["content"], message["stop_reason"]) == ([], "max_tokens")
        assert message["usage"]["output_tokens"] == 0


async def test_a_call_that_was_cut_off_does_not_look_like_a_whole_one() -> None:
    cut = TIDE[: TIDE.index("ést")]
    message = await whole(CutEngine(cut, finish="length"))
    in_stream = await streamed(by_character(cut, "length"))

    [block] = message["content"]
    assert block["input"] == {"INVALID_JSON": '{"port": "Br'}
    assert in_stream["content"][0]["input"] == '{"port": "Br'


def test_text_within_a_call_waits_for_its_end() -> None:
    """Parsers from elsewhere may say the last of a call after text."""
    sink = WholeBlocks()
    blocks = Blocks(sink)

    blocks.add([ToolCallBegin(0, "a", "f"), ToolCallArguments(0, '{"x": 1'), ContentDelta("so")])
    blocks.add([ReasoningDelta("hm"), ToolCallArguments(0, "}"), ToolCallEnd(0)])
    blocks.add([ContentDelta("on"), ToolCallBegin(1, "b", "g"), ContentDelta("end")])
    blocks.add([Finish("stop")])

    shown = [block | {"signature": ""} for block in sink.content]
    assert [(block["type"], *list(block.values())[1:]) for block in shown] == [
        ("tool_use", "toolu_a", "f", {"x": 1}, ""),
        ("text", "so", ""),
        ("thinking", "hm", ""),
        ("text", "on", ""),
        ("tool_use", "toolu_b", "g", {"INVALID_JSON": ""}, ""),
        ("text", "end", ""),
    ]
    assert blocks.finish == Finish("stop")


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (EngineGenerateError("secret"), 500, "api_error"),
        (EngineDeadError("secret"), 500, "api_error"),
        (RuntimeError("secret"), 500, "api_error"),
        (CapacityError("full"), 529, "overloaded_error"),
    ],
)
async def test_failures_have_anthropics_shape_before_and_in_a_stream(
    error: Exception, status: int, kind: str
) -> None:
    if not isinstance(error, RuntimeError):
        early = await call(ScriptedEngine(error), MESSAGES, WITHOUT_TOOLS)
        assert early.status == status
        said = early.json()
        assert said["type"] == "error"
        assert said["error"]["type"] == kind
        assert said["request_id"] == early.headers["request-id"]
        assert ("retry-after" in early.headers) == (status == 529)
    body = WITHOUT_TOOLS | {"stream": True}
    late = await call(ScriptedEngine([delta(0, "a")], error), MESSAGES, body)
    last = read_events(late.body)[-1]

    assert late.status == 200
    assert late.is_complete
    assert last["type"] == "error"
    assert last["error"]["type"] == kind
    assert "secret" not in str(last)
    assert last["request_id"] == late.headers["request-id"]


async def test_heartbeats_are_ping_events() -> None:
    def open_gate(write: bytes) -> None:
        if write == b'event: ping\ndata: {"type":"ping"}\n\n':
            engine.gate.set()

    engine = GatedEngine([delta(0, "a")], [delta(0, "b", [8], "stop")], num_early=0)
    body = WITHOUT_TOOLS | {"stream": True}
    answer = await call_app(new_app(engine, ALWAYS), MESSAGES, body, on_write=open_gate)

    events = read_events(answer.body)
    assert events[0] == {"type": "ping"}
    assert fold(events)["content"] == [{"type": "text", "text": "ab"}]


async def test_a_client_that_leaves_ends_its_request() -> None:
    gone = asyncio.Event()
    engine = ScriptedEngine([delta(0, "a")], holds=True)
    answering = asyncio.create_task(call(engine, MESSAGES, WITHOUT_TOOLS, disconnect=gone))
    await engine.arrivals.acquire()
    gone.set()

    assert (await answering).status == 499
    assert engine.num_live == 0
