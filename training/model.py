"""The network that is trained: Qwen3, written small, with the parameter names of transformers.

Only what training needs is here (no cache, no sampling). ``state_dict()`` of :class:`Qwen3` has
exactly the keys of ``Qwen3ForCausalLM`` with tied embeddings, so a checkpoint needs no conversion.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the network, named as in the ``config.json`` of transformers."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last dimension, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        """Start with a scale of one for each of ``size`` features."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (any shape, last dimension ``size``); the dtype is kept."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight).to(x.dtype)


class Attention(nn.Module):
    """Causal grouped-query attention with normalised queries and keys, and rotary positions."""

    def __init__(self, shape: ModelShape) -> None:
        """Create the projections; none has a bias."""
        super().__init__()
        self.heads = shape.num_attention_heads
        self.kv_heads = shape.num_key_value_heads
        self.head_dim = shape.head_dim
        inner, inner_kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, inner_kv, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, inner_kv, bias=False)
        self.o_proj = nn.Linear(inner, shape.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, shape.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, shape.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend within each row.

        Args:
            x: inputs, (rows, length, hidden).
            cos: cosines of the rotary angles, (length, head_dim).
            sin: sines of the rotary angles, (length, head_dim).

        Returns:
            (rows, length, hidden).
        """
        rows, length, _ = x.shape
        query = self.q_norm(self.q_proj(x).view(rows, length, self.heads, self.head_dim))
        key = self.k_norm(self.k_proj(x).view(rows, length, self.kv_heads, self.head_dim))
        value = self.v_proj(x).view(rows, length, self.kv_heads, self.head_dim)
        query = rotate(query, cos, sin).transpose(1, 2)
        groups = self.heads // self.kv_heads
        key = rotate(key, cos, sin).transpose(1, 2).repeat_interleave(groups, dim=1)
        value = value.transpose(1, 2).repeat_interleave(groups, dim=1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn ``x`` (rows, length, heads, head_dim) by the rotary angles of its positions."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x * cos[:, None, :] + turned * sin[:, None, :]).to(x.dtype)


class MLP(nn.Module):
    """The gated feed-forward block."""

    def __init__(self, shape: ModelShape) -> None:
        """Create the three projections; none has a bias."""
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, length, hidden) to the same shape."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One block: attention and feed-forward, each on a normalised copy of the residual stream."""

    def __init__(self, shape: ModelShape) -> None:
        """Create the two halves and their norms."""
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = MLP(shape)
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Add both halves to the residual stream ``x`` (rows, length, hidden)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Backbone(nn.Module):
    """Embedding, blocks and final norm (``model.`` in the names of transformers)."""

    def __init__(self, shape: ModelShape) -> None:
        """Create all blocks."""
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map token ids (rows, length) to final hidden states (rows, length, hidden)."""
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class Qwen3(nn.Module):
    """The language model; the output matrix is the embedding matrix."""

    def __init__(self, shape: ModelShape) -> None:
        """Create and initialise the network; residual branches start at zero."""
        super().__init__()
        self.shape = shape
        self.model = Backbone(shape)
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        angles = torch.outer(
            torch.arange(shape.max_position_embeddings, dtype=torch.float32),
            shape.rope_theta**-half,
        ).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() != 2:
                continue
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.02 if "embed" in name else shape.hidden_size**-0.5)

    def forward(self, tokens: Tensor, chosen: Tensor) -> Tensor:
        """Logits at chosen positions.

        Args:
            tokens: token ids, (rows, length).
            chosen: positions in the flattened batch whose logits are wanted, (n,).

        Returns:
            (n, vocab_size).
        """
        length = tokens.shape[1]
        hidden = self.model(tokens, self.cos[:length], self.sin[:length])
        picked = hidden.reshape(-1, hidden.shape[-1])[chosen]
        return functional.linear(picked, self.model.embed_tokens.weight)
