from __future__ import annotations

import pytest
import torch
from tiny_models import make_checkpoint

from rillm.models.config import ModelConfig
from rillm.models.kv_cache import KVCache

BLOCK_SIZE = 4


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return ModelConfig.from_directory(make_checkpoint("llama", tmp_path_factory.mktemp("llama")))


@pytest.fixture
def cache(config: ModelConfig) -> KVCache:
    cache = KVCache(config, 6, BLOCK_SIZE, torch.float32, torch.device("cpu"))
    for layer in range(config.num_layers):
        slots = torch.arange(BLOCK_SIZE, 6 * BLOCK_SIZE)
        rows = slots.view(-1, 1, 1).expand(-1, config.num_kv_heads, config.head_dim).float()
        cache.write(layer, slots, rows + 100 * layer, -rows)
    return cache


def test_a_block_takes_the_bytes_it_is_said_to(config: ModelConfig, cache: KVCache) -> None:
    stored = sum(tensor.nbytes for tensor in (*cache.keys, *cache.values))
    assert KVCache.block_bytes(config, BLOCK_SIZE, torch.float32) * 6 == stored


def test_the_null_block_is_zero(cache: KVCache) -> None:
    for tensor in (*cache.keys, *cache.values):
        assert not tensor[:BLOCK_SIZE].any()


@pytest.mark.parametrize("slots", [slice(6, 9), torch.tensor([6, 7, 8])])
def test_what_was_written_is_read_back(cache: KVCache, slots: slice | torch.Tensor) -> None:
    keys, values = cache.read(1, slots)
    assert keys[:, 0, 0].tolist() == [106, 107, 108]
    assert values[:, -1, -1].tolist() == [-6, -7, -8]


def test_copied_blocks_hold_the_same_in_every_layer(cache: KVCache) -> None:
    cache.copy_blocks([(2, 5), (3, 4)])
    for tensor in (*cache.keys, *cache.values):
        blocks = tensor.view(6, BLOCK_SIZE, -1)
        assert torch.equal(blocks[5], blocks[2])
        assert torch.equal(blocks[4], blocks[3])
    assert cache.keys[0][:, 0, 0].tolist() == [
        *[0] * 4, *range(4, 16), *range(12, 16), *range(8, 12)
    ]  # fmt: skip


def test_copying_no_blocks_changes_nothing(cache: KVCache) -> None:
    before = cache.keys[0].clone()
    cache.copy_blocks([])
    assert torch.equal(cache.keys[0], before)
