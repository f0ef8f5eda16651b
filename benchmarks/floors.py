"""What this machine can do at most: reading memory, multiplying bf16 matrices."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def best_s(function: Callable[[], object], seconds: float = 1.0) -> float:
    """Shortest of many calls: on a shared machine some of them are undisturbed."""
    best = float("inf")
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        start_s = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start_s)
    return best


class MemoryReader:
    """Reads memory that no cache holds, with all threads.

    On a shared machine the bandwidth can change by half from one second to the next: measure
    it beside what is compared with it.
    """

    def __init__(self) -> None:
        self._buffer = torch.ones(256 << 20, dtype=torch.float32)

    def bandwidth(self, seconds: float = 0.5) -> float:
        """Bytes a second: the best pass of as many as fit into `seconds`."""
        return self._buffer.nbytes / best_s(self._buffer.sum, seconds)


def product_flops(dtype: torch.dtype) -> float:
    """FLOP a second of the fastest matrix product in a dtype, of several shapes."""
    best = 0.0
    for m, n, k in ((512, 4096, 1024), (512, 1024, 3072), (1024, 4096, 4096)):
        x = torch.randn(m, k).to(dtype)
        w = torch.randn(n, k).to(dtype)
        seconds = best_s(lambda x=x, w=w: torch.nn.functional.linear(x, w))  # type: ignore[misc]
        best = max(best, 2 * m * n * k / seconds)
    return best
