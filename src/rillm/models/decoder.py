"""The decoder-only transformer that all supported architectures share.

What differs between them are facts in `ModelConfig`. Layers are plain objects around tensors:
a weight may be packed for its device, so there are no parameters to train, move or save.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rillm.models.attention import AttentionPlan
from rillm.models.batch import ForwardBatch
from rillm.models.checkpoint import Checkpoint
from rillm.models.config import ModelConfig
from rillm.models.kv_cache import KVCache
from rillm.models.linear import Linear, make_linear
from rillm.models.norm import RMSNorm
from rillm.models.rotary import RotaryEmbedding, rotate


class Model(nn.Module):
    """Token ids in, logits out; keys and values are kept in a KVCache."""

    def __init__(
        self,
        config: ModelConfig,
        embedding: Tensor,
        layers: list[DecoderLayer],
        norm: RMSNorm,
        lm_head: Linear,
    ) -> None:
        """Join the parts; `embedding` [V, hidden] sets dtype and device."""
        super().__init__()
        self.config = config
        self.dtype = embedding.dtype
        self.device = embedding.device
        self._embedding = embedding
        self._layers = layers
        self._norm = norm
        self._lm_head = lm_head
        self._rotary = RotaryEmbedding(config, embedding.device, embedding.dtype)

    @torch.inference_mode()
    def forward(self, batch: ForwardBatch, kv_cache: KVCache) -> Tensor:
        """Run the layers, and write the keys and values of the batch's tokens.

        Args:
            batch: T tokens.
            kv_cache: holds the context of every sequence of the batch; of the model's dtype.

        Returns:
            [T, hidden] in the model's dtype, before the final norm: `compute_logits` does that
            for the rows that need it.
        """
        plan = AttentionPlan(self.config, batch, kv_cache, self.dtype)
        cos, sin = self._rotary(batch.positions, max(batch.seq_lens))
        hidden = F.embedding(batch.token_ids, self._embedding)
        for layer in self._layers:
            hidden = layer(hidden, cos, sin, plan)
        return hidden

    @torch.inference_mode()
    def normalize(self, hidden: Tensor) -> Tensor:
        """The model's last hidden state, of rows [L, hidden] of what `forward` returned."""
        return self._norm(hidden)

    @torch.inference_mode()
    def compute_logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token.

        Args:
            hidden: [L, hidden], rows of what `forward` returned.

        Returns:
            [L, V] float32.
        """
        return self._lm_head(self._norm(hidden)).to(torch.float32)


class DecoderLayer:
    """Attention and MLP, each behind a norm and added to what came in."""

    def __init__(self, config: ModelConfig, index: int, weights: Checkpoint) -> None:
        """Take the weights of layer `index`."""
        prefix, hidden_size = f"model.layers.{index}.", config.hidden_size
        self._attention = _Attention(config, index, weights, prefix + "self_attn.")
        self._mlp = _Mlp(config, weights, prefix + "mlp.")
        self._attention_norm = RMSNorm(
            weights.take(prefix + "input_layernorm.weight", hidden_size), config.rms_norm_eps
        )
        self._mlp_norm = RMSNorm(
            weights.take(prefix + "post_attention_layernorm.weight", hidden_size),
            config.rms_norm_eps,
        )

    def __call__(self, hidden: Tensor, cos: Tensor, sin: Tensor, plan: AttentionPlan) -> Tensor:
        """Run the layer.

        Args:
            hidden: [T, hidden].
            cos: [T, 1, D] of `RotaryEmbedding`.
            sin: [T, 1, D] of `RotaryEmbedding`.
            plan: the attention of this step.

        Returns:
            [T, hidden].
        """
        hidden = self._attention(self._attention_norm(hidden), hidden, cos, sin, plan)
        return self._mlp(self._mlp_norm(hidden), hidden)


class _Attention:
    def __init__(self, config: ModelConfig, index: int, weights: Checkpoint, prefix: str) -> None:
        self._index = index
        self._head_dim = config.head_dim
        self._num_heads = config.num_heads
        self._num_rotated = config.num_heads + config.num_kv_heads
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        outputs = {"q_proj": width, "k_proj": kv_width, "v_proj": kv_width}
        self._qkv_proj = _linear(
            weights, prefix, outputs, config.hidden_size, config.attention_bias
        )
        self._o_proj = _linear(
            weights, prefix, {"o_proj": config.hidden_size}, width, config.o_bias
        )
        self._qk_norm = None
        if config.qk_norm:
            q_norm = weights.take(prefix + "q_norm.weight", config.head_dim)
            k_norm = weights.take(prefix + "k_norm.weight", config.head_dim)
            stacked = torch.cat(
                (q_norm.expand(config.num_heads, -1), k_norm.expand(config.num_kv_heads, -1))
            )
            self._qk_norm = RMSNorm(stacked, config.rms_norm_eps)

    def __call__(
        self, x: Tensor, residual: Tensor, cos: Tensor, sin: Tensor, plan: AttentionPlan
    ) -> Tensor:
        heads = self._qkv_proj(x).view(x.shape[0], -1, self._head_dim)
        # q and k go through norm and rotation as one tensor: half the calls.
        rotated, v = heads[:, : self._num_rotated], heads[:, self._num_rotated :]
        if self._qk_norm is not None:
            rotated = self._qk_norm(rotated)
        rotated = rotate(rotated, cos, sin)
        q, k = rotated[:, : self._num_heads], rotated[:, self._num_heads :]
        return self._o_proj.add(plan.attend(self._index, q, k, v), residual)


class _Mlp:
    def __init__(self, config: ModelConfig, weights: Checkpoint, prefix: str) -> None:
        hidden_size, width, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self._gate_proj = _linear(weights, prefix, {"gate_proj": width}, hidden_size, bias)
        self._up_proj = _linear(weights, prefix, {"up_proj": width}, hidden_size, bias)
        self._down_proj = _linear(weights, prefix, {"down_proj": hidden_size}, width, bias)

    def __call__(self, x: Tensor, residual: Tensor) -> Tensor:
        gated = self._up_proj.multiply(x, self._gate_proj.silu(x))
        return self._down_proj.add(gated, residual)


def _linear(
    weights: Checkpoint, prefix: str, outputs: dict[str, int], inputs: int, has_bias: bool
) -> Linear:
    """One product from the weights of several, below one another in the order of `outputs`."""
    weight = torch.cat(
        [weights.take(f"{prefix}{name}.weight", size, inputs) for name, size in outputs.items()]
    )
    if not has_bias:
        return make_linear(weight)
    bias = torch.cat([weights.take(f"{prefix}{name}.bias", size) for name, size in outputs.items()])
    return make_linear(weight, bias)
