"""Repetition detection: does the tail of a sequence consist of one pattern, many times?"""

from __future__ import annotations

from collections.abc import Sequence


def ends_in_repetition(
    token_ids: Sequence[int], min_pattern_size: int, max_pattern_size: int, min_count: int
) -> bool:
    """Whether some pattern of an allowed size stands `min_count` times in a row at the end.

    A pattern of size p repeats c times exactly when each of the last p * (c - 1) tokens equals
    the one p places before it.

    Args:
        token_ids: the output so far.
        min_pattern_size: shortest pattern, in tokens.
        max_pattern_size: longest pattern, in tokens.
        min_count: times it must stand, at least 2.
    """
    length = len(token_ids)
    for size in range(min_pattern_size, max_pattern_size + 1):
        span = size * (min_count - 1)
        if span + size > length:
            return False
        if all(token_ids[length - i] == token_ids[length - i - size] for i in range(1, span + 1)):
            return True
    return False
