"""Everything left to decide when the engine starts, decided once by one pure function."""

from __future__ import annotations

from dataclasses import dataclass

from rillm.engine.config import EngineConfig
from rillm.errors import ConfigError
from rillm.models.config import ModelConfig

_CPU_CACHE_SHARE = 0.4
"""Of the machine's free memory; committed only as blocks are first written."""
_CPU_CACHE_MOST = 8 << 30
_CPU_BATCHED_TOKENS = 512
"""A longer prefill chunk would make readers of running streams wait too long on a CPU."""
_GPU_BATCHED_TOKENS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """Sizes the engine runs with."""

    max_model_len: int
    """Tokens of prompt and output together."""
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    """Without the null block."""


def plan(
    config: EngineConfig,
    model: ModelConfig,
    *,
    block_bytes: int,
    free_bytes: int,
    on_gpu: bool,
) -> EnginePlan:
    """Decide the sizes that were left open.

    Args:
        config: what was asked for.
        model: the checkpoint's facts.
        block_bytes: memory of one KV cache block in all layers.
        free_bytes: memory the KV cache may take, weights already loaded.
        on_gpu: whether the model runs on a GPU.

    Raises:
        ConfigError: a size is out of range, or the KV cache cannot hold one whole sequence.
    """
    _check(config, model)
    max_model_len = config.max_model_len or model.max_position_embeddings
    batched = config.max_num_batched_tokens or max(
        config.max_num_seqs, _GPU_BATCHED_TOKENS if on_gpu else _CPU_BATCHED_TOKENS
    )
    per_sequence = -(-max_model_len // config.block_size)
    if config.num_blocks is not None:
        num_blocks = config.num_blocks
    else:
        room = config.kv_cache_memory_bytes
        if room is None:
            room = (
                free_bytes if on_gpu else min(int(free_bytes * _CPU_CACHE_SHARE), _CPU_CACHE_MOST)
            )
        # More blocks than every row can fill would only cost page tables.
        num_blocks = min(room // block_bytes - 1, per_sequence * config.max_num_seqs)
    if num_blocks < per_sequence:
        if config.max_model_len is not None or num_blocks < 1:
            raise ConfigError(
                f"the KV cache has {num_blocks} blocks of {config.block_size} tokens, but "
                f"max_model_len {max_model_len} needs {per_sequence}: lower max_model_len or give "
                f"it more memory (kv_cache_memory_bytes, {block_bytes} bytes a block)"
            )
        max_model_len = num_blocks * config.block_size
    return EnginePlan(
        max_model_len=max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=batched,
        block_size=config.block_size,
        num_blocks=num_blocks,
    )


def _check(config: EngineConfig, model: ModelConfig) -> None:
    for name in ("max_num_seqs", "block_size"):
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} is {getattr(config, name)}, must be at least 1")
    if not 0 < config.gpu_memory_utilization <= 1:
        raise ConfigError(
            f"gpu_memory_utilization is {config.gpu_memory_utilization}, must be in (0, 1]"
        )
    longest = model.max_position_embeddings
    if config.max_model_len is not None and not 1 < config.max_model_len <= longest:
        raise ConfigError(
            f"max_model_len is {config.max_model_len}, must be from 2 to the model's {longest}"
        )
    batched = config.max_num_batched_tokens
    if batched is not None and batched < config.max_num_seqs:
        raise ConfigError(
            f"max_num_batched_tokens is {batched}, must be at least max_num_seqs "
            f"({config.max_num_seqs}), so that every running sequence can decode in each step"
        )
