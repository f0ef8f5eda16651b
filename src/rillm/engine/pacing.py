"""PrefillPacer: how much of a prompt fits into a step that readers of other streams wait for."""

from __future__ import annotations

_PAUSE_S = 0.2
"""What such a step may take: as long as a reader needs for a word."""
_FEWEST = 32
"""Tokens that a step takes in however slow it is: fewer would hardly make it quicker, since the
weights are read anyway."""
_TELLING = 16
"""Tokens from which on the time of a step says what a token costs."""
_WEIGHT = 0.5
"""Of the newest step in the running mean."""


class PrefillPacer:
    """Learns what a token of prefill costs on this machine.

    Attributes:
        budget: tokens of prefill for a step that has decodes.
    """

    def __init__(self, most: int) -> None:
        """Begin with `most` tokens, which are never exceeded."""
        self.budget = most
        self._most = most
        self._token_s: float | None = None

    def observe(self, num_tokens: int, num_prefilled: int, seconds: float) -> None:
        """Learn from a step.

        Args:
            num_tokens: all that it computed.
            num_prefilled: how many of them were not decodes.
            seconds: how long it took.
        """
        if num_prefilled < _TELLING:
            return
        token_s = seconds / num_tokens
        if self._token_s is not None:
            token_s = _WEIGHT * token_s + (1 - _WEIGHT) * self._token_s
        self._token_s = token_s
        self.budget = min(self._most, max(_FEWEST, int(_PAUSE_S / max(token_s, 1e-9))))
