"""From answers to figures. Seconds in, milliseconds out: the unit of every other tool."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rillm.bench.answer import Answer
from rillm.bench.exchange import Exchange
from rillm.bench.gates import Gate
from rillm.errors import ConfigError

METRICS: Final[dict[str, str]] = {
    "ttfb": "time to first byte: the response's headers",
    "ttft": "time to first token: the first chunk with any output",
    "reasoning": "time to first reasoning",
    "content": "time to first content",
    "tool_name": "time to first tool name",
    "tool_args": "time to first fragment of arguments",
    "tool_call": "time to the first complete call",
    "e2el": "end-to-end latency: the end of the stream",
    "tpot": "time per output token, without the first",
    "itl": "inter-token latency: from one chunk with output to the next",
    "jitter": "mean change from one such gap to the next",
    "longest_gap": "longest such gap",
}
"""What is measured of each request, in milliseconds; `itl` has many values a request."""
GOODPUT_METRICS: Final = frozenset(METRICS) - {"jitter"}
_MS: Final = 1e3


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies, interpolated between neighbours.

    Args:
        ordered: at least one value, in ascending order.
        share: in [0, 1].
    """
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


@dataclass(frozen=True, slots=True)
class Spread:
    """How a metric is distributed."""

    count: int
    mean: float
    std: float
    min: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Of some values; None if there are none."""
        ordered = sorted(values)
        if not ordered:
            return None
        p50, p90, p99 = (percentile(ordered, share) for share in (0.5, 0.9, 0.99))
        mean, std = statistics.fmean(ordered), statistics.pstdev(ordered)
        return cls(len(ordered), mean, std, ordered[0], p50, p90, p99, ordered[-1])


def measure(answer: Answer) -> dict[str, list[float]]:
    """All metrics of one answer, each with its values in milliseconds; what is not there is not."""
    gaps = answer.gaps_s()
    first, last = (answer.pieces[0].at_s, answer.pieces[-1].at_s) if answer.pieces else (None, None)
    single: dict[str, float | None] = {
        "ttfb": answer.first_byte_s,
        "ttft": first,
        "reasoning": answer.first_s.get("reasoning"),
        "content": answer.first_s.get("content"),
        "tool_name": answer.first_s.get("name"),
        "tool_args": answer.first_s.get("arguments"),
        "tool_call": answer.call_complete_s(),
        "e2el": answer.end_s,
        "jitter": _jitter(gaps),
        "longest_gap": max(gaps, default=None),
    }
    num_tokens = (answer.num_tokens() or 0) / max(len(answer.choices), 1)
    if first is not None and last is not None and num_tokens > 1:
        single["tpot"] = (last - first) / (num_tokens - 1)
    found = {name: [value * _MS] for name, value in single.items() if value is not None}
    if gaps:
        found["itl"] = [gap * _MS for gap in gaps]
    return found


def _jitter(gaps: Sequence[float]) -> float | None:
    changes = [abs(b - a) for a, b in zip(gaps, gaps[1:], strict=False)]
    return statistics.fmean(changes) if changes else None


Objective = Mapping[str, float]
"""Metrics with the most milliseconds that are good; of several values, their mean counts."""


def parse_goodput(words: Sequence[str]) -> Objective:
    """Read an objective written `ttft:500 itl:50`.

    Raises:
        ConfigError: a word is not a metric and a number of milliseconds.
    """
    objective = {}
    for word in words:
        name, _, limit = word.partition(":")
        try:
            value = float(limit)
        except ValueError:
            value = math.nan
        if name not in GOODPUT_METRICS or not value > 0:
            raise ConfigError(
                f"goodput is {word!r}, must be METRIC:MILLISECONDS with one of "
                f"{', '.join(sorted(GOODPUT_METRICS))}"
            )
        objective[name] = value
    return objective


def meets(found: Mapping[str, Sequence[float]], objective: Objective) -> bool:
    """Whether an answer met an objective; a metric that it does not have is met."""
    return all(
        statistics.fmean(found[name]) <= limit for name, limit in objective.items() if name in found
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of some requests."""

    num_completed: int
    num_failed: int
    """Requests without a whole answer."""
    duration_s: float
    """While any of them was running."""
    spreads: Mapping[str, Spread]
    """Of each metric that there is, in milliseconds."""
    input_tokens: int
    cached_tokens: int
    """Input tokens from the server's prefix cache, as it says."""
    output_tokens: int
    num_chunks: int
    num_chars: int
    num_uncounted: int
    """Requests whose tokens nobody counted: their chunks are counted instead."""
    num_good: int | None = None
    """Requests that met the objective; None without one."""
    faults: Mapping[Gate, int] = field(default_factory=dict)
    """How many requests had a fault at each gate."""

    @property
    def num_requests(self) -> int:
        """All of them."""
        return self.num_completed + self.num_failed

    @property
    def request_throughput(self) -> float:
        """Completed requests a second."""
        return self._rate(self.num_completed)

    @property
    def output_throughput(self) -> float:
        """Output tokens a second, of all requests together."""
        return self._rate(self.output_tokens)

    @property
    def request_goodput(self) -> float | None:
        """Requests a second that met the objective."""
        return None if self.num_good is None else self._rate(self.num_good)

    def mean_of(self, total: int) -> float:
        """A total for each completed request."""
        return total / max(self.num_completed, 1)

    @property
    def chars_per_chunk(self) -> float:
        """Mean size of a chunk with output, in characters."""
        return self.num_chars / max(self.num_chunks, 1)

    @property
    def tokens_per_chunk(self) -> float:
        """Mean size of a chunk with output, in tokens."""
        return self.output_tokens / max(self.num_chunks, 1)

    def quantile(self, metric: str, name: str) -> float | None:
        """One figure of one metric, such as its `p50`; None where the metric is not there."""
        spread = self.spreads.get(metric)
        return None if spread is None else float(getattr(spread, name))

    def _rate(self, count: int) -> float:
        return count / self.duration_s if self.duration_s > 0 else 0.0


def summarize(
    exchanges: Sequence[Exchange], duration_s: float, objective: Objective | None = None
) -> Summary:
    """The figures of some requests.

    Args:
        exchanges: without those that only warmed up.
        duration_s: while any of them was running.
        objective: what a good request is.
    """
    completed = [each for each in exchanges if each.is_complete]
    answers = [each.answer for each in completed]
    measured = [measure(answer) for answer in answers]
    spreads = {
        name: spread
        for name in METRICS
        if (spread := Spread.of(value for each in measured for value in each.get(name, ())))
    }
    counts = [answer.num_tokens() for answer in answers]
    faults: dict[Gate, int] = {}
    for each in exchanges:
        for gate in {fault.gate for fault in each.faults}:
            faults[gate] = faults.get(gate, 0) + 1
    return Summary(
        num_completed=len(completed),
        num_failed=len(exchanges) - len(completed),
        duration_s=duration_s,
        spreads=spreads,
        input_tokens=_total(answers, lambda answer: answer.prompt_tokens),
        cached_tokens=_total(answers, lambda answer: answer.cached_tokens),
        output_tokens=sum(
            len(answer.pieces) if count is None else count
            for answer, count in zip(answers, counts, strict=True)
        ),
        num_chunks=_total(answers, lambda answer: len(answer.pieces)),
        num_chars=_total(answers, lambda answer: sum(piece.size for piece in answer.pieces)),
        num_uncounted=counts.count(None),
        num_good=None if not objective else sum(meets(each, objective) for each in measured),
        faults=faults,
    )


def _total(answers: Sequence[Answer], count: Callable[[Answer], int]) -> int:
    return sum(map(count, answers))
