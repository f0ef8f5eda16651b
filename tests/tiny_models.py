"""Small random checkpoints of every supported family, written by transformers.

The reference for the models: `reference_model` loads what `make_checkpoint` wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

VOCAB_SIZE = 384
EOS_TOKEN_ID = 256
EOS_TOKEN = "<|end|>"
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": EOS_TOKEN_ID,
    "bos_token_id": None,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "llama3": (LlamaConfig, {"rope_parameters": _LLAMA3_ROPE, "tie_word_embeddings": True}),
    "mistral": (MistralConfig, {"sliding_window": 24, "head_dim": 32}),
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"head_dim": 32, "tie_word_embeddings": True}),
}
FAMILIES = tuple(_FAMILIES)


def make_checkpoint(
    family: str, path: Path, *, seed: int = 0, dtype: str = "float32", **config_overrides: Any
) -> Path:
    """Write config.json and model.safetensors of a random model into the directory `path`.

    `max_shard_size` among the overrides splits the weights into several files.
    """
    config_class, facts = _FAMILIES[family]
    max_shard_size = config_overrides.pop("max_shard_size", "5GB")
    config = config_class(**(_SHAPE | facts | config_overrides))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        # The usual start (norms one, biases zero, small weights) would hide what they do.
        for name, parameter in model.named_parameters():
            deviation = 0.2 if parameter.dim() == 2 else 0.3
            centre = 1.0 if name.endswith("norm.weight") else 0.0
            torch.nn.init.normal_(parameter, centre, deviation)
    model.to(getattr(torch, dtype)).save_pretrained(path, max_shard_size=max_shard_size)
    return path


def reference_model(path: Path, dtype: str = "float32") -> PreTrainedModel:
    """The checkpoint as transformers runs it."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        path, dtype=getattr(torch, dtype), attn_implementation="eager"
    )
    return model


def make_tokenizer(path: Path) -> Path:
    """Write tokenizer.json and tokenizer_config.json into the directory `path`.

    One token for each byte, ids 0 to 255 in the order of the byte-level alphabet, and the end
    token, EOS_TOKEN_ID.
    """
    path.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([EOS_TOKEN])
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS_TOKEN}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path
