"""The weights of a decoder by their part in it, as a checkpoint names them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rillm.models.checkpoint import Checkpoint
from rillm.models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Projection:
    """A product's weight [out, in], and its bias [out] if it has one."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """What one decoder layer holds."""

    attention_norm: Tensor
    """[hidden]."""
    qkv_proj: Projection
    """Queries, keys and values below one another: [(H + 2 K) * D, hidden]."""
    qk_norm: Tensor | None
    """[H + K, D], a row for each head of queries and keys; None where heads are not normalised."""
    o_proj: Projection
    """[hidden, H * D]."""
    mlp_norm: Tensor
    """[hidden]."""
    gate_proj: Projection
    """[intermediate, hidden]."""
    up_proj: Projection
    """[intermediate, hidden]."""
    down_proj: Projection
    """[hidden, intermediate]."""

    @classmethod
    def take(cls, config: ModelConfig, index: int, checkpoint: Checkpoint) -> LayerWeights:
        """Read layer `index`.

        Raises:
            ConfigError: a tensor is missing, or is not what `config` asks for.
        """
        prefix, hidden_size = f"model.layers.{index}.", config.hidden_size
        width, kv_width = (
            heads * config.head_dim for heads in (config.num_heads, config.num_kv_heads)
        )

        def projection(outputs: dict[str, int], inputs: int, has_bias: bool) -> Projection:
            return _projection(checkpoint, prefix, outputs, inputs, has_bias)

        mlp_width, mlp_bias = config.intermediate_size, config.mlp_bias
        qkv = {
            "self_attn.q_proj": width,
            "self_attn.k_proj": kv_width,
            "self_attn.v_proj": kv_width,
        }
        return cls(
            attention_norm=checkpoint.take(prefix + "input_layernorm.weight", hidden_size),
            qkv_proj=projection(qkv, hidden_size, config.attention_bias),
            qk_norm=_qk_norm(config, checkpoint, prefix) if config.qk_norm else None,
            o_proj=projection({"self_attn.o_proj": hidden_size}, width, config.o_bias),
            mlp_norm=checkpoint.take(prefix + "post_attention_layernorm.weight", hidden_size),
            gate_proj=projection({"mlp.gate_proj": mlp_width}, hidden_size, mlp_bias),
            up_proj=projection({"mlp.up_proj": mlp_width}, hidden_size, mlp_bias),
            down_proj=projection({"mlp.down_proj": hidden_size}, mlp_width, mlp_bias),
        )


def _projection(
    checkpoint: Checkpoint, prefix: str, outputs: dict[str, int], inputs: int, has_bias: bool
) -> Projection:
    """One product from the weights of several, below one another in the order of `outputs`."""

    def together(tensors: list[Tensor]) -> Tensor:
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    weight = together(
        [checkpoint.take(f"{prefix}{name}.weight", size, inputs) for name, size in outputs.items()]
    )
    if not has_bias:
        return Projection(weight, None)
    biases = [checkpoint.take(f"{prefix}{name}.bias", size) for name, size in outputs.items()]
    return Projection(weight, together(biases))


def _qk_norm(config: ModelConfig, checkpoint: Checkpoint, prefix: str) -> Tensor:
    rows = (("q_norm", config.num_heads), ("k_norm", config.num_kv_heads))
    return torch.cat(
        [
            checkpoint.take(f"{prefix}self_attn.{name}.weight", config.head_dim).expand(heads, -1)
            for name, heads in rows
        ]
    )
