"""When an engine core counts as hung, and how often a dead one is started again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from rillm.engine.step_board import StepBoard
from rillm.errors import ConfigError

_TOKENS_PER_TIMEOUT = 512
"""A step may take one `hang_timeout` more for each of so many tokens."""
_LOOKS_PER_TIMEOUT = 8
_STABLE_S = 60.0
"""A core that served for so long has recovered, whether anybody asked it for a token or not."""
_LONGEST_DELAY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """Bounds within which an engine core is kept alive.

    Raises:
        ConfigError: a bound is out of range.
    """

    max_restarts: int = 5
    """Times in a row that a core is started again without a token in between; 0: never."""
    hang_timeout: float = 60.0
    """Seconds without progress, for a step without tokens; 0: for ever."""
    load_timeout: float = 1800.0
    """Seconds until a new core is ready; 0: for ever."""

    def __post_init__(self) -> None:
        """Check the bounds."""
        if self.max_restarts < 0:
            raise ConfigError(f"max_restarts is {self.max_restarts}, must be at least 0")
        for name in ("hang_timeout", "load_timeout"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}, must be a number of seconds, at least 0")


class Watchdog:
    """Notices that a core has stopped making progress.

    It counts looks, not seconds: a client that was itself held up, or stopped together with its
    core, blames nobody for the time that it did not see.

    Args:
        bounds: how long is too long.
    """

    def __init__(self, bounds: Supervision) -> None:
        self._bounds = bounds
        shortest = min(filter(None, (bounds.hang_timeout, bounds.load_timeout)), default=math.inf)
        self.interval_s = shortest / _LOOKS_PER_TIMEOUT
        """Between two looks; infinite where nothing is bounded."""
        self._progress = -1
        self._num_looks = 0

    def reset(self) -> None:
        """Begin anew: a new core, or one that has only now been given something to do."""
        self._progress = -1
        self._num_looks = 0

    def is_hung(self, board: StepBoard, *, is_loading: bool) -> bool:
        """Look once.

        Args:
            board: the core's.
            is_loading: the core is not ready yet.
        """
        if board.progress != self._progress:
            self._progress = board.progress
            self._num_looks = 0
            return False
        self._num_looks += 1
        if is_loading:
            bound_s = self._bounds.load_timeout
        else:
            bound_s = self._bounds.hang_timeout * (1 + board.num_tokens / _TOKENS_PER_TIMEOUT)
        return bound_s > 0 and self._num_looks * self.interval_s >= bound_s


class RestartCount:
    """Counts restarts and decides about the next one.

    Args:
        bounds: how many are too many.
    """

    def __init__(self, bounds: Supervision) -> None:
        self._most = bounds.max_restarts
        self._num_failures = 0
        self._ready_s: float | None = None
        self.total = 0
        """Restarts since the beginning."""

    def set_ready(self) -> None:
        """The core has loaded."""
        self._ready_s = time.monotonic()

    def recover(self) -> None:
        """The core has produced something: whatever fails next is a new failure."""
        self._num_failures = 0

    def next_delay(self) -> float | None:
        """Decide what to do about a core that has died.

        Returns:
            Seconds to wait before another one is started; None to give up.
        """
        if self._ready_s is not None and time.monotonic() - self._ready_s >= _STABLE_S:
            self.recover()
        self._ready_s = None
        self._num_failures += 1
        if self._num_failures > self._most:
            return None
        self.total += 1
        again = self._num_failures - 2
        return 0.0 if again < 0 else min(2.0**again, _LONGEST_DELAY_S)
