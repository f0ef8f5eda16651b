"""EngineConfig: what was asked of the engine, as it crosses to the core."""

from __future__ import annotations

import msgspec


class EngineConfig(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of the engine core. None means "decide from the model and the machine"."""

    model_path: str
    """Directory with config.json and safetensors files."""
    tokenizer_path: str | None = None
    """Directory with tokenizer.json, which only grammars need."""
    dtype: str = "auto"
    """`auto`, `bfloat16`, `float16` or `float32`."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    max_model_len: int | None = None
    """Longest prompt plus output, in tokens."""
    max_num_seqs: int = 256
    """Most sequences in one step."""
    max_num_batched_tokens: int | None = None
    """Token budget of one step: decodes first, then chunks of prefill."""
    block_size: int = 16
    """Token positions in one KV cache block."""
    num_blocks: int | None = None
    """KV cache blocks; overrides `kv_cache_memory_bytes`."""
    kv_cache_memory_bytes: int | None = None
    """Memory for the KV cache."""
    gpu_memory_utilization: float = 0.9
    """Share of a GPU's memory for weights and KV cache together."""
    enable_prefix_caching: bool = True
    """Reuse KV cache blocks of equal prompt prefixes."""
    num_threads: int | None = None
    """CPU threads for the forward pass."""
    enforce_eager: bool = False
    """Forward passes by torch operators only."""


class EngineInfo(msgspec.Struct, kw_only=True, frozen=True):
    """What the core decided, sent once when it is ready."""

    device: str
    dtype: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    """KV cache blocks, the null block not counted."""
    kv_cache_bytes: int
    memory_bytes: int
    """Taken by the weights and the runtime: resident memory, or allocated memory of a GPU."""
    load_seconds: float
