"""From a checkpoint directory to a Model, and the dtype to load it in."""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm import tqdm

from rillm.models.checkpoint import Checkpoint
from rillm.models.config import ModelConfig
from rillm.models.decoder import DecoderLayer, Model
from rillm.models.linear import make_linear
from rillm.models.norm import RMSNorm

_TORCH_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
_LM_HEAD = "lm_head.weight"
_COMPUTED_TENSORS = (".rotary_emb.inv_freq",)
"""Endings of tensors that old checkpoints hold and that follow from config.json."""
_PROGRESS_AFTER_S = 2.0


def load_model(
    path: Path, config: ModelConfig, *, dtype: torch.dtype, device: torch.device
) -> Model:
    """Load a model; shows progress on a terminal if it takes long.

    Args:
        path: directory with config.json and safetensors files.
        config: what config.json says.
        dtype: of the weights and of all results but the logits.
        device: where the weights go.

    Raises:
        ConfigError: files are missing, truncated or corrupt, or the tensors are not those that
            `config` asks for.
    """
    with Checkpoint(path, dtype=dtype, device=device) as weights:
        embedding = weights.take("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
        indices = tqdm(
            range(config.num_layers),
            desc="Loading layers",
            delay=_PROGRESS_AFTER_S,
            disable=None,
            leave=False,
        )
        layers = [DecoderLayer(config, index, weights) for index in indices]
        norm = RMSNorm(weights.take("model.norm.weight", config.hidden_size), config.rms_norm_eps)
        tied = config.tie_word_embeddings
        head = embedding if tied else weights.take(_LM_HEAD, *embedding.shape)
        weights.check_all_taken(but=(*_COMPUTED_TENSORS, _LM_HEAD))
        return Model(config, embedding, layers, norm, make_linear(head))


def default_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The dtype to compute in when none is asked for.

    Args:
        config: its `dtype` is the checkpoint's.
        device: where the model will run.

    Returns:
        The checkpoint's dtype, except on the CPU, which is fast in float32 always and in
        bfloat16 only with instructions for it, and never in float16.
    """
    dtype = _TORCH_DTYPES[config.dtype]
    if device.type != "cpu" or dtype == torch.float32:
        return dtype
    return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))
