"""`python -m tests.hostile --cases 10000`: bad inputs to a real server."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from faults.fault_harness import running_server
from hostile_run import SETTINGS, check_unharmed, idle, run_cases, warm_up


async def run(first: int, count: int) -> bool:
    """Whether nothing went wrong."""
    # One heap for all threads: what each keeps for itself would look like a leak.
    os.environ["MALLOC_ARENA_MAX"] = "1"
    async with running_server(**SETTINGS) as server:
        await warm_up(server)
        await run_cases(server, first, min(count, 5000))
        before = await idle(server)
        core = server.core()
        assert core is not None
        harm = await run_cases(server, first, count)
        for wrong in harm.wrong:
            print(wrong, flush=True)  # noqa: T201
        held = await check_unharmed(server, core.pid, before)
        print(f"{harm}; held {before} before and {held} after", flush=True)  # noqa: T201
        return not harm.wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    options = parser.parse_args()
    sys.exit(not asyncio.run(run(options.first, options.cases)))
