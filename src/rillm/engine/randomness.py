"""Counter-based randomness: a draw is a function of (seed, choice, position).

Nothing is carried from draw to draw, so a token does not depend on what else is in the batch,
on preemption, or on how often the engine was restarted.

Source: the finalizer of SplitMix64, Steele, Lea and Flood 2014 (OOPSLA), chained over the key.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_UInt64s = npt.NDArray[np.uint64]


def _mix(x: _UInt64s) -> _UInt64s:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def stream_keys(seeds: npt.NDArray[np.int64], choices: npt.NDArray[np.int64]) -> _UInt64s:
    """Key of each choice's stream of draws.

    Args:
        seeds: [B] int64.
        choices: [B] int64, 0 or more.

    Returns:
        [B] uint64.
    """
    return _mix(_mix(seeds.astype(np.uint64)) ^ choices.astype(np.uint64))


def uniforms(keys: _UInt64s, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """One draw for each sequence, uniform in [0, 1) with 53 bits.

    Args:
        keys: [B] uint64, from `stream_keys`.
        positions: [B] int64, index in the sequence of the token to draw.

    Returns:
        [B] float64.
    """
    bits = _mix(keys ^ _mix(positions.astype(np.uint64)))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
