"""Writes a trained network as a model directory that transformers and rillm can load."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from model import ModelShape
from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor


def _write(path: Path, document: dict[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def export(state: dict[str, Tensor], shape: ModelShape, directory: Path) -> None:
    """Write weights in bfloat16 and the configuration files beside the tokenizer.

    Args:
        state: parameters under the names of transformers.
        shape: sizes of the network.
        directory: holds ``tokenizer.json`` and ``chat_template.jinja`` already.
    """
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    end_of_text, start, end = (
        tokenizer.token_to_id(mark) for mark in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    )
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end,
        "pad_token_id": end_of_text,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "model_type": "qwen3",
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_key_value_heads,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "sliding_window": None,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }
    _write(directory / "config.json", config)
    _write(
        directory / "generation_config.json",
        {
            "bos_token_id": end_of_text,
            "do_sample": True,
            "eos_token_id": [end, end_of_text],
            "pad_token_id": end_of_text,
            "temperature": 0.3,
            "top_p": 0.95,
        },
    )
    added = {
        str(index): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for index, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    _write(
        directory / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "additional_special_tokens": ["<|im_start|>"],
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "model_max_length": shape.max_position_embeddings,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": None,
        },
    )
    weights = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in state.items()
    }
    partial = directory / "model.safetensors.partial"
    partial.write_bytes(save(weights, metadata={"format": "pt"}))
    os.replace(partial, directory / "model.safetensors")
