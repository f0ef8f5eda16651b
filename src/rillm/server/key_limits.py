"""How much each API key may ask for."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

from rillm.errors import RateLimitError
from rillm.server.options import HttpOptions

_MINUTE_S = 60.0
_RETRY_S = 1


class Allowance:
    """A bucket that fills up evenly, to the brim within a minute."""

    def __init__(self, per_minute: int, now_s: float) -> None:
        """Begin full."""
        self._per_minute = per_minute
        self._level = float(per_minute)
        self._seen_s = now_s

    def wait_s(self, least: int, now_s: float) -> int:
        """Whole seconds until `least` is in it; 0: it is."""
        filled = (now_s - self._seen_s) * self._per_minute / _MINUTE_S
        self._level = min(self._level + filled, float(self._per_minute))
        self._seen_s = now_s
        missing = least - self._level
        return max(0, math.ceil(missing * _MINUTE_S / self._per_minute))

    def take(self, amount: int) -> None:
        """Take something out, perhaps more than is in it: the next to come waits for the rest."""
        self._level -= amount


class KeyLimits:
    """What each key has in use, and what it has used.

    A request is one prompt for the engine: a call with several prompts is several.
    """

    def __init__(self, options: HttpOptions, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing used.

        Args:
            options: the limits; 0 is none.
            clock: monotonic seconds.
        """
        self._max_live = options.max_requests_per_key
        self._max_requests = options.requests_per_minute_per_key
        self._max_tokens = options.tokens_per_minute_per_key
        self._clock = clock
        self._live: Counter[str] = Counter()
        self._requests: dict[str, Allowance] = {}
        self._tokens: dict[str, Allowance] = {}

    def enter(self, client: str) -> None:
        """Let a request in, or refuse it.

        Args:
            client: whose it is, as `rillm.admission.CLIENT` says.

        Raises:
            RateLimitError: the key's limit is reached.
        """
        if self._max_live and self._live[client] >= self._max_live:
            raise RateLimitError(
                f"this key has {self._max_live} requests running or waiting, which is its limit",
                retry_after_s=_RETRY_S,
            )
        now_s = self._clock()
        for limit, what, allowances in (
            (self._max_requests, "requests", self._requests),
            (self._max_tokens, "tokens", self._tokens),
        ):
            if not limit:
                continue
            allowance = allowances.setdefault(client, Allowance(limit, now_s))
            if wait_s := allowance.wait_s(1, now_s):
                raise RateLimitError(
                    f"this key has used its {limit} {what} a minute; there are more in {wait_s} s",
                    retry_after_s=wait_s,
                )
        if self._max_requests:
            self._requests[client].take(1)
        self._live[client] += 1

    def leave(self, client: str, num_tokens: int) -> None:
        """Count a request that was let in as ended.

        Args:
            client: as above.
            num_tokens: of its prompt and its output together.
        """
        self._live[client] -= 1
        if self._max_tokens:
            self._tokens[client].take(num_tokens)
