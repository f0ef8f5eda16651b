"""An engine core that some prompts are too much for.

Tests start it in place of the real one, or put its forward pass there. A prompt that holds one of
these tokens three times in a row does to the core what the token says.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import torch

from rillm.engine import core_process
from rillm.models.model import Model

RAISES, CRASHES, BREAKS = 381, 382, 383

_healthy_forward = Model.forward
_is_broken = False


def forward(self: Model, batch: Any, kv_cache: Any) -> torch.Tensor:
    """Stands in for `Model.forward`."""
    global _is_broken
    ids = batch.token_ids
    for token in (RAISES, CRASHES, BREAKS):
        if ((ids[:-2] == token) & (ids[1:-1] == token) & (ids[2:] == token)).any():
            if token == CRASHES:
                os.kill(os.getpid(), signal.SIGSEGV)
            _is_broken |= token == BREAKS
            raise RuntimeError("too much")
    if _is_broken:
        raise RuntimeError("broken")
    return _healthy_forward(self, batch, kv_cache)


if __name__ == "__main__":
    Model.forward = forward  # type: ignore[method-assign]
    core_process.main()
