"""The result in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rillm.bench.figures import SERVERS, Table, faults, notes, ratio_table, tables
from rillm.bench.gates import GATES
from rillm.bench.metrics import Objective
from rillm.bench.ratios import ratios
from rillm.bench.runner import Results

_EXAMPLES: Final = 3
"""Faults of one gate and row that are shown."""


def render(results: Results, objective: Objective | None) -> str:
    """Everything a reader wants to see at once.

    Args:
        results: of a run.
        objective: what a good request is.
    """
    return "\n".join(_lines(results, objective))


def _lines(results: Results, objective: Objective | None) -> Iterator[str]:
    is_pair = len(results.urls) > 1
    for server, (url, model) in enumerate(zip(results.urls, results.models, strict=True)):
        yield ""
        yield f"{SERVERS[server] + ': ' if is_pair else ''}{url}, model {model}"
        for table in tables(results, server, objective):
            yield from _table(table)
    if is_pair:
        yield from _table(ratio_table(ratios(results.rows)))
    yield ""
    yield from notes(results)
    yield from _faults(results)


def _table(table: Table) -> Iterator[str]:
    first = max(len(table.caption), *(len(title) for title, _ in table.rows), 0) + 1
    widths = [
        max(len(head), *(len(cells[i]) for _, cells in table.rows), 0) + 2
        for i, head in enumerate(table.heads)
    ]
    yield ""
    for title, cells in [(table.caption, table.heads), *table.rows]:
        line = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        yield f"{title:{first}}" + "".join(line)


def _faults(results: Results) -> Iterator[str]:
    found = faults(results)
    if not found:
        yield f"gates: no faults in {results.num_requests} requests"
        return
    yield f"gates: {results.num_faults} faults in {results.num_requests} requests"
    for gate, meaning in GATES.items():
        places = [each for each in found if each.gate == gate]
        if places:
            yield f"  {gate}: {meaning}"
        for each in places:
            yield f"    {each.where}: {each.count}"
            for detail in each.details[:_EXAMPLES]:
                yield f"      {detail}"
