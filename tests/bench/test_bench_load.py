"""What is sent: bodies, headers, loads; and how two servers are compared."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_server import Script, end, serving, text, whole

from rillm.bench.metrics import parse_goodput
from rillm.bench.options import BenchOptions
from rillm.bench.ratios import ratios
from rillm.bench.runner import num_requests, run
from rillm.bench.table import render
from rillm.errors import ConfigError

TEXT = Script([*text("Hello", " there"), *end(2)], whole({"content": "Hello there"}, 2))


async def bodies(**options: Any) -> list[dict[str, Any]]:
    async with serving(TEXT) as server:
        results = await run(BenchOptions(**options), [server.url], lambda title: None)
    assert results.num_faults == 0
    return server.bodies


async def test_extra_fields_keys_and_headers_are_sent() -> None:
    options = BenchOptions(
        scenario=("tool_call",),
        runs=1,
        warmup=0,
        model="mine",
        api_key="secret",
        header=("X-Team: rill",),
        extra_body='{"top_k": 1, "seed": null, "stream_options": {"x": 1}}',
    )
    async with serving(TEXT) as server:
        await run(options, [server.url + "/v1"], lambda title: None)

    streamed, asked_whole = server.bodies
    assert (streamed["model"], streamed["top_k"], "seed" in streamed) == ("mine", 1, False)
    assert streamed["stream_options"] == {"include_usage": True, "x": 1}
    kept = {name: streamed[name] for name in streamed if not name.startswith("stream")}
    assert asked_whole == kept
    for head in server.headers:
        assert head.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
        assert "Authorization: Bearer secret\r\n" in head
        assert "X-Team: rill\r\n" in head


async def test_random_prompts_are_the_same_but_for_their_beginnings() -> None:
    asked = {"concurrency": (1,), "num_prompts": 3, "warmup": 0, "input_tokens": 20}
    one, other = await bodies(**asked), await bodies(**asked)

    def words(found: list[dict[str, Any]]) -> list[list[str]]:
        return [body["messages"][0]["content"].split() for body in found]

    assert [each[4:] for each in words(one)] == [each[4:] for each in words(other)]
    beginnings = [tuple(each[:4]) for each in words(one) + words(other)]
    assert len(set(beginnings)) == len(beginnings) == 6
    assert {len(each) for each in words(one)} == {20}


async def test_token_endpoint_gets_ids_and_nested_sampling_params() -> None:
    ids = Script(
        ['data: {"choices":[{"token_ids":[1,2],"finish_reason":"length"}]}\n\n', *end(2)[1:]]
    )
    options = BenchOptions(
        endpoint="generate",
        rate=(1e6,),
        num_prompts=5,
        warmup=1,
        input_tokens=9,
        output_tokens=2,
        vocab_size=50,
        ignore_eos=True,
        extra_body='{"sampling_params": {"temperature": 0}}',
    )
    async with serving(ids) as server:
        results = await run(options, [server.url], lambda title: None)

    assert len(server.bodies) == 6
    for body, head in zip(server.bodies, server.headers, strict=True):
        assert head.startswith("POST /inference/v1/generate ")
        assert len(body["token_ids"]) == 9
        assert set(body["token_ids"]) <= set(range(50))
        assert body["sampling_params"] == {"max_tokens": 2, "ignore_eos": True, "temperature": 0}
    assert results.rows[0].summary().output_tokens == 10


async def test_prompts_come_from_a_file(tmp_path: Path) -> None:
    lines, objects = tmp_path / "p.txt", tmp_path / "p.jsonl"
    lines.write_text("one\n\ntwo\n")
    messages = [{"role": "user", "content": "three"}]
    objects.write_text(json.dumps({"messages": messages, "max_tokens": 3}) + '\n{"prompt": "4"}')

    of_lines = await bodies(concurrency=(1,), num_prompts=3, warmup=0, prompts=lines)
    of_objects = await bodies(concurrency=(1,), num_prompts=2, warmup=0, prompts=objects)

    assert [each["messages"][0]["content"] for each in of_lines] == ["one", "two", "one"]
    assert [each["messages"][0]["content"] for each in of_objects] == ["three", "4"]
    assert [each["max_tokens"] for each in of_objects] == [3, 128]


async def test_concurrency_is_kept_and_not_exceeded() -> None:
    running, most = 0, 0
    options = BenchOptions(concurrency=(3,), num_prompts=9, warmup=0)

    async with serving(TEXT, pause_s=0.01) as server:
        results = await run(options, [server.url], lambda title: None)

    exchanges = results.rows[0].exchanges
    changes = [(each.sent_at, 1) for each in exchanges]
    changes += [(each.sent_at + (each.answer.end_s or 0), -1) for each in exchanges]
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    assert len(exchanges) == 9
    assert most == 3


async def test_two_servers_take_turns_and_ratios_are_taken_round_by_round() -> None:
    told: list[str] = []
    options = BenchOptions(
        compare=("a", "b"), scenario=("tool_call",), runs=4, warmup=1, concurrency=(2,),
        num_prompts=8, goodput=("ttft:1000",),
    )  # fmt: skip
    async with serving(TEXT) as one, serving(TEXT, pause_s=0.01) as other:
        results = await run(options, [one.url, other.url], told.append)

    assert [(row.title, row.server) for row in results.rows] == [
        ("tool call", 0), ("tool call", 1), ("2 at once", 0), ("2 at once", 1),
    ]  # fmt: skip
    found = {(each.title, each.metric): each for each in ratios(results.rows)}
    first, second = ([each.answer.end_s for each in results.rows[i].exchanges] for i in (0, 1))
    expected = np.percentile(np.divide(second, first), [25, 50, 75])
    ratio = found["tool call", "e2el"]
    assert (ratio.p25, ratio.p50, ratio.p75) == pytest.approx(expected)
    assert ratio.second == pytest.approx(np.median(second) * 1e3)
    assert (ratio.num_rounds, found["2 at once", "output_throughput"].num_rounds) == (4, 4)
    assert len(told) == num_requests(options, 2) == len(one.bodies) + len(other.bodies)
    table = render(results, parse_goodput(options.goodput))
    assert "gates: no faults" in table
    assert "tool call: e2el" in table


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"runs": 0}, "runs is 0, must be at least 1"),
        ({"concurrency": (4, 0)}, "concurrency is 0"),
        ({"rate": (0.0,)}, "rate is 0.0, must be above 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"timeout": 0.0}, "timeout is 0.0"),
        ({"endpoint": "generate", "scenario": ("all",)}, "must be 'chat' for scenarios"),
        ({"scenario": ("nothing",)}, "scenario is 'nothing', must be all or one of tool_call"),
        ({"extra_body": "[]"}, "must be a JSON object"),
        ({"extra_body": "{"}, "extra_body is not JSON"),
        ({"header": ("X",)}, "header is 'X'"),
        ({"header": ("X: a\r\nY: b",)}, "a header holds a line end"),
        ({"concurrency": (1,), "prompts": Path("no/such")}, "cannot be read"),
        ({"ssl_ca_file": "no/such"}, "ssl_ca_file is 'no/such'"),
    ],
)
async def test_wrong_settings_are_named(options: dict[str, Any], named: str) -> None:
    url = "https://127.0.0.1:1" if "ssl_ca_file" in options else "http://127.0.0.1:1"

    with pytest.raises(ConfigError) as caught:
        await run(BenchOptions(**({"model": "m"} | options)), [url], lambda title: None)

    assert named in str(caught.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:99999"])
async def test_wrong_url_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match="must be like http"):
        await run(BenchOptions(model="m"), [url], lambda title: None)


def test_server_that_cannot_be_reached_is_said_before_anything_is_measured() -> None:
    with pytest.raises(ConfigError, match="cannot be reached"):
        asyncio.run(run(BenchOptions(), ["http://127.0.0.1:1"], lambda title: None))
