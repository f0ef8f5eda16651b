"""What the server counts: plain numbers that are added to, read when somebody asks.

Nothing of a metrics library runs while tokens do. Names, labels and buckets are those that
dashboards and autoscalers of vLLM 0.33 read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from rillm.outputs import RequestStateStats

_TO_FIRST = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20,
    40, 80, 160, 640, 2560,
)  # fmt: skip
_BETWEEN = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
)  # fmt: skip
_WHOLE = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip
_HTTP = (0.1, 0.5, 1)
_FEW: Final = (1, 2, 5, 10, 20)


REJECTION_REASONS: Final = ("capacity", "key_limit")
"""Of the server, or of the caller's key."""


class Histogram:
    """Observations, sorted into buckets.

    Attributes:
        bounds: the largest value of each bucket, rising; the last bucket has none.
        counts: values in each bucket.
        sum: of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Start empty."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Add a value that occurred `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """Pairs of a bucket's bound, as text, and how many values are at most that."""
        bounds = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(bounds, accumulate(self.counts), strict=True))


class ServerMetrics:
    """All counts of one server; every attribute is added to in place.

    Counts of tokens are over all choices; histograms of requests hold one value a request.
    """

    def __init__(self, max_model_len: int) -> None:
        """Start at zero.

        Args:
            max_model_len: longest prompt plus output, in tokens; bounds the buckets of lengths.
        """
        lengths = _decades(max_model_len)
        self.num_open = 0
        """Requests that wait for tokens."""
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.cached_tokens = 0
        self.finish_reasons: Counter[str] = Counter()
        """Choices by how they ended."""
        self.rejections: Counter[str] = Counter()
        """Requests that found no room, by `REJECTION_REASONS`."""
        self.first_token = Histogram(_TO_FIRST)
        self.inter_token = Histogram(_BETWEEN)
        self.per_output_token = Histogram(_BETWEEN)
        self.end_to_end = Histogram(_WHOLE)
        self.queue = Histogram(_WHOLE)
        self.inference = Histogram(_WHOLE)
        self.prefill = Histogram(_WHOLE)
        self.decode = Histogram(_WHOLE)
        self.prompt_length = Histogram(lengths)
        self.generation_length = Histogram(lengths)
        self.longest_generation = Histogram(lengths)
        self.computed_length = Histogram(lengths)
        self.max_tokens = Histogram(lengths)
        self.choices = Histogram(_FEW)
        self.preemptions = Histogram(_FEW)
        self.http_requests: Counter[tuple[str, str, str]] = Counter()
        """By route, method and class of status."""
        self.http_durations: dict[tuple[str, str], Histogram] = {}
        """By route and method."""

    def add_times(self, stats: RequestStateStats, longest: int) -> None:
        """Add when things happened to a request that has ended.

        Args:
            stats: what the engine said; nothing is added when it said nothing.
            longest: tokens of the longest choice.
        """
        if not stats.first_token_ts:
            return
        decode = stats.last_token_ts - stats.first_token_ts
        self.queue.observe(stats.scheduled_ts - stats.queued_ts)
        self.prefill.observe(stats.first_token_ts - stats.scheduled_ts)
        self.decode.observe(decode)
        self.inference.observe(stats.last_token_ts - stats.scheduled_ts)
        self.preemptions.observe(stats.num_preemptions)
        if longest > 1:
            self.per_output_token.observe(decode / (longest - 1))

    def add_http(self, handler: str, method: str, status: int, seconds: float) -> None:
        """Add a request of whatever kind that has ended.

        Args:
            handler: path of the route, `none` where there is none.
            method: of HTTP.
            status: of HTTP.
            seconds: from the first byte in to the last byte out.
        """
        self.http_requests[handler, method, f"{status // 100}xx"] += 1
        durations = self.http_durations.get((handler, method))
        if durations is None:
            durations = self.http_durations[handler, method] = Histogram(_HTTP)
        durations.observe(seconds)


def _decades(limit: int) -> list[int]:
    """1, 2, 5, 10, 20, ... up to `limit`."""
    bounds = (step * 10**power for power in range(19) for step in (1, 2, 5))
    return [bound for bound in bounds if bound <= limit]
