"""Checkpoints with random weights in the shape of real models, for benchmarks.

Directories hold config.json and model.safetensors in bf16, as `save_pretrained` would write
them, so that every engine loads them through its real loading code.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

SHAPES: dict[str, dict[str, int]] = {
    "qwen3-0.6b": {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "vocab_size": 151936,
    },
    "tiny": {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 768,
        "vocab_size": 2048,
    },
}


def config_of(shape: str) -> dict[str, object]:
    """The config.json of a shape."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "dtype": "bfloat16",
        "eos_token_id": 0,
        "bos_token_id": None,
        **SHAPES[shape],
    }


def make_checkpoint(shape: str, path: Path) -> Path:
    """Write the checkpoint of a shape unless it is there.

    Weights have deviation 1/sqrt(fan in), so that activations stay in range and greedy output
    varies.
    """
    path.mkdir(parents=True, exist_ok=True)
    if (path / "model.safetensors").exists():
        return path
    sizes = SHAPES[shape]
    hidden, mlp, head = sizes["hidden_size"], sizes["intermediate_size"], sizes["head_dim"]
    queries = sizes["num_attention_heads"] * head
    keys = sizes["num_key_value_heads"] * head
    generator = torch.Generator().manual_seed(0)

    def weight(rows: int, columns: int) -> torch.Tensor:
        values = torch.randn(rows, columns, generator=generator) / math.sqrt(columns)
        return values.to(torch.bfloat16)

    def ones(size: int) -> torch.Tensor:
        return torch.ones(size, dtype=torch.bfloat16)

    tensors = {"model.embed_tokens.weight": weight(sizes["vocab_size"], hidden)}
    tensors["model.norm.weight"] = ones(hidden)
    for layer in range(sizes["num_hidden_layers"]):
        tensors |= {
            f"model.layers.{layer}.{name}": tensor
            for name, tensor in {
                "input_layernorm.weight": ones(hidden),
                "post_attention_layernorm.weight": ones(hidden),
                "self_attn.q_proj.weight": weight(queries, hidden),
                "self_attn.k_proj.weight": weight(keys, hidden),
                "self_attn.v_proj.weight": weight(keys, hidden),
                "self_attn.o_proj.weight": weight(hidden, queries),
                "self_attn.q_norm.weight": ones(head),
                "self_attn.k_norm.weight": ones(head),
                "mlp.gate_proj.weight": weight(mlp, hidden),
                "mlp.up_proj.weight": weight(mlp, hidden),
                "mlp.down_proj.weight": weight(hidden, mlp),
            }.items()
        }
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(config_of(shape), indent=2))
    return path


def num_parameters(shape: str, *, with_embedding: bool) -> int:
    """Weights of a shape; the tied embedding counts once, as the output head."""
    sizes = SHAPES[shape]
    hidden, head = sizes["hidden_size"], sizes["head_dim"]
    heads = sizes["num_attention_heads"] + sizes["num_key_value_heads"]
    layer = 2 * hidden * head * heads + 3 * hidden * sizes["intermediate_size"]
    embedding = sizes["vocab_size"] * hidden if with_embedding else 0
    return layer * sizes["num_hidden_layers"] + embedding
