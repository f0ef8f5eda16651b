"""What /metrics shows, read with the Prometheus client's own parser."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from bisect import bisect_left
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families
from running_server import RunningServer
from scripted_engine import ScriptedEngine, call_app, delta, new_app
from starlette.types import ASGIApp

from rillm.engine.config import EngineInfo
from rillm.engine.messages import StepStats
from rillm.errors import CapacityError, EngineGenerateError
from rillm.outputs import RequestOutput, RequestStateStats
from rillm.sampling_params import SamplingParams
from rillm.server.metrics import Histogram, ServerMetrics
from rillm.server.options import HttpOptions
from rillm.server.tally import Tally

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
GENERATE = "/inference/v1/generate"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}

# What dashboards of vLLM and autoscalers ask for, with the sample names they use.
READ_BY_OTHERS = [
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "cache_config_info",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "num_preemptions_total",
    "prompt_tokens_total",
    "prompt_tokens_cached_total",
    "generation_tokens_total",
    "request_success_total",
    "admission_rejections_total",
    "time_to_first_token_seconds_bucket",
    "inter_token_latency_seconds_bucket",
    "request_time_per_output_token_seconds_bucket",
    "e2e_request_latency_seconds_bucket",
    "request_queue_time_seconds_bucket",
    "request_inference_time_seconds_bucket",
    "request_prefill_time_seconds_bucket",
    "request_decode_time_seconds_bucket",
    "request_prompt_tokens_bucket",
    "request_generation_tokens_bucket",
    "request_max_num_generation_tokens_bucket",
    "request_params_n_bucket",
    "request_params_max_tokens_bucket",
    "request_num_preemptions_bucket",
    "request_prefill_kv_computed_tokens_bucket",
]

Samples = dict[str, float]


def read(text: str) -> Samples:
    """Every sample, by name and labels other than the model's."""
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [
                f"{key}={value}"
                for key, value in sorted(sample.labels.items())
                if key not in ("model_name", "engine")
            ]
            samples[sample.name + (f"{{{','.join(labels)}}}" if labels else "")] = sample.value
    return samples


async def scrape(app: ASGIApp) -> Samples:
    return read((await call_app(app, "/metrics", b"", method="GET")).body.decode())


def info() -> EngineInfo:
    return EngineInfo(
        device="cpu",
        dtype="float32",
        max_model_len=2048,
        max_num_seqs=8,
        max_num_batched_tokens=64,
        block_size=16,
        num_blocks=200,
        kv_cache_bytes=1 << 20,
        memory_bytes=1 << 20,
        load_seconds=1.0,
    )


@pytest.mark.parametrize("prefixes", [["rillm:"], ["rillm:", "vllm:"]])
async def test_names_that_others_read_are_there(prefixes: list[str]) -> None:
    engine = ScriptedEngine()
    engine.ready_info, engine.engine_stats = info(), StepStats()
    app = new_app(engine, HttpOptions(metrics_aliases=len(prefixes) == 2))

    answer = await call_app(app, "/metrics", b"", method="GET")

    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["content-type"].count("charset") == 1
    names, labels = set(), {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            names.add(sample.name)
            labels[sample.name] = sample.labels
    for prefix in ("rillm:", "vllm:"):
        shown = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        assert set(READ_BY_OTHERS) <= shown if prefix in prefixes else not shown
    assert labels["rillm:num_requests_running"] == {"model_name": "scripted", "engine": "0"}
    assert labels["rillm:cache_config_info"]["num_gpu_blocks"] == "200"


async def test_openmetrics_is_given_to_whom_asks_for_it() -> None:
    accept = [("accept", "application/openmetrics-text; version=1.0.0")]

    answer = await call_app(
        new_app(ScriptedEngine()), "/metrics", b"", method="GET", headers=accept
    )

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(answer.body.decode())}
    assert "rillm:generation_tokens" in names


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "num_prompt", "num_requests", "n"),
    [
        (CHAT, HELLO, None, 1, 1),
        (CHAT, HELLO | {"n": 2, "temperature": 1, "max_tokens": 9}, None, 1, 2),
        (COMPLETIONS, {"prompt": [[5, 6], [7]]}, 3, 2, 1),
        (GENERATE, {"token_ids": [5, 6, 7], "sampling_params": {"max_tokens": 9}}, 3, 1, 1),
    ],
)
async def test_every_face_counts_alike(
    path: str, body: Any, num_prompt: int | None, num_requests: int, n: int, is_stream: bool
) -> None:
    steps = [
        [delta(i, "a", [1, 2]) for i in range(n)],
        [delta(i, "", [3], "stop") for i in range(n)],
    ]
    engine = ScriptedEngine(*steps)
    app = new_app(engine)

    assert (await call_app(app, path, body | {"stream": is_stream})).status == 200

    samples = await scrape(app)
    if num_prompt is None:
        num_prompt = len(engine.seen[0][0]["prompt_token_ids"])
    assert samples["rillm:prompt_tokens_total"] == num_prompt
    assert samples["rillm:generation_tokens_total"] == 3 * n * num_requests
    assert samples["rillm:prefix_cache_queries_total"] == num_prompt
    assert samples["rillm:prefix_cache_hits_total"] == 3 * num_requests
    assert samples["rillm:request_success_total{finished_reason=stop}"] == n * num_requests
    for name in (
        "time_to_first_token_seconds",
        "e2e_request_latency_seconds",
        "request_prompt_tokens",
        "request_params_n",
        "inter_token_latency_seconds",
    ):
        assert samples[f"rillm:{name}_count"] == num_requests
    assert samples["rillm:request_prompt_tokens_sum"] == num_prompt
    assert samples["rillm:request_generation_tokens_sum"] == 3 * n * num_requests
    assert samples["rillm:request_max_num_generation_tokens_sum"] == 3 * num_requests
    assert samples["rillm:request_params_n_sum"] == n * num_requests
    assert samples[f"http_requests_total{{handler={path},method=POST,status=2xx}}"] == 1
    assert samples[f"http_request_duration_seconds_count{{handler={path},method=POST}}"] == 1


async def test_requests_count_while_they_run_and_as_aborted_when_left() -> None:
    engine, gone = ScriptedEngine([delta(0, "a", [1, 2])], holds=True), asyncio.Event()
    written = asyncio.Event()
    app = new_app(engine)
    answering = asyncio.create_task(
        call_app(
            app,
            CHAT,
            HELLO | {"stream": True},
            disconnect=gone,
            on_write=lambda _: written.set(),
        )
    )
    await written.wait()
    during = await scrape(app)
    gone.set()
    await answering
    after = await scrape(app)

    assert during["rillm:num_requests_running"] == 1
    assert during["rillm:generation_tokens_total"] == 2
    assert during["rillm:request_success_total{finished_reason=abort}"] == 0
    assert after["rillm:num_requests_running"] == 0
    assert after["rillm:request_success_total{finished_reason=abort}"] == 1
    assert after["rillm:e2e_request_latency_seconds_count"] == 1


async def test_failures_and_refusals_are_told_apart() -> None:
    failing = ScriptedEngine([delta(0, "a")], EngineGenerateError("broken"))
    full = ScriptedEngine(CapacityError("full"))
    samples = []
    for engine, body in ((failing, {}), (full, {}), (failing, {"temperature": 9})):
        app = new_app(engine)
        await call_app(app, CHAT, HELLO | body)
        samples.append(await scrape(app))

    errors = [each["rillm:request_success_total{finished_reason=error}"] for each in samples]
    rejections = [each["rillm:admission_rejections_total{reason=capacity}"] for each in samples]
    assert (errors, rejections) == ([1, 0, 0], [0, 1, 0])
    statuses = ["5xx", "5xx", "4xx"]
    for each, status in zip(samples, statuses, strict=True):
        assert each[f"http_requests_total{{handler={CHAT},method=POST,status={status}}}"] == 1


async def test_gauges_are_the_engines() -> None:
    engine = ScriptedEngine()
    app = new_app(engine)
    engine.ready_info = info()
    engine.engine_stats = StepStats(
        num_running=5, num_waiting=2, num_free_blocks=150, num_preemptions=7
    )
    engine.num_restarts = 3
    running = await scrape(app)
    engine.errored = True
    dead = await scrape(app)

    assert running["rillm:num_requests_running"] == 5
    assert running["rillm:num_requests_waiting"] == 2
    assert running["rillm:kv_cache_usage_perc"] == 0.25
    assert running["rillm:num_preemptions_total"] == 7
    assert running["rillm:engine_restarts_total"] == 3
    assert dead["rillm:num_requests_running"] == dead["rillm:kv_cache_usage_perc"] == 0


async def test_strange_paths_and_methods_make_no_series_of_their_own() -> None:
    app = new_app(ScriptedEngine())
    for path in ("/a", "/b", "/v1/models/nothing"):
        await call_app(app, path, b"", method="GET")
    await call_app(app, "/c", b"", method="BREW")
    for path in ("/health", "/metrics"):
        await call_app(app, path, b"", method="GET")

    counts = {k: v for k, v in (await scrape(app)).items() if k.startswith("http_requests_total")}

    assert counts == {
        "http_requests_total{handler=none,method=GET,status=4xx}": 2,
        "http_requests_total{handler=none,method=other,status=4xx}": 1,
        "http_requests_total{handler=/v1/models/{model:path},method=GET,status=4xx}": 1,
    }


def test_times_of_a_request_are_the_engines() -> None:
    metrics = ServerMetrics(2048)
    stats = RequestStateStats(
        queued_ts=10.0, scheduled_ts=12.0, first_token_ts=15.0, last_token_ts=23.0
    )

    metrics.add_times(stats, longest=5)
    metrics.add_times(RequestStateStats(), longest=5)

    for histogram, total in (
        (metrics.queue, 2.0),
        (metrics.prefill, 3.0),
        (metrics.decode, 8.0),
        (metrics.inference, 11.0),
        (metrics.per_output_token, 2.0),
    ):
        assert (histogram.sum, histogram.buckets()[-1]) == (total, ("+Inf", 1))


@pytest.mark.parametrize(("spread", "total"), [(0.0, 0.0), (6.0, 6.0)], ids=["merged", "whole"])
def test_tokens_that_come_together_have_gaps_too(spread: float, total: float) -> None:
    metrics = ServerMetrics(2048)
    times = RequestStateStats(first_token_ts=9.0, last_token_ts=9.0 + spread)
    tally = Tally(metrics, SamplingParams(), None)

    tally.add(RequestOutput("a", None, [5], [delta(0, "abcd", [1, 2, 3, 4])], False, metrics=times))

    assert metrics.first_token.buckets()[-1] == ("+Inf", 1)
    assert (metrics.inter_token.sum, metrics.inter_token.buckets()[-1]) == (total, ("+Inf", 3))


@given(st.lists(st.floats(0, 20), max_size=30), st.sets(st.integers(0, 20), min_size=1))
def test_buckets_hold_what_is_at_most_their_bound(values: list[float], limits: set[int]) -> None:
    bounds = sorted(limits)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)

    expected = [(str(float(bound)), sum(v <= bound for v in values)) for bound in bounds]
    assert histogram.buckets() == [*expected, ("+Inf", len(values))]
    assert histogram.sum == pytest.approx(sum(values))
    assert len(histogram.counts) > bisect_left(bounds, 21)


def test_counts_of_a_running_model_are_exact(server: RunningServer) -> None:
    base = server.url.removesuffix("/v1")

    def get() -> Samples:
        with urllib.request.urlopen(f"{base}/metrics", timeout=30) as response:
            return read(response.read().decode())

    def post(body: Any) -> Any:
        request = urllib.request.Request(
            f"{server.url}/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    before = get()
    body = {"prompt": [5] * 40, "max_tokens": 6, "ignore_eos": True}
    usage = json.loads(post(body))["usage"]
    post(body | {"stream": True})
    after = get()

    def grown(name: str) -> float:
        return after[f"rillm:{name}"] - before.get(f"rillm:{name}", 0)

    assert usage["prompt_tokens"] == 40
    assert grown("prompt_tokens_total") == 80
    assert grown("generation_tokens_total") == 12
    assert grown("request_success_total{finished_reason=length}") == 2
    for name in ("time_to_first_token_seconds", "request_queue_time_seconds"):
        assert grown(f"{name}_count") == 2
    # A whole answer has gaps between its tokens, too.
    assert grown("inter_token_latency_seconds_count") == 10
    assert grown("request_params_max_tokens_sum") == 12
    assert 0 <= after["rillm:kv_cache_usage_perc"] <= 1
