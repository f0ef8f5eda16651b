"""The figures that are shown, as tables of text: the terminal and the report show the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rillm.bench.gates import GATES, Gate
from rillm.bench.metrics import Objective, Summary
from rillm.bench.ratios import THROUGHPUT, Ratio
from rillm.bench.runner import Results, Row

Value = float | int | str | None
Column = tuple[str, Callable[[Summary], Value]]

NOTHING: Final = "-"
SERVERS: Final = "AB"
"""Names of two servers that are compared."""


@dataclass(frozen=True, slots=True)
class Table:
    """A caption, the heads of the columns, and for each row its title and its cells."""

    caption: str
    heads: list[str]
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True, slots=True)
class FaultCount:
    """Faults at one gate in the requests of one row."""

    gate: Gate
    meaning: str
    where: str
    count: int
    details: list[str]
    """What was wrong, each once."""


def _quantile(metric: str, name: str = "p50") -> Callable[[Summary], Value]:
    return lambda summary: summary.quantile(metric, name)


_OK: Final[Column] = ("ok", lambda each: f"{each.num_completed}/{each.num_requests}")
_TIMES: Final[tuple[Column, ...]] = (
    _OK,
    ("TTFB", _quantile("ttfb")),
    ("TTFT", _quantile("ttft")),
    ("p99", _quantile("ttft", "p99")),
    ("reasoning", _quantile("reasoning")),
    ("content", _quantile("content")),
    ("tool name", _quantile("tool_name")),
    ("tool args", _quantile("tool_args")),
    ("call", _quantile("tool_call")),
    ("E2EL", _quantile("e2el")),
    ("p99", _quantile("e2el", "p99")),
)
_FLOW: Final[tuple[Column, ...]] = (
    ("ITL", _quantile("itl")),
    ("p90", _quantile("itl", "p90")),
    ("p99", _quantile("itl", "p99")),
    ("jitter", _quantile("jitter")),
    ("longest", _quantile("longest_gap", "max")),
    ("TPOT", _quantile("tpot")),
    ("chunks", lambda each: each.mean_of(each.num_chunks)),
    ("char/chunk", lambda each: each.chars_per_chunk),
    ("tok/chunk", lambda each: each.tokens_per_chunk),
    ("tok/s", lambda each: each.output_throughput),
)
_LOAD: Final[tuple[Column, ...]] = (
    _OK,
    ("req/s", lambda each: each.request_throughput),
    ("tok/s", lambda each: each.output_throughput),
    ("TTFT", _quantile("ttft")),
    ("p99", _quantile("ttft", "p99")),
    ("ITL", _quantile("itl")),
    ("p99", _quantile("itl", "p99")),
    ("TPOT", _quantile("tpot")),
    ("p99", _quantile("tpot", "p99")),
    ("E2EL", _quantile("e2el")),
    ("p99", _quantile("e2el", "p99")),
)
_GOODPUT: Final[Column] = ("good/s", lambda each: each.request_goodput)


def tables(results: Results, server: int, objective: Objective | None) -> list[Table]:
    """The tables of one server.

    Args:
        results: of a run.
        server: its number.
        objective: what a good request is; None for no such column.
    """
    rows = [row for row in results.rows if row.server == server]
    scenarios = [row for row in rows if row.load is None]
    loads = [row for row in rows if row.load is not None]
    goodput = () if objective is None else (_GOODPUT,)
    wanted = (
        ("times in ms, medians", (*_TIMES, *goodput), scenarios),
        ("flow, gaps in ms", _FLOW, scenarios),
        ("load, times in ms", (*_LOAD, *goodput), loads),
    )
    return [_table(caption, columns, some, objective) for caption, columns, some in wanted if some]


def _table(
    caption: str, columns: Sequence[Column], rows: Sequence[Row], objective: Objective | None
) -> Table:
    cells = []
    for row in rows:
        summary = row.summary(objective)
        cells.append([shown(value(summary)) for _, value in columns])
    kept = [i for i in range(len(columns)) if any(line[i] != NOTHING for line in cells)]
    heads = [columns[i][0] for i in kept]
    lines = zip(rows, cells, strict=True)
    return Table(caption, heads, [(row.title, [line[i] for i in kept]) for row, line in lines])


def ratio_table(found: Sequence[Ratio]) -> Table:
    """What two servers have to do with each other."""
    rows = [
        (
            f"{each.title}: {'tok/s' if each.metric == THROUGHPUT else each.metric}",
            [
                shown(each.first),
                shown(each.second),
                f"{each.p50:.2f}",
                f"{each.p25:.2f} to {each.p75:.2f}",
            ],
        )
        for each in found
    ]
    return Table("B / A, medians over the rounds", ["A", "B", "B / A", "quartiles"], rows)


def notes(results: Results) -> Iterator[str]:
    """What a reader should know who compares the figures."""
    for row in results.rows:
        if row.num_missed and row.scenario is not None:
            wanted = "call" if row.scenario.expects == "name" else row.scenario.expects
            yield f"{place(results, row)}: {row.num_missed} answers without a {wanted}"
        if row.num_unlike:
            yield (
                f"{place(results, row)}: {row.num_unlike} whole answers came out differently each "
                "time, so their streams could not be compared"
            )
        if uncounted := row.summary().num_uncounted:
            yield f"{place(results, row)}: {uncounted} answers without usage, chunks are counted"
    share, duration_s = results.cpu_share, results.duration_s
    yield f"the benchmark itself took {share:.1%} of one core over {duration_s:.1f} s"


def faults(results: Results) -> list[FaultCount]:
    """All faults, in the order of the gates."""
    details: dict[tuple[Gate, str], list[str]] = {}
    for row in results.rows:
        for made in (*row.warmups, *row.exchanges):
            for gate, detail in made.faults:
                details.setdefault((gate, place(results, row)), []).append(detail)
    return [
        FaultCount(gate, meaning, where, len(said), list(dict.fromkeys(said)))
        for gate, meaning in GATES.items()
        for (name, where), said in details.items()
        if name == gate
    ]


def place(results: Results, row: Row) -> str:
    """The row's title, with the server's name where there are two."""
    return row.title if len(results.urls) == 1 else f"{row.title} ({SERVERS[row.server]})"


def shown(value: Value) -> str:
    """A figure with three digits that count, a word as it is, and `-` for nothing."""
    if value is None:
        return NOTHING
    if isinstance(value, str | int):
        return str(value)
    num_digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{num_digits}f}"
