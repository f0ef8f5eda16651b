"""`python -m tests.faults`: kill the engine core of a busy server, or read from it very slowly."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from fault_harness import rounds, running_server
from slow_readers import run_slow


async def slow_readers(num_slow: int) -> bool:
    """Print what so many slow readers cost; whether all was as it should be."""
    async with running_server() as server:
        print("first", await run_slow(server, num_slow), flush=True)  # noqa: T201
        outcome = await run_slow(server, num_slow)
    print("again", outcome, *outcome.wrong, sep="\n")  # noqa: T201
    return not outcome.wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0, help="start rounds for so long")
    parser.add_argument("--streams", type=int, default=300, help="streams of a round")
    parser.add_argument("--kills", type=int, default=20, help="kills in a round")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--slow-readers", type=int, default=0, help="instead: so many of them")
    options = parser.parse_args()
    if options.slow_readers:
        sys.exit(not asyncio.run(slow_readers(options.slow_readers)))
    outcome = asyncio.run(rounds(options.minutes, options.streams, options.kills, options.seed))
    sys.exit(bool(outcome.wrong))
