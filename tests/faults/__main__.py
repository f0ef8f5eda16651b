"""`python -m tests.faults --minutes 10`: kill the engine core of a busy server, again and again."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fault_harness import rounds

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0, help="start rounds for so long")
    parser.add_argument("--streams", type=int, default=300, help="streams of a round")
    parser.add_argument("--kills", type=int, default=20, help="kills in a round")
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    options = parser.parse_args()
    outcome = asyncio.run(rounds(options.minutes, options.streams, options.kills, options.seed))
    sys.exit(bool(outcome.wrong))
