"""An engine core whose tokens cost nothing: `python benchmarks/stub_core.py FD INTERVAL TEXT`.

Speaks the frames of `rillm.engine.core_process`. Every INTERVAL seconds each live choice gets one
token of a text that repeats, until its `max_tokens`. Each choice begins at another place of it.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from pathlib import Path

from rillm.engine.config import EngineInfo
from rillm.engine.messages import Commands, PromptInfo, Ready, StepOutputs, StepStats, TokenDelta
from rillm.engine.transport import core_end
from rillm.engine_args import EngineArgs
from rillm.text.tokenizer import Tokenizer

TEXTS = {
    "markdown": (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(),
    "sentence": "A rill is a small stream. It runs down the hill, over stones, to the river. ",
}
"""What models write, in as many different tokens; and what is shown token by token, without the
line ends that wait for what follows them."""
_STRIDE = 37
"""Tokens from one choice's beginning to the next one's."""

INFO = EngineInfo(
    device="none",
    dtype="none",
    max_model_len=1 << 20,
    max_num_seqs=1 << 14,
    max_num_batched_tokens=1 << 20,
    block_size=16,
    num_blocks=1 << 20,
    kv_cache_bytes=0,
    memory_bytes=0,
    load_seconds=0.0,
)


class StubCore:
    """Live choices, and how many tokens each has had."""

    def __init__(self, token_ids: list[int]) -> None:
        self._token_ids = token_ids
        self._live: dict[tuple[int, int], list[int]] = {}

    def apply(self, commands: Commands) -> None:
        """Begin and end requests."""
        for request in commands.requests:
            for choice in range(request.n):
                place = (request.request_id + choice) * _STRIDE
                self._live[request.request_id, choice] = [0, request.params.max_tokens, place]
        for request_id, choice in commands.aborts:
            for key in [key for key in self._live if key[0] == request_id]:
                if choice in (None, key[1]):
                    del self._live[key]

    def step(self) -> StepOutputs:
        """One token for each live choice."""
        deltas = []
        for (request_id, choice), state in list(self._live.items()):
            position, limit, place = state
            state[0] = position + 1
            is_last = position + 1 == limit
            deltas.append(
                TokenDelta(
                    request_id,
                    choice,
                    [self._token_ids[(place + position) % len(self._token_ids)]],
                    finish_reason="length" if is_last else None,
                    prompt=PromptInfo(0) if position == 0 else None,
                )
            )
            if is_last:
                del self._live[request_id, choice]
        return StepOutputs(deltas, StepStats(num_running=len(self._live)))


def main() -> None:
    """Serve the client at the other end of the socket."""
    interval = float(sys.argv[2])
    tokenizer = Tokenizer.from_directory(EngineArgs().model_directory())
    core = StubCore(tokenizer.encode(TEXTS[sys.argv[3]]))
    link = core_end(socket.socket(fileno=int(sys.argv[1])))
    link.send(Ready(INFO))
    next_step = time.monotonic() + interval
    while True:
        wait_s = next_step - time.monotonic()
        if wait_s > 0:
            select.select([link.socket], [], [], wait_s)
        try:
            for message in link.receive():
                if isinstance(message, Commands):
                    core.apply(message)
        except (EOFError, OSError):
            return
        if time.monotonic() >= next_step:
            next_step += interval
            link.send(core.step())


if __name__ == "__main__":
    main()
