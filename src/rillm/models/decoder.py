"""The decoder by torch operators, on any device: what all supported architectures share.

What differs between them are facts in `ModelConfig`. Layers are plain objects around tensors:
a weight may be packed for its device, so there are no parameters to train, move or save.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rillm.models.attention import AttentionPlan
from rillm.models.batch import ForwardBatch
from rillm.models.config import ModelConfig
from rillm.models.kv_cache import KVCache
from rillm.models.linear import Linear, make_linear
from rillm.models.norm import RMSNorm
from rillm.models.rotary import RotaryEmbedding, rotate
from rillm.models.weights import LayerWeights, Projection


class TorchDecoder:
    """Layers one after another; each operator is torch's."""

    def __init__(self, config: ModelConfig, embedding: Tensor, norm: Tensor, head: Tensor) -> None:
        """Begin without layers: `add_layer` follows, once for each.

        Args:
            config: facts of the model.
            embedding: [V, hidden]; sets dtype and device.
            norm: [hidden], of the final norm.
            head: [V, hidden]; may be the embedding.
        """
        self._config = config
        self._embedding = embedding
        self._layers: list[DecoderLayer] = []
        self._norm = RMSNorm(norm, config.rms_norm_eps)
        self._head = make_linear(head)
        self._rotary = RotaryEmbedding(config, embedding.device, embedding.dtype)

    def add_layer(self, weights: LayerWeights) -> None:
        """Take the weights of the next layer."""
        self._layers.append(DecoderLayer(self._config, len(self._layers), weights))

    def forward(self, batch: ForwardBatch, kv_cache: KVCache) -> Tensor:
        """See `Model.forward`."""
        plan = AttentionPlan(self._config, batch, kv_cache, self._embedding.dtype)
        cos, sin = self._rotary(batch.positions, max(batch.seq_lens))
        hidden = F.embedding(batch.token_ids, self._embedding)
        for layer in self._layers:
            hidden = layer(hidden, cos, sin, plan)
        return hidden

    def normalize(self, hidden: Tensor) -> Tensor:
        """See `Model.normalize`."""
        return self._norm(hidden)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """See `Model.compute_logits`."""
        normalized = self._norm(hidden.to(self._embedding.dtype))
        return self._head(normalized).to(torch.float32)


class DecoderLayer:
    """Attention and MLP, each behind a norm and added to what came in."""

    def __init__(self, config: ModelConfig, index: int, weights: LayerWeights) -> None:
        """Take the weights of layer `index`."""
        self._attention = _Attention(config, index, weights)
        self._mlp = _Mlp(weights)
        self._attention_norm = RMSNorm(weights.attention_norm, config.rms_norm_eps)
        self._mlp_norm = RMSNorm(weights.mlp_norm, config.rms_norm_eps)

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
    def __init__(self, config: ModelConfig, index: int, weights: LayerWeights) -> None:
        self._index = index
        self._head_dim = config.head_dim
        self._num_heads = config.num_heads
        self._num_rotated = config.num_heads + config.num_kv_heads
        self._qkv_proj = _linear(weights.qkv_proj)
        self._o_proj = _linear(weights.o_proj)
        self._qk_norm = None
        if weights.qk_norm is not None:
            self._qk_norm = RMSNorm(weights.qk_norm, config.rms_norm_eps)

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
    def __init__(self, weights: LayerWeights) -> None:
        self._gate_proj = _linear(weights.gate_proj)
        self._up_proj = _linear(weights.up_proj)
        self._down_proj = _linear(weights.down_proj)

    def __call__(self, x: Tensor, residual: Tensor) -> Tensor:
        gated = self._up_proj.multiply(x, self._gate_proj.silu(x))
        return self._down_proj.add(gated, residual)


def _linear(projection: Projection) -> Linear:
    return make_linear(projection.weight, projection.bias)
