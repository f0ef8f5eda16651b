"""Two servers side by side: how their figures relate, round by round.

Both servers were asked in turn, so what disturbs the machine disturbs both; a ratio is taken
within each round, and the spread over the rounds says how far it can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rillm.bench.metrics import percentile, summarize
from rillm.bench.runner import Round, Row

THROUGHPUT: Final = "output_throughput"
COMPARED: Final = ("ttft", "reasoning", "content", "tool_name", "tool_args", "tool_call", "itl",
                   "tpot", "e2el", THROUGHPUT)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ratio:
    """The second server's figure as a multiple of the first's."""

    title: str
    metric: str
    first: float
    second: float
    """Medians over the rounds, in milliseconds or tokens a second."""
    p25: float
    p50: float
    p75: float
    """Of the ratio over the rounds."""
    num_rounds: int


def ratios(rows: Sequence[Row]) -> list[Ratio]:
    """What can be compared of all rows that two servers share."""
    of_second = {row.title: row for row in rows if row.server == 1}
    pairs = [
        (row, of_second[row.title]) for row in rows if row.server == 0 and row.title in of_second
    ]
    return [found for first, second in pairs for found in _ratios(first, second)]


def _ratios(first: Row, second: Row) -> Iterator[Ratio]:
    rounds = zip(first.rounds, second.rounds, strict=True)
    figures = [(_figures(one), _figures(other)) for one, other in rounds]
    for metric in COMPARED:
        pairs = [
            (one[metric], other[metric])
            for one, other in figures
            if one.get(metric) and metric in other
        ]
        if pairs:
            a, b, each = (
                sorted(values)
                for values in (
                    (one for one, _ in pairs),
                    (other for _, other in pairs),
                    (other / one for one, other in pairs),
                )
            )
            p25, p50, p75 = (percentile(each, share) for share in (0.25, 0.5, 0.75))
            yield Ratio(
                first.title,
                metric,
                percentile(a, 0.5),
                percentile(b, 0.5),
                p25,
                p50,
                p75,
                len(pairs),
            )


def _figures(round: Round) -> dict[str, float]:
    summary = summarize(round.exchanges, round.duration_s)
    found = {name: spread.p50 for name, spread in summary.spreads.items()}
    return found | {THROUGHPUT: summary.output_throughput}
