"""`rillm bench`: how a server's streams feel, in figures."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from tqdm import tqdm

from rillm.bench.document import document
from rillm.bench.options import BenchOptions
from rillm.bench.report import report
from rillm.bench.runner import Results, num_requests, run
from rillm.bench.table import render
from rillm.errors import ConfigError

EXIT_FAULTS = 1

app = App(
    name="bench",
    help="Measure an OpenAI-compatible server as a reader feels it.",
    default_parameter=Parameter(consume_multiple=True, negative=""),
)


@app.default
def bench(
    url: str | None = None,
    /,
    *,
    options: Annotated[BenchOptions | None, Parameter(name="*")] = None,
) -> None:
    """Measure an OpenAI-compatible server as a reader feels it.

    Ends with status 1 if anything came out wrong: leaked markup, broken arguments, lost text.

    Args:
        url: Of the server; by default the one that `rillm serve` starts.
        options: What to ask, and where the results go.
    """
    options = options or BenchOptions()
    urls, objective = options.urls(url), options.objective()
    for path in (options.json, options.html):
        if path is not None:
            _check_writable(path)
    results = _run(options, urls)
    print(render(results, objective))
    found = document(results, options, objective)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.encode(found))
    if options.html is not None:
        options.html.write_text(report(results, objective, found["date"]), encoding="utf-8")
    if results.num_faults:
        sys.exit(EXIT_FAULTS)


def _run(options: BenchOptions, urls: tuple[str, ...]) -> Results:
    total = num_requests(options, len(urls))
    with (
        tqdm(total=total, unit="req", disable=None, leave=False, dynamic_ncols=True) as progress,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):

        def tell(title: str) -> None:
            progress.set_description_str(title, refresh=False)
            progress.update()

        return runner.run(run(options, urls, tell))


def _loop_factory() -> Any:
    """The faster event loop where there is one."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


def _check_writable(path: Path) -> None:
    """Before anything is measured for nothing.

    Raises:
        ConfigError: a file cannot be written there.
    """
    try:
        with path.open("a"):
            pass
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error
