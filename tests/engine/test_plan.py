"""Sizes the engine decides at its start, as a table."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_checkpoint

from rillm.engine.config import EngineConfig
from rillm.engine.plan import EnginePlan, plan
from rillm.errors import ConfigError
from rillm.models.config import ModelConfig

CONTEXT = 512
BLOCK_BYTES = 1000
GIB = 1 << 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    path: Path = make_checkpoint("llama", tmp_path_factory.mktemp("model"))
    config = ModelConfig.from_directory(path)
    assert config.max_position_embeddings == CONTEXT
    return config


def decide(
    model: ModelConfig, *, free_bytes: int = 10 * GIB, on_gpu: bool = False, **settings: Any
) -> EnginePlan:
    return plan(
        EngineConfig(model_path="model", **settings),
        model,
        block_bytes=BLOCK_BYTES,
        free_bytes=free_bytes,
        on_gpu=on_gpu,
    )


ALL_ROWS = 256 * 512 // 16
"""Blocks when every row can be as long as the context."""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (512, 256, 512, 16, ALL_ROWS)),
        ({"on_gpu": True}, (512, 256, 8192, 16, ALL_ROWS)),
        ({"max_num_seqs": 1000}, (512, 1000, 1000, 16, 1000 * 32)),
        ({"max_num_seqs": 2}, (512, 2, 512, 16, 2 * 32)),
        ({"max_num_seqs": 2, "max_num_batched_tokens": 2}, (512, 2, 2, 16, 2 * 32)),
        ({"max_num_seqs": 2, "max_model_len": 100}, (100, 2, 512, 16, 2 * 7)),
        ({"max_num_seqs": 2, "block_size": 100}, (512, 2, 512, 100, 2 * 6)),
        ({"num_blocks": 40}, (512, 256, 512, 16, 40)),
        ({"num_blocks": 20_000}, (512, 256, 512, 16, 20_000)),
        ({"num_blocks": 40, "kv_cache_memory_bytes": 1}, (512, 256, 512, 16, 40)),
        ({"kv_cache_memory_bytes": 101_000}, (512, 256, 512, 16, 100)),
        ({"kv_cache_memory_bytes": 100_999}, (512, 256, 512, 16, 99)),
        ({"free_bytes": 250_000}, (512, 256, 512, 16, 99)),
        ({"free_bytes": 250_000, "on_gpu": True}, (512, 256, 8192, 16, 249)),
        ({"num_blocks": 10}, (160, 256, 512, 16, 10)),
        ({"kv_cache_memory_bytes": 3000}, (32, 256, 512, 16, 2)),
        ({"max_model_len": 512, "num_blocks": 32}, (512, 256, 512, 16, 32)),
    ],
)
def test_what_is_left_open_is_decided_from_model_and_memory(
    model: ModelConfig, settings: dict[str, Any], expected: tuple[int, ...]
) -> None:
    assert astuple(decide(model, **settings)) == expected


def test_a_cpu_cache_is_bounded_however_much_memory_is_free(model: ModelConfig) -> None:
    config = EngineConfig(model_path="model", max_num_seqs=10_000)
    decided = plan(config, model, block_bytes=GIB // 10, free_bytes=10_000 * GIB, on_gpu=False)
    assert decided.num_blocks * (GIB // 10) <= 8 * GIB


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs is 0, must be at least 1"),
        ({"block_size": 0}, "block_size is 0, must be at least 1"),
        ({"block_size": -16}, "block_size is -16, must be at least 1"),
        ({"max_model_len": 513}, "max_model_len is 513, must be from 2 to the model's 512"),
        ({"max_model_len": 1}, "max_model_len is 1, must be from 2"),
        ({"max_num_batched_tokens": 255}, "max_num_batched_tokens is 255, must be at least max_"),
        ({"max_num_seqs": 4, "max_num_batched_tokens": 0}, "max_num_batched_tokens is 0"),
        ({"num_blocks": 0}, "has 0 blocks"),
        ({"num_blocks": -3}, "has -3 blocks"),
        ({"free_bytes": 0}, "max_model_len 512 needs 32"),
        ({"kv_cache_memory_bytes": 1999}, "has 0 blocks"),
        ({"max_model_len": 512, "num_blocks": 31}, "max_model_len 512 needs 32"),
    ],
)
def test_what_cannot_work_is_refused_with_the_setting_and_its_range(
    model: ModelConfig, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        decide(model, **settings)
