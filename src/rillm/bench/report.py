"""The result as one HTML page: no scripts, nothing from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

from rillm import __version__
from rillm.bench.exchange import Exchange
from rillm.bench.figures import SERVERS, Table, faults, notes, place, ratio_table, shown, tables
from rillm.bench.metrics import METRICS, Objective, Spread, measure
from rillm.bench.plots import (
    Curve,
    Lane,
    Series,
    Strip,
    Whisker,
    curves,
    distributions,
    timeline,
    whiskers,
)
from rillm.bench.ratios import THROUGHPUT, ratios
from rillm.bench.runner import Results, Row

_STYLE: Final = Path(__file__).with_name("report.css")
_MILESTONES: Final = {
    "ttfb": ("k-first", "first byte"),
    "reasoning": ("k-reasoning", "first reasoning"),
    "content": ("k-content", "first content"),
    "tool_name": ("k-name", "tool name"),
    "tool_args": ("k-arguments", "first arguments"),
    "e2el": ("k-end", "end"),
}
_KINDS: Final = {
    "reasoning": "reasoning",
    "content": "content",
    "name": "tool name",
    "arguments": "arguments",
    "tokens": "token ids",
}
_SERVER_STYLES: Final = ("k-a", "k-b")
_STRIPS: Final = 5
"""Requests of a scenario whose chunks are drawn."""
_LOAD_STRIPS: Final = 24
"""The same of a step of a sweep."""
_DETAILS: Final = 5
_IN_PLOT: Final = ("ttft", "tool_args", "itl", "e2el", THROUGHPUT)
"""Ratios that are drawn; the table has all of them."""


def report(results: Results, objective: Objective | None, date: str) -> str:
    """Make the page.

    Args:
        results: of a run.
        objective: what a good request is.
        date: of the run.
    """
    sections = "".join(
        (
            *_header(results, date),
            *_tiles(results, objective),
            *_faults(results),
            *_comparison(results),
            *_arrivals(results),
            *_load_plots(results),
            *_tables(results, objective),
            *_timelines(results),
            *_words(results, objective),
        )
    )
    style = _STYLE.read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>rillm bench: {escape(' and '.join(results.models))}</title>"
        f"<style>\n{style}</style></head>\n<body><main>{sections}</main></body></html>\n"
    )


def _header(results: Results, date: str) -> Iterator[str]:
    count = results.num_faults
    verdict = ("bad", f"{count} fault{'s' * (count > 1)}") if count else ("good", "no faults")
    yield f'<header><h1>rillm bench</h1><p class="meta">{escape(date)}</p>'
    yield f'<span class="verdict {verdict[0]}">{verdict[1]}</span></header>'
    for number, (url, model) in enumerate(zip(results.urls, results.models, strict=True)):
        name = f"<b>{SERVERS[number]}</b> " if len(results.urls) > 1 else ""
        yield f'<p class="meta">{name}<code>{escape(url)}</code>, '
        yield f"model <code>{escape(model)}</code></p>"


def _tiles(results: Results, objective: Objective | None) -> Iterator[str]:
    """What one would read out to somebody else; of scenarios, where there are any."""
    has_scenarios = any(row.load is None for row in results.rows)
    rows = [row for row in results.rows if row.load is None or not has_scenarios]
    yield '<h2>At a glance</h2><div class="tiles">'
    yield _tile(str(results.num_requests), "", "streams, each held against the gates")
    for metric, name in (("ttft", "time to first token"), ("itl", "from chunk to chunk")):
        yield _tile(*_medians(results, rows, metric), f"{name}, median")
    best = [
        max((row.summary().output_throughput for row in results.rows if row.server == i), default=0)
        for i in range(len(results.urls))
    ]
    yield _tile(" / ".join(map(shown, best)), "tok/s", "highest output throughput")
    if objective is not None:
        good = [row.summary(objective) for row in results.rows]
        share = sum(each.num_good or 0 for each in good) / max(sum(e.num_requests for e in good), 1)
        yield _tile(
            f"{share:.0%}", "", f"within {' '.join(f'{k}:{v:g}' for k, v in objective.items())}"
        )
    yield "</div>"


def _medians(results: Results, rows: Sequence[Row], metric: str) -> tuple[str, str]:
    """The median over all requests of each server, and its unit."""
    found = []
    for i in range(len(results.urls)):
        made = (each for row in rows if row.server == i for each in _complete(row))
        spread = Spread.of(value for each in made for value in measure(each.answer).get(metric, ()))
        found.append(shown(None if spread is None else spread.p50))
    return " / ".join(found), "ms"


def _tile(figure: str, unit: str, meaning: str) -> str:
    return (
        f'<div class="card"><b>{figure} <small>{unit}</small></b>'
        f"<span>{escape(meaning)}</span></div>"
    )


def _faults(results: Results) -> Iterator[str]:
    found = faults(results)
    if not found:
        return
    yield '<h2>Faults</h2><div class="card words"><table><thead><tr><th>gate</th><th>where</th>'
    yield "<th>times</th><th>what</th></tr></thead><tbody>"
    for each in found:
        what = "".join(
            f"<div><code>{escape(said)}</code></div>" for said in each.details[:_DETAILS]
        )
        yield f"<tr><td><b>{each.gate}</b><br>{each.meaning}</td><td>{escape(each.where)}</td>"
        yield f"<td>{each.count}</td><td>{what}</td></tr>"
    yield "</tbody></table></div>"


def _comparison(results: Results) -> Iterator[str]:
    found = ratios(results.rows) if len(results.urls) > 1 else []
    if not found:
        return
    yield "<h2>B against A</h2><p>Both servers were asked in turn. A ratio is taken within each "
    yield "round; the bar spans its quartiles. Below 1 the second server takes less time; of "
    yield "tokens a second, more is better.</p>"
    drawn = []
    for each in found:
        if each.metric in _IN_PLOT:
            is_rate = each.metric == THROUGHPUT
            better = each.p25 > 1 if is_rate else each.p75 < 1
            worse = each.p75 < 1 if is_rate else each.p25 > 1
            style = "k-arguments" if better else "k-name" if worse else "k-first"
            label = f"{each.title}: {'tok/s' if is_rate else each.metric}"
            drawn.append(Whisker(label, each.p25, each.p50, each.p75, style))
    yield '<div class="card">'
    yield _legend(
        (("k-arguments", "B is better"), ("k-first", "no difference"), ("k-name", "A is better"))
    )
    yield whiskers(drawn, "ratios of the two servers") + "</div>"
    yield f"<details><summary>All ratios</summary>{_table(ratio_table(found))}</details>"


def _tables(results: Results, objective: Objective | None) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    for server in range(len(results.urls)):
        if len(results.urls) > 1:
            yield f"<h3>{SERVERS[server]}</h3>"
        for table in tables(results, server, objective):
            yield _table(table)


def _table(table: Table) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in table.heads)
    rows = "".join(
        f"<tr><th>{escape(title)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for title, cells in table.rows
    )
    return (
        f'<div class="card"><table><thead><tr><th>{escape(table.caption)}</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _arrivals(results: Results) -> Iterator[str]:
    rows = [row for row in results.rows if row.load is None and _complete(row)]
    if not rows:
        return
    yield "<h2>When things arrive</h2><p>From the moment a request is sent. Each dot is one "
    yield "request, the upright line the median.</p>"
    lanes = [Lane(place(results, row), _milestones(row)) for row in rows]
    present = {series.name for lane in lanes for series in lane.series}
    styles = [style for style in _MILESTONES.values() if style[1] in present]
    yield f'<div class="card">{_legend(styles)}{distributions(lanes, "times of arrival")}</div>'
    yield "<h2>Gaps between chunks</h2><p>What a reader waits for while the answer runs: solid "
    yield "lines are medians, dashed ones p99.</p>"
    gaps = [Lane(title, series) for title, series in _by_title(rows, "itl")]
    yield f'<div class="card">{distributions(gaps, "gaps between chunks")}</div>'


def _milestones(row: Row) -> list[Series]:
    measured = [measure(made.answer) for made in _complete(row)]
    found = (
        Series(style, name, [each[metric][0] for each in measured if metric in each])
        for metric, (style, name) in _MILESTONES.items()
    )
    return [series for series in found if series.values]


def _by_title(rows: Sequence[Row], metric: str) -> Iterator[tuple[str, list[Series]]]:
    """One metric of all rows with the same title, one colour a server."""
    for title in dict.fromkeys(row.title for row in rows):
        series = []
        for row in rows:
            if row.title == title:
                measured = (measure(made.answer) for made in _complete(row))
                values = [value for each in measured for value in each.get(metric, ())]
                series.append(Series(_SERVER_STYLES[row.server], SERVERS[row.server], values))
        yield title, series


def _load_plots(results: Results) -> Iterator[str]:
    rows = [row for row in results.rows if row.load is not None and _complete(row)]
    if not rows:
        return
    yield "<h2>Throughput against latency</h2><p>Each point is a step of the sweep.</p>"
    yield _server_legend(results)
    yield _legend((("solid", "median"), ("dashed", "p99")))
    yield '<div class="pair">'
    for metric, name in (("ttft", "TTFT, ms"), ("itl", "ITL, ms")):
        found = _load_curves(rows, metric)
        if found:
            yield f'<div class="card">{curves(found, "output tok/s", name, name)}</div>'
    yield "</div>"
    for metric, name in (("ttft", "TTFT"), ("itl", "ITL"), ("e2el", "E2EL")):
        lanes = [Lane(title, series) for title, series in _by_title(rows, metric)]
        yield f'<div class="card"><h3>{name} at each load</h3>{distributions(lanes, name)}</div>'


def _timelines(results: Results) -> Iterator[str]:
    rows = [row for row in results.rows if row.exchanges]
    loads = [row for row in rows if row.load is not None]
    titles = dict.fromkeys(row.title for row in rows if row.load is None)
    if titles:
        yield "<h2>Chunks as they came</h2><p>Each line is a request, each tick a chunk.</p>"
    for title in titles:
        same = [row for row in rows if row.title == title]
        yield from _timeline(
            title, [each for row in same for each in _strips(results, row, _STRIPS)]
        )
    if loads:
        yield "<h2>Requests under load</h2><p>The first requests of each step, from the moment "
        yield "each was sent to its end.</p>"
    for row in loads:
        strips = list(_strips(results, row, _LOAD_STRIPS, together=True))
        yield from _timeline(place(results, row), strips)


def _timeline(title: str, strips: Sequence[Strip]) -> Iterator[str]:
    if not strips:
        return
    present = {style for strip in strips for _, style in strip.ticks}
    kinds = [(f"k-{kind}", name) for kind, name in _KINDS.items() if f"k-{kind}" in present]
    yield f'<div class="card"><h3>{escape(title)}</h3>{_legend(kinds)}'
    yield f"{timeline(strips, f'chunks of {title}')}</div>"


def _load_curves(rows: Sequence[Row], metric: str) -> list[Curve]:
    """For each server and each kind of load, the median and p99 over the throughput."""
    groups: dict[tuple[int, bool], list[Row]] = {}
    for row in rows:
        if row.load is not None:
            groups.setdefault((row.server, row.load.rate is None), []).append(row)
    found = []
    for (server, _), steps in groups.items():
        summaries = [(row.summary(), row.load.label) for row in steps if row.load is not None]
        for quantile in ("p50", "p99"):
            points = [
                (summary.output_throughput, value, label)
                for summary, label in summaries
                if (value := summary.quantile(metric, quantile))
            ]
            if points:
                style, name = _SERVER_STYLES[server], f"{SERVERS[server]} {quantile}"
                found.append(Curve(style, name, points, is_dashed=quantile == "p99"))
    return found


def _strips(results: Results, row: Row, most: int, *, together: bool = False) -> Iterator[Strip]:
    """Requests of a row; `together` from the start of the first of them, else each from its own."""
    made = [
        each
        for each in (row.rounds[0].exchanges if together else row.exchanges)
        if each.answer.pieces
    ]
    origin = made[0].sent_at if made else 0.0
    for number, each in enumerate(made[:most], start=1):
        start_ms = (each.sent_at - origin) * 1e3 if together else 0.0
        pieces = each.answer.pieces
        end_s = each.answer.end_s or pieces[-1].at_s
        ticks = [(start_ms + piece.at_s * 1e3, f"k-{piece.kind}") for piece in pieces]
        server = f"{SERVERS[row.server]} " if len(results.urls) > 1 else ""
        label = f"{server}{number}" + ("" if each.is_complete else " (broken)")
        yield Strip(label, start_ms, start_ms + end_s * 1e3, ticks)


def _server_legend(results: Results) -> str:
    if len(results.urls) == 1:
        return ""
    return _legend(
        [(style, f"{SERVERS[i]} {results.urls[i]}") for i, style in enumerate(_SERVER_STYLES)]
    )


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    spans = (f'<span class="{style}">{escape(name)}</span>' for style, name in entries)
    return f'<div class="legend">{"".join(spans)}</div>'


def _words(results: Results, objective: Objective | None) -> Iterator[str]:
    yield '<h2>What the words mean</h2><div class="card"><dl>'
    for name, meaning in METRICS.items():
        yield f"<dt>{name.replace('_', ' ')}</dt><dd>{escape(meaning)}</dd>"
    yield "</dl></div>"
    for note in notes(results):
        yield f"<p>{escape(note)}.</p>"
    yield f"<p>Made by rillm {__version__}.</p>"


def _complete(row: Row) -> list[Exchange]:
    return [made for made in row.exchanges if made.is_complete]
