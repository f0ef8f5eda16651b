"""Repetition detection against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rillm.engine.repetition import ends_in_repetition


@given(
    st.lists(st.integers(0, 1), max_size=4),
    st.lists(st.integers(0, 1), min_size=1, max_size=4),
    st.integers(0, 4),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(2, 4),
)
def test_a_repetition_is_a_tail_that_equals_its_pattern_written_often_enough(
    start: list[int], pattern: list[int], times: int, shortest: int, extra: int, min_count: int
) -> None:
    token_ids = start + pattern * times
    longest = shortest + extra
    sizes = range(shortest, min(longest, len(token_ids)) + 1)
    expected = any(
        token_ids[-size:] * min_count == token_ids[-size * min_count :] for size in sizes
    )
    assert ends_in_repetition(token_ids, shortest, longest, min_count) == expected
