"""From a checkpoint directory to a Model, and the dtype to load it in."""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm import tqdm

from rillm.models.checkpoint import Checkpoint
from rillm.models.config import ModelConfig
from rillm.models.decoder import TorchDecoder
from rillm.models.model import Model
from rillm.models.native.decoder import NativeDecoder, native_library
from rillm.models.weights import LayerWeights

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
    path: Path,
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    enforce_eager: bool = False,
) -> Model:
    """Load a model; shows progress on a terminal if it takes long.

    Args:
        path: directory with config.json and safetensors files.
        config: what config.json says.
        dtype: of the weights, the KV cache, and all results but the logits.
        device: where the weights go.
        enforce_eager: run by torch operators only, without the compiled decoder.

    Raises:
        ConfigError: files are missing, truncated or corrupt, or the tensors are not those that
            `config` asks for.
    """
    with Checkpoint(path, dtype=dtype, device=device) as weights:
        embedding = weights.take("model.embed_tokens.weight", config.vocab_size, config.hidden_size)
        norm = weights.take("model.norm.weight", config.hidden_size)
        tied = config.tie_word_embeddings
        head = embedding if tied else weights.take(_LM_HEAD, *embedding.shape)
        library = None if enforce_eager else native_library(config, dtype, device)
        decoders: list[NativeDecoder | TorchDecoder] = []
        if library is not None:
            decoders.append(NativeDecoder(library, config, embedding, norm, head))
        if library is None or has_matrix_units():
            decoders.append(TorchDecoder(config, embedding, norm, head))
        for index in tqdm(
            range(config.num_layers),
            desc="Loading layers",
            delay=_PROGRESS_AFTER_S,
            disable=None,
            leave=False,
        ):
            layer = LayerWeights.take(config, index, weights)
            for decoder in decoders:
                decoder.add_layer(layer)
        weights.check_all_taken(but=(*_COMPUTED_TENSORS, _LM_HEAD))
        return Model(few=decoders[0], many=decoders[-1])


def default_dtype(
    config: ModelConfig, device: torch.device, *, enforce_eager: bool = False
) -> torch.dtype:
    """The dtype to compute in when none is asked for.

    Args:
        config: its `dtype` is the checkpoint's.
        device: where the model will run.
        enforce_eager: see `load_model`.

    Returns:
        The checkpoint's dtype, except on the CPU, which is fast in float32 always, in bfloat16 in
        the compiled decoder or with instructions for it, and never in float16.
    """
    dtype = _TORCH_DTYPES[config.dtype]
    if device.type != "cpu" or dtype == torch.float32:
        return dtype
    is_compiled = not enforce_eager and native_library(config, torch.bfloat16, device) is not None
    return torch.bfloat16 if is_compiled or _cpu_multiplies_bfloat16() else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))


def has_matrix_units() -> bool:
    """Whether oneDNN multiplies many rows several times faster than vectors could."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
