"""The supported architectures, as data.

Every architecture runs through the one decoder of `rillm.models.decoder`; an entry says how
its `config.json` is to be read. What a checkpoint may decide for itself (head size, rope
scaling, tied embeddings) is read for every architecture alike. Imports no torch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class WindowRule(enum.Enum):
    """Which layers attend through a sliding window."""

    NEVER = "never"
    EVERY_LAYER = "every layer"
    """`sliding_window` holds for every layer."""
    BY_LAYER = "by layer"
    """`use_sliding_window` turns it on; `layer_types` or else `max_window_layers` says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How one architecture differs from the plain decoder."""

    qkv_bias: bool | None = None
    """Whether q, k and v have a bias and o has none; None: `attention_bias` says so for all."""
    qk_norm: bool = False
    """Whether each head of q and k is RMS-normalised before the rotary embedding."""
    window_rule: WindowRule = WindowRule.NEVER
    default_window: int | None = None
    """Tokens of the sliding window if config.json has no `sliding_window`."""
    default_head_dim: int | None = None
    """Head size if config.json has no `head_dim`; None: hidden size / heads."""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "LlamaForCausalLM": Architecture(),
        "MistralForCausalLM": Architecture(
            qkv_bias=False, window_rule=WindowRule.EVERY_LAYER, default_window=4096
        ),
        "Qwen2ForCausalLM": Architecture(
            qkv_bias=True, window_rule=WindowRule.BY_LAYER, default_window=4096
        ),
        "Qwen3ForCausalLM": Architecture(
            qk_norm=True,
            window_rule=WindowRule.BY_LAYER,
            default_window=4096,
            default_head_dim=128,
        ),
    }
)


def supported_architectures() -> list[str]:
    """Names that `architectures` in config.json may have, sorted."""
    return sorted(ARCHITECTURES)
