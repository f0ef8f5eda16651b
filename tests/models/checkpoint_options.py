"""Checkpoints with every option there is, as rows of a parametrised test."""

from __future__ import annotations

import pytest

OPTIONS = [
    pytest.param("llama", {"tie_word_embeddings": True}, id="llama-tied"),
    pytest.param("qwen2", {"tie_word_embeddings": False}, id="qwen2-untied"),
    pytest.param("qwen3", {"tie_word_embeddings": False}, id="qwen3-untied"),
    pytest.param("llama", {"attention_bias": True, "mlp_bias": True}, id="biases"),
    pytest.param("qwen3", {"attention_bias": True}, id="bias-and-qk-norm"),
    pytest.param("llama", {"num_key_value_heads": 4}, id="one-query-head-per-kv-head"),
    pytest.param("llama", {"num_key_value_heads": 1}, id="one-kv-head"),
    pytest.param("mistral", {"sliding_window": 1}, id="window-of-one"),
    pytest.param("mistral", {"sliding_window": 140}, id="window-longer-than-a-query-block"),
    pytest.param("mistral", {"sliding_window": 500}, id="window-longer-than-prompt"),
    pytest.param("mistral", {"sliding_window": None}, id="no-window"),
    pytest.param(
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1},
        id="window-from-a-layer-on",
    ),
    pytest.param(
        "qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        id="window-by-layer-type",
    ),
    pytest.param(
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
        id="rope-linear",
    ),
    pytest.param(
        "qwen3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
            }
        },
        id="rope-yarn",
    ),
    pytest.param(
        "qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 8.0,
                "original_max_position_embeddings": 64,
                "beta_fast": 16.0,
                "beta_slow": 2.0,
                "mscale": 1.5,
                "mscale_all_dim": 0.5,
                "truncate": False,
            }
        },
        id="rope-yarn-with-every-option",
    ),
    pytest.param("qwen3", {"max_shard_size": "50KB"}, id="several-shards"),
    pytest.param(
        "qwen3",
        {
            "hidden_size": 66,
            "head_dim": 36,
            "intermediate_size": 90,
            "vocab_size": 391,
            "num_attention_heads": 6,
        },
        id="odd-sizes",
    ),
    pytest.param("llama", {"head_dim": 256, "num_attention_heads": 2}, id="large-heads"),
]
"""Family and overrides, for `tiny_models.make_checkpoint`."""
