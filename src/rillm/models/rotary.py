"""Rotary position embedding and the stretched variants of its frequencies.

Sources: Su et al., "RoFormer" (2021); linear: Chen et al., "Extending Context Window of Large
Language Models via Positional Interpolation" (2023); yarn: Peng et al., "YaRN" (2023), section
3; llama3: the rule of Meta's Llama 3.1 reference code, as `config.json` parametrises it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rillm.models.config import ModelConfig, RopeScaling

_FIRST_POSITIONS = 1024


class RotaryEmbedding:
    """Cosines and sines of the positions of a step, for all its layers.

    Kept in tables that grow with the longest context seen, so that a context no request has
    asked for takes no memory.
    """

    def __init__(self, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        """Compute the frequencies of `config` in float32; results are of `dtype`."""
        frequencies, self._factor = _frequencies(config)
        self._frequencies = frequencies.to(device)
        self._dtype = dtype
        self._extend(_FIRST_POSITIONS)

    def __call__(self, positions: Tensor, num_positions: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines.

        Args:
            positions: [T] int64.
            num_positions: more than the largest of them; a number, so that the device need not
                be asked.

        Returns:
            Two tensors [T, 1, D] for `rotate`. The first half of the sines is negated.
        """
        cos, sin = self.tables(num_positions)
        return cos.index_select(0, positions), sin.index_select(0, positions)

    def tables(self, num_positions: int) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of all positions so far, at least the first `num_positions`.

        Returns:
            Two tensors [P, 1, D], contiguous. The first half of the sines is negated.
        """
        if num_positions > len(self._cos):
            self._extend(1 << (num_positions - 1).bit_length())
        return self._cos, self._sin

    def _extend(self, num_positions: int) -> None:
        positions = torch.arange(num_positions, device=self._frequencies.device)
        angles = positions.to(torch.float32).unsqueeze(1) * self._frequencies
        cos, sin = angles.cos() * self._factor, angles.sin() * self._factor
        self._cos = torch.cat((cos, cos), dim=-1).to(self._dtype).unsqueeze(1)
        self._sin = torch.cat((-sin, sin), dim=-1).to(self._dtype).unsqueeze(1)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each head by its token's angles.

    Args:
        heads: [T, H, D], any number of heads.
        cos: [T, 1, D].
        sin: [T, 1, D], first half negated: with it, rolling by half a head is the rotation's
            (-x2, x1).

    Returns:
        [T, H, D] contiguous.
    """
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


def _frequencies(config: ModelConfig) -> tuple[Tensor, float]:
    """Frequencies [D / 2] float32 and the factor of cos and sin."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies, 1.0
    if scaling.kind == "linear":
        return frequencies / scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3_frequencies(frequencies, scaling), 1.0
    ramp = _yarn_ramp(config, scaling)
    stretched = frequencies / scaling.factor
    return stretched * ramp + frequencies * (1 - ramp), _yarn_attention_factor(scaling)


def _llama3_frequencies(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * kept + frequencies / scaling.factor * (1 - kept)


def _yarn_ramp(config: ModelConfig, scaling: RopeScaling) -> Tensor:
    """How much of each frequency [D / 2] is stretched, 0 to 1."""

    def dimension(turns: float) -> float:
        context = scaling.original_max_position_embeddings
        log_ratio = math.log(context / (turns * 2 * math.pi))
        return config.head_dim * log_ratio / (2 * math.log(config.rope_theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_dim - 1)
    # Equal bounds would divide by zero: the ramp then is a step.
    width = high - low or 0.001
    steps = torch.arange(config.head_dim // 2, dtype=torch.float32)
    return ((steps - low) / width).clamp(0, 1)


def _yarn_attention_factor(scaling: RopeScaling) -> float:
    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return scale(scaling.mscale) / scale(scaling.mscale_all_dim)
    return scale(1.0)
