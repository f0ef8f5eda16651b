"""StepBoard: what the core is working on, in memory that outlives it.

The core writes down whose tokens are in a step before it runs the step. When it dies, or does not
come back, the client reads who was there, and that nothing has moved. A few stores to shared
memory a step: no system call, and nothing for the client to wake up for.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from array import array
from collections.abc import Sequence

_PROGRESS, _NUM_TOKENS, _NUM_REQUESTS, _REQUESTS = range(4)
_WORD_BYTES = 8


class StepBoard:
    """A page that one process writes and another one reads.

    Args:
        capacity: most request ids of a step.
        fd: a board that `fileno` shares, inherited from its maker; None for a new one.
    """

    def __init__(self, capacity: int, fd: int | None = None) -> None:
        size = (_REQUESTS + max(capacity, 1)) * _WORD_BYTES
        file = _new_file(size) if fd is None else fd
        self._fd: int | None = file
        self._map = mmap.mmap(file, size)
        self._words = memoryview(self._map).cast("q")

    @property
    def capacity(self) -> int:
        """Most request ids of a step."""
        return len(self._words) - _REQUESTS

    def fileno(self) -> int:
        """Descriptor to hand to another process; open until `close_file`."""
        assert self._fd is not None
        return self._fd

    def close_file(self) -> None:
        """Close the descriptor; the memory stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def close(self) -> None:
        """Give the memory back. Idempotent."""
        self.close_file()
        self._words.release()
        self._map.close()

    # ---- the core --------------------------------------------------------------------------

    def enter(self, request_ids: Sequence[int], num_tokens: int = 0) -> None:
        """Say whose work begins.

        Args:
            request_ids: may repeat; at most `capacity`.
            num_tokens: how much work it is.
        """
        words = self._words
        count = len(request_ids)
        # Whoever reads in between finds nobody rather than a mixture.
        words[_NUM_REQUESTS] = 0
        words[_NUM_TOKENS] = num_tokens
        words[_REQUESTS : _REQUESTS + count] = memoryview(array("q", request_ids))
        words[_NUM_REQUESTS] = count
        words[_PROGRESS] += 1

    def leave(self) -> None:
        """Say that it is done."""
        self._words[_NUM_REQUESTS] = 0
        self._words[_NUM_TOKENS] = 0
        self._words[_PROGRESS] += 1

    # ---- the client ------------------------------------------------------------------------

    @property
    def progress(self) -> int:
        """Goes up whenever something begins or ends."""
        return self._words[_PROGRESS]

    @property
    def num_tokens(self) -> int:
        """Tokens of the step that runs, 0 between steps."""
        return self._words[_NUM_TOKENS]

    @property
    def request_ids(self) -> set[int]:
        """Whose work has begun and is not done."""
        return set(self._words[_REQUESTS : _REQUESTS + self._words[_NUM_REQUESTS]])


def _new_file(size: int) -> int:
    """Open a file of zeros that has no name."""
    if sys.platform == "linux":
        fd = os.memfd_create("rillm-step-board")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
