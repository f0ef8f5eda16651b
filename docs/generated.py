"""The generated part of a page: written by a script, or checked to be up to date."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path


def update(page: Path, script: str, make: Callable[[], str]) -> None:
    """Write what stands between a page's two marks; with `--check` as argument, compare it.

    Args:
        page: holds `<!-- tables: written by SCRIPT -->` and `<!-- end of tables -->`.
        script: name of the script.
        make: makes the text.
    """
    begin, end = f"<!-- tables: written by {script} -->\n", "<!-- end of tables -->\n"
    old = page.read_text(encoding="utf-8")
    before, _, rest = old.partition(begin)
    _, _, after = rest.partition(end)
    new = f"{before}{begin}\n{make()}\n{end}{after}"
    if "--check" in sys.argv:
        sys.exit(old != new)
    page.write_text(new, encoding="utf-8")
