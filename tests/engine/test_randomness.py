"""The counter-based generator: uniform, independent over its keys, and the same for ever."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillm.engine.randomness import stream_keys, uniforms

Floats = npt.NDArray[np.float64]
COUNT = 20_000


def draws(seeds: npt.ArrayLike, choices: npt.ArrayLike, positions: npt.ArrayLike) -> Floats:
    """Uniforms for all combinations that broadcast together."""
    arrays = np.broadcast_arrays(seeds, choices, positions)
    seed, choice, position = (np.asarray(array, dtype=np.int64).ravel() for array in arrays)
    return uniforms(stream_keys(seed, choice), position)


ONE_AXIS = {
    "seeds": lambda: draws(np.arange(COUNT), 0, 5),
    "negative seeds": lambda: draws(-np.arange(COUNT), 0, 5),
    "far seeds": lambda: draws(np.arange(COUNT) << 40, 0, 5),
    "choices": lambda: draws(7, np.arange(COUNT), 5),
    "positions": lambda: draws(7, 0, np.arange(COUNT)),
    "positions of a negative seed": lambda: draws(-1, 3, np.arange(COUNT)),
    "seeds and choices moving together": lambda: draws(np.arange(COUNT), np.arange(COUNT), 1),
    "choices and positions moving together": lambda: draws(0, np.arange(COUNT), np.arange(COUNT)),
}


@pytest.mark.parametrize("axis", ONE_AXIS)
def test_draws_along_every_axis_are_uniform_and_not_correlated(axis: str) -> None:
    values = ONE_AXIS[axis]()
    assert values.min() >= 0
    assert values.max() < 1
    assert len(np.unique(values)) == COUNT
    observed = np.histogram(values, bins=100, range=(0, 1))[0]
    expected = COUNT / 100
    assert ((observed - expected) ** 2 / expected).sum() < 99 + 5 * np.sqrt(2 * 99)
    for lag in (1, 2, 7):
        correlation = np.corrcoef(values[:-lag], values[lag:])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(COUNT)


@pytest.mark.parametrize(
    ("one", "other"),
    [((7, 0), (7, 1)), ((7, 0), (8, 0)), ((7, 1), (8, 0)), ((1, 0), (-1, 0)), ((0, 0), (0, 1))],
)
def test_neighbouring_streams_are_independent(one: tuple[int, int], other: tuple[int, int]) -> None:
    positions = np.arange(COUNT)
    correlation = np.corrcoef(draws(*one, positions), draws(*other, positions))[0, 1]
    assert abs(correlation) < 5 / np.sqrt(COUNT)
    for shift in (1, 2):
        moved = draws(*other, positions + shift)
        assert abs(np.corrcoef(draws(*one, positions), moved)[0, 1]) < 5 / np.sqrt(COUNT)


@given(
    st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**14), st.integers(0, 2**20)),
        min_size=1,
        max_size=20,
    )
)
def test_a_draw_does_not_depend_on_what_is_drawn_beside_it(
    keys: list[tuple[int, int, int]],
) -> None:
    together = draws(*zip(*keys, strict=True))
    assert together.tolist() == [draws(*key)[0] for key in keys]
    assert together.tolist() == [split_mix(*key) for key in keys]


def split_mix(seed: int, choice: int, position: int) -> float:
    """The same draw in plain integers: SplitMix64's finalizer, chained over the key."""
    mask = 2**64 - 1

    def mix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        return x ^ (x >> 31)

    key = mix(mix(seed & mask) ^ choice)
    return (mix(key ^ mix(position)) >> 11) / 2**53


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ((0, 0, 0), 0.6561149711801131),
        ((0, 0, 1), 0.91970127789074),
        ((1, 0, 0), 0.40301438395063927),
        ((-1, 2, 100), 0.12836326753665406),
        ((2**63 - 1, 16383, 40960), 0.8939849831633314),
    ],
)
def test_draws_are_pinned_so_that_a_seed_means_the_same_in_every_version(
    key: tuple[int, int, int], expected: float
) -> None:
    assert draws(*key).tolist() == [expected]
