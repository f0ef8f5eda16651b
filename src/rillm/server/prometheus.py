"""GET /metrics: the server's counts in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from rillm.engine.config import EngineInfo
from rillm.server.metrics import REJECTION_REASONS, Histogram, ServerMetrics
from rillm.server.serving_engine import ServingEngine

PREFIX: Final = "rillm:"
ALIAS_PREFIX: Final = "vllm:"
FINISH_REASONS: Final = ("stop", "tool_calls", "length", "abort", "error", "repetition")

_LABELS: Final = ("model_name", "engine")
_ENGINE: Final = "0"

_HISTOGRAMS: Final = (
    ("time_to_first_token_seconds", "From the request to its first token.", "first_token"),
    ("inter_token_latency_seconds", "Between two tokens of a choice.", "inter_token"),
    (
        "request_time_per_output_token_seconds",
        "Mean time between two tokens of a request.",
        "per_output_token",
    ),
    ("e2e_request_latency_seconds", "From the request to its last token.", "end_to_end"),
    ("request_queue_time_seconds", "Spent waiting for a place in a batch.", "queue"),
    ("request_inference_time_seconds", "From the first step to the last token.", "inference"),
    ("request_prefill_time_seconds", "From the first step to the first token.", "prefill"),
    ("request_decode_time_seconds", "From the first token to the last.", "decode"),
    ("request_prompt_tokens", "Tokens of the prompt.", "prompt_length"),
    ("request_generation_tokens", "Tokens generated, all choices.", "generation_length"),
    (
        "request_max_num_generation_tokens",
        "Tokens generated, the longest choice.",
        "longest_generation",
    ),
    (
        "request_prefill_kv_computed_tokens",
        "Tokens of the prompt that were in no cache.",
        "computed_length",
    ),
    ("request_params_max_tokens", "Tokens asked for at most.", "max_tokens"),
    ("request_params_n", "Choices asked for.", "choices"),
    ("request_num_preemptions", "Times a request was set back.", "preemptions"),
)
"""Name, help and the attribute of `ServerMetrics`."""


class MetricsRoute:
    """The route, for one server."""

    def __init__(
        self, metrics: ServerMetrics, engine: ServingEngine, model: str, *, has_aliases: bool
    ) -> None:
        """Register what is shown.

        Args:
            metrics: what the server has counted.
            engine: counts its steps.
            model: value of the label `model_name`.
            has_aliases: show everything under its `vllm:` name too.
        """
        self._registry = CollectorRegistry()
        prefixes = (PREFIX, ALIAS_PREFIX) if has_aliases else (PREFIX,)
        self._registry.register(_ServerCollector(metrics, engine, (model, _ENGINE), prefixes))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    async def get_metrics(self, request: Request) -> Response:
        """Everything, in the format that the caller prefers."""
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        # Taken as a header of its own: Starlette would add a second charset.
        return Response(encode(self._registry), headers={"Content-Type": media_type})


class _ServerCollector(Collector):
    """Makes the library's objects out of our numbers, at a scrape and not before."""

    def __init__(
        self,
        metrics: ServerMetrics,
        engine: ServingEngine,
        labels: tuple[str, str],
        prefixes: tuple[str, ...],
    ) -> None:
        self._metrics = metrics
        self._engine = engine
        self._labels = labels
        self._prefixes = prefixes

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not ask for the names beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, once under each prefix."""
        for prefix in self._prefixes:
            yield from self._gauges(prefix)
            yield from self._counters(prefix)
            for name, text, attribute in _HISTOGRAMS:
                family = HistogramMetricFamily(prefix + name, text, labels=_LABELS)
                _add_histogram(family, self._labels, getattr(self._metrics, attribute))
                yield family
        yield from self._http()

    def _gauges(self, prefix: str) -> Iterator[Metric]:
        stats = self._engine.engine_stats
        is_dead = self._engine.errored
        running = self._metrics.num_open if stats is None else stats.num_running
        waiting = 0 if stats is None else stats.num_waiting
        yield self._gauge(
            prefix + "num_requests_running", "Sequences in the batch.", 0 if is_dead else running
        )
        yield self._gauge(
            prefix + "num_requests_waiting",
            "Sequences that wait for a place in the batch.",
            0 if is_dead else waiting,
        )
        info = self._engine.ready_info
        if stats is None or not isinstance(info, EngineInfo):
            return
        share = 1 - stats.num_free_blocks / max(info.num_blocks, 1)
        yield self._gauge(
            prefix + "kv_cache_usage_perc",
            "Share of the KV cache that sequences hold, 0 to 1.",
            0.0 if is_dead else share,
        )
        facts = {
            "block_size": str(info.block_size),
            "num_gpu_blocks": str(info.num_blocks),
            "kv_cache_bytes": str(info.kv_cache_bytes),
            "cache_dtype": info.dtype,
        }
        family = GaugeMetricFamily(
            prefix + "cache_config_info", "Size of the KV cache.", labels=(*_LABELS, *facts)
        )
        family.add_metric((*self._labels, *facts.values()), 1)
        yield family

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=_LABELS)
        family.add_metric(self._labels, value)
        return family

    def _counters(self, prefix: str) -> Iterator[Metric]:
        metrics, stats = self._metrics, self._engine.engine_stats
        for name, text, value in (
            ("prompt_tokens", "Tokens of prompts.", metrics.prompt_tokens),
            ("generation_tokens", "Tokens generated.", metrics.generation_tokens),
            ("prompt_tokens_cached", "Tokens of prompts found in a cache.", metrics.cached_tokens),
            ("prefix_cache_queries", "Tokens looked up in the cache.", metrics.prompt_tokens),
            ("prefix_cache_hits", "Tokens found in the cache.", metrics.cached_tokens),
            ("num_preemptions", "Sequences set back.", stats.num_preemptions if stats else 0),
            ("engine_restarts", "Times the engine was started again.", self._engine.num_restarts),
        ):
            family = CounterMetricFamily(prefix + name, text, labels=_LABELS)
            family.add_metric(self._labels, value)
            yield family
        ended = CounterMetricFamily(
            prefix + "request_success",
            "Choices that have ended, by how.",
            labels=(*_LABELS, "finished_reason"),
        )
        for reason in FINISH_REASONS:
            ended.add_metric((*self._labels, reason), metrics.finish_reasons[reason])
        yield ended
        rejected = CounterMetricFamily(
            prefix + "admission_rejections",
            "Requests that found no room.",
            labels=("model_name", "reason"),
        )
        for reason in REJECTION_REASONS:
            rejected.add_metric((self._labels[0], reason), metrics.rejections[reason])
        yield rejected

    def _http(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "http_requests", "HTTP requests.", labels=("handler", "method", "status")
        )
        for key, count in self._metrics.http_requests.items():
            requests.add_metric(key, count)
        yield requests
        durations = HistogramMetricFamily(
            "http_request_duration_seconds",
            "From the first byte in to the last byte out.",
            labels=("handler", "method"),
        )
        for labels, histogram in self._metrics.http_durations.items():
            _add_histogram(durations, labels, histogram)
        yield durations


def _add_histogram(
    family: HistogramMetricFamily, labels: tuple[str, ...], histogram: Histogram
) -> None:
    family.add_metric(labels, histogram.buckets(), sum_value=histogram.sum)
