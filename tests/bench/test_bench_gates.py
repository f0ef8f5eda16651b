"""Every fault of a server is counted at its gate, and a server without faults at none."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from faulty_server import (
    DISCONNECT,
    DONE,
    STALL,
    Script,
    call,
    chunk,
    end,
    serving,
    text,
    usage,
    whole,
)

from rillm.bench.options import BenchOptions
from rillm.bench.runner import Results, run

ARGUMENTS = '{"city": "Oslo"}'
HI = {"role": "assistant", "content": "Hello there"}
CALL = {
    "content": None,
    "tool_calls": [{"function": {"name": "get_weather", "arguments": ARGUMENTS}}],
}


async def bench(script: Script, **options: Any) -> Results:
    asked: dict[str, Any] = {"scenario": ("tool_call",), "runs": 3, "warmup": 0, "timeout": 10}
    async with serving(script) as server:
        return await run(BenchOptions(**(asked | options)), [server.url], lambda title: None)


def gates(results: Results) -> dict[str, int]:
    rows = results.rows
    return dict(
        Counter(fault.gate for row in rows for each in row.exchanges for fault in each.faults)
    )


def good_text() -> Script:
    return Script([*text("Hello", " there"), *end(2)], whole(HI, 2))


def good_call() -> Script:
    stream = [*call(['{"city":', ' "Oslo"}']), *end(9, "tool_calls")]
    return Script(stream, whole(CALL, 9, "tool_calls"))


@pytest.mark.parametrize("script", [good_text(), good_call()], ids=["text", "call"])
async def test_flawless_server_has_no_faults(script: Script) -> None:
    results = await bench(script)

    assert gates(results) == {}
    assert results.num_faults == 0
    (row,) = results.rows
    assert row.summary().num_completed == 3


TO_THE_END = end(2)
FAULTY: dict[str, tuple[Script, dict[str, int]]] = {
    "call markup in content": (
        Script(
            [*text("<tool_", "call>x"), *end(2)], whole({"content": "<tool_call>x"}, 2)
        ),
        {"markup": 6},
    ),
    "reasoning markup in reasoning": (
        Script(
            [chunk({"reasoning": "hm</think>"}), *end(2)], whole({"reasoning": "hm</think>"}, 2)
        ),
        {"markup": 6},
    ),
    "special token in content": (
        Script([*text("bye<|endoftext|>"), *end(2)], whole({"content": "bye<|endoftext|>"}, 2)),
        {"markup": 6},
    ),
    "arguments that are no JSON": (
        Script([*call(['{"city": ', "Oslo}"]), *end(9, "tool_calls")], good_call().whole),
        {"arguments": 3, "text": 3},
    ),
    "arguments against the schema": (
        Script([*call(['{"city": 7}']), *end(9, "tool_calls")], good_call().whole),
        {"arguments": 3, "text": 3},
    ),
    "arguments before the name": (
        Script(
            [*call([ARGUMENTS])[::-1], *end(9, "tool_calls")], good_call().whole
        ),
        {"arguments": 3},
    ),
    "a function nobody offered": (
        Script([*call(["{}"], "rm"), *end(9, "tool_calls")], good_call().whole),
        {"arguments": 3, "text": 3},
    ),
    "text dropped from the stream": (
        Script([*text("Hello"), *end(2)], good_text().whole),
        {"text": 3},
    ),
    "text told twice": (
        Script([*text("Hello", " there", " there"), *end(2)], good_text().whole),
        {"text": 3},
    ),
    "usage that differs": (
        Script([*text("Hello", " there"), *end(5)], good_text().whole),
        {"usage": 3},
    ),
    "no usage": (
        Script([*text("Hello", " there"), chunk({}, "stop"), DONE], good_text().whole),
        {"usage": 3},
    ),
    "no finish reason": (
        Script([*text("Hello", " there"), usage(2), DONE], good_text().whole),
        {"finish": 3, "text": 3},
    ),
    "stop where there are calls": (
        Script([*call([ARGUMENTS]), *end(9, "stop")], good_call().whole),
        {"finish": 3, "text": 3},
    ),
    "output after the finish": (
        Script([chunk({}, "stop"), *text("Hello there"), usage(2), DONE], good_text().whole),
        {"finish": 3},
    ),
    "no DONE": (Script([*text("Hello there"), *TO_THE_END[:2]], good_text().whole), {"done": 3}),
    "an event that is no JSON": (
        Script([*text("Hello there"), "data: {oops\n\n", *end(2)], good_text().whole),
        {"malformed": 3},
    ),
    "an error in the stream": (
        Script([*text("Hello"), 'data: {"error": {"message": "out of memory"}}\n\n', DONE]),
        {"error": 3},
    ),
    "a refusal": (Script([], status=503), {"error": 3}),
    "a disconnect": (Script([*text("Hello"), DISCONNECT]), {"disconnect": 3}),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTY)
async def test_faults_are_counted_at_their_gate(name: str) -> None:
    script, expected = FAULTY[name]

    results = await bench(script)

    assert gates(results) == expected
    assert results.num_faults == sum(expected.values())


async def test_silence_longer_than_the_timeout_is_a_stall() -> None:
    script = Script([*text("Hello"), STALL])

    results = await bench(script, timeout=0.2, runs=2, model="scripted")

    assert gates(results) == {"stall": 2}
    assert results.rows[0].summary().num_failed == 2


async def test_server_that_is_not_there_is_a_disconnect() -> None:
    async with serving(good_text()) as server:
        url = server.url

    options = BenchOptions(scenario=("tool_call",), runs=1, warmup=0, model="scripted")
    results = await run(options, [url], lambda title: None)

    assert gates(results) == {"disconnect": 1}


async def test_only_the_faulty_requests_count_and_only_the_whole_ones_are_timed() -> None:
    def choose(number: int, body: dict[str, Any]) -> Script:
        return Script([*text("Hello"), DISCONNECT]) if number == 3 else good_text()

    results = await bench(Script([], choose=choose), runs=4)

    summary = results.rows[0].summary()
    assert gates(results) == {"disconnect": 1}
    assert (summary.num_completed, summary.num_failed) == (3, 1)
    assert summary.spreads["ttft"].count == 3


async def test_server_that_says_something_else_each_time_is_noted_and_not_faulted() -> None:
    def choose(number: int, body: dict[str, Any]) -> Script:
        said = f"Hello {number}"
        return Script([*text(said), *end(2)], whole({"content": said}, 2))

    results = await bench(Script([], choose=choose), runs=2)

    assert gates(results) == {}
    assert results.rows[0].num_unlike == 2


async def test_answer_without_the_call_that_was_wanted_is_noted_and_not_faulted() -> None:
    results = await bench(good_text())

    assert gates(results) == {}
    assert results.rows[0].num_missed == 3


async def test_call_cut_off_by_the_length_may_be_incomplete() -> None:
    cut = {"tool_calls": [{"function": {"name": "get_weather", "arguments": '{"city": '}}]}
    script = Script([*call(['{"city": ']), *end(9, "length")], whole(cut, 9, "length"))

    assert gates(await bench(script)) == {}


async def test_markup_of_calls_is_text_where_no_function_was_offered() -> None:
    stream = [*text("<tool_call>"), *end(1)]
    loads = {"scenario": (), "concurrency": (2,), "num_prompts": 4}

    assert gates(await bench(Script(stream), **loads)) == {}
    leaked = [*text("<|im_end|>"), *end(1)]
    assert gates(await bench(Script(leaked), **loads)) == {"markup": 4}


async def test_token_ids_are_counted_against_the_usage() -> None:
    def tokens(*ids: int) -> str:
        return f'data: {{"choices": [{{"index": 0, "token_ids": {list(ids)}}}]}}\n\n'

    last = 'data: {"choices": [{"index": 0, "token_ids": [], "finish_reason": "length"}]}\n\n'
    asked = {"scenario": (), "endpoint": "generate", "concurrency": (2,), "num_prompts": 4}
    stream = [tokens(1, 2), tokens(3), last]

    right = await bench(Script([*stream, usage(3), DONE]), **asked)
    wrong = await bench(Script([*stream, usage(4), DONE]), **asked)

    assert gates(right) == {}
    assert right.rows[0].summary().output_tokens == 12
    assert gates(wrong) == {"usage": 4}
