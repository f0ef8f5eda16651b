"""The result as JSON, with everything that was measured, for another look at it later.

Names of figures are those of `vllm bench serve` where they mean the same: `median_ttft_ms`,
`p99_itl_ms`, `output_throughput`, `request_goodput`.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from rillm import __version__
from rillm.bench.exchange import Exchange
from rillm.bench.metrics import Objective, Summary, measure
from rillm.bench.options import BenchOptions
from rillm.bench.ratios import ratios
from rillm.bench.runner import Results, Row

_SECRET: Final = frozenset({"api_key", "header"})
_NUM_DIGITS: Final = 3
"""After the point, of milliseconds."""


def document(
    results: Results, options: BenchOptions, objective: Objective | None
) -> dict[str, Any]:
    """Everything as plain values; keys and headers that were sent are left out.

    Args:
        results: of a run.
        options: of the run.
        objective: what a good request is.
    """
    asked = {name: value for name, value in asdict(options).items() if name not in _SECRET}
    return {
        "rillm": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": {
            name: str(v) if name in ("json", "html", "prompts") else v for name, v in asked.items()
        },
        "servers": [
            {"url": url, "model_id": model}
            for url, model in zip(results.urls, results.models, strict=True)
        ],
        "duration": results.duration_s,
        "cpu_share": results.cpu_share,
        "num_faults": results.num_faults,
        "ratios": [asdict(each) for each in ratios(results.rows)],
        "rows": [_row(row, objective) for row in results.rows],
    }


def _row(row: Row, objective: Objective | None) -> dict[str, Any]:
    return {
        "title": row.title,
        "server": row.server,
        "scenario": None if row.scenario is None else row.scenario.name,
        "max_concurrency": None if row.load is None else row.load.concurrency,
        "request_rate": None if row.load is None else row.load.rate,
        **_figures(row.summary(objective)),
        "missed": row.num_missed,
        "not_comparable": row.num_unlike,
        "warmup_faults": [fault for each in row.warmups for fault in each.faults],
        "requests": [_request(each) for each in row.exchanges],
    }


def _figures(summary: Summary) -> dict[str, Any]:
    found: dict[str, Any] = {
        "duration": summary.duration_s,
        "completed": summary.num_completed,
        "failed": summary.num_failed,
        "total_input_tokens": summary.input_tokens,
        "total_cached_tokens": summary.cached_tokens,
        "total_output_tokens": summary.output_tokens,
        "total_chunks": summary.num_chunks,
        "request_throughput": summary.request_throughput,
        "output_throughput": summary.output_throughput,
        "request_goodput": summary.request_goodput,
        "chars_per_chunk": summary.chars_per_chunk,
        "tokens_per_chunk": summary.tokens_per_chunk,
        "faults": summary.faults,
    }
    for name, spread in summary.spreads.items():
        for key, value in (
            ("mean", spread.mean),
            ("median", spread.p50),
            ("std", spread.std),
            ("min", spread.min),
            ("p90", spread.p90),
            ("p99", spread.p99),
            ("max", spread.max),
        ):
            found[f"{key}_{name}_ms"] = value
    return found


def _request(made: Exchange) -> dict[str, Any]:
    answer = made.answer
    times = {
        f"{name}_ms": round(values[0], _NUM_DIGITS)
        for name, values in measure(answer).items()
        if name != "itl"
    }
    return {
        **times,
        "prompt_tokens": answer.prompt_tokens,
        "output_tokens": answer.num_tokens(),
        "finish_reasons": [choice.finish_reason for _, choice in sorted(answer.choices.items())],
        "faults": made.faults,
        "chunk_ms": [round(piece.at_s * 1e3, _NUM_DIGITS) for piece in answer.pieces],
        "chunk_size": [piece.size for piece in answer.pieces],
        "chunk_choice": [piece.choice for piece in answer.pieces],
        "chunk_kind": [piece.kind for piece in answer.pieces],
    }
