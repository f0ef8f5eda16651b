"""`rillm serve` that says what it holds: the signal SIGUSR1 makes it write one JSON line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from types import FrameType

from rillm.async_llm import AsyncLLM
from rillm.cli import main
from rillm.engine_args import EngineArgs

_started: list[AsyncLLM] = []
_start = AsyncLLM.__init__


def _start_and_remember(self: AsyncLLM, args: EngineArgs) -> None:
    _start(self, args)
    _started.append(self)


def tell(_signum: int, _frame: FrameType | None) -> None:
    """Count what only this process can see of itself."""
    (llm,) = _started
    held = {
        "requests": llm.get_num_unfinished_requests(),
        "journal_tokens": llm._client.journal.num_tokens,
        "used_blocks": llm.ready_info.num_blocks - llm.engine_stats.num_free_blocks
        if llm.ready_info
        else 0,
        "tasks": len(asyncio.all_tasks(llm._client._loop)),
        "files": len(os.listdir("/proc/self/fd")),
    }
    print("HELD", json.dumps(held), file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    AsyncLLM.__init__ = _start_and_remember  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR1, tell)
    main()
