"""KVCache: keys and values of every layer, in fixed-size blocks.

    block:   0 (null)      1               2            ...
           +---+---+---+---+---+---+---+---+---+---+---+---+
    slot:  | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |10 |11 |    block_size = 4
           +---+---+---+---+---+---+---+---+---+---+---+---+

Slot-major: one slot of one layer holds the keys (or values) of one token for all KV heads,
so that a token is written and gathered as one row. Knows slots and blocks, not whose they are.
Block 0 belongs to nobody: padding points there, and its slots stay zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rillm.models.config import ModelConfig

Slots = slice | Tensor
"""Slots in position order: a run, or [S] int64."""
_WORKSPACE_STEP = 1 << 20
"""Elements by which the workspace grows."""


class KVCache:
    """Keys and values of `num_blocks` blocks in every layer.

    Reserves address space, not memory: on the CPU a block costs memory from its first write on.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Reserve `num_blocks` blocks, the null block included, of `block_size` tokens."""
        shape = (2, num_blocks * block_size, config.num_kv_heads, config.head_dim)
        layers = [torch.empty(shape, dtype=dtype, device=device) for _ in range(config.num_layers)]
        for layer in layers:
            layer[:, :block_size].zero_()
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.keys: list[Tensor] = [layer[0] for layer in layers]
        """For each layer [num_slots, K, D]."""
        self.values: list[Tensor] = [layer[1] for layer in layers]
        """For each layer [num_slots, K, D]."""
        self._workspace = torch.empty((2, 0), dtype=dtype, device=device)

    @staticmethod
    def block_bytes(config: ModelConfig, block_size: int, dtype: torch.dtype) -> int:
        """Bytes that one block takes, all layers together."""
        token_bytes = 2 * config.num_kv_heads * config.head_dim * dtype.itemsize
        return config.num_layers * block_size * token_bytes

    def write(self, layer: int, slot_mapping: Tensor, k: Tensor, v: Tensor) -> None:
        """Store keys and values [T, K, D] of T tokens in their slots [T] int64."""
        self.keys[layer].index_copy_(0, slot_mapping, k)
        self.values[layer].index_copy_(0, slot_mapping, v)

    def read(self, layer: int, slots: Slots) -> tuple[Tensor, Tensor]:
        """Keys and values of S slots.

        Returns:
            Two tensors [S, K, D]: views of the cache for a run of slots, else views of a
            workspace that the next call overwrites.
        """
        if isinstance(slots, slice):
            return self.keys[layer][slots], self.values[layer][slots]
        return self._gather(self.keys[layer], self.values[layer], slots)

    def read_heads(self, layer: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of single heads.

        Args:
            layer: index of the layer.
            rows: [R] int64, slot * K + KV head.

        Returns:
            Two tensors [R, D], views of a workspace that the next call overwrites.
        """
        keys, values = (tensor.flatten(0, 1) for tensor in (self.keys[layer], self.values[layer]))
        return self._gather(keys, values, rows)

    def _gather(self, keys: Tensor, values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        # A fresh result per layer would cost a page fault per 4 KiB, ten times the copy itself.
        shape = (rows.numel(), *keys.shape[1:])
        size = math.prod(shape)
        if size > self._workspace.shape[1]:
            rounded = -(-size // _WORKSPACE_STEP) * _WORKSPACE_STEP
            self._workspace = self._workspace.new_empty((2, rounded))
        k, v = self._workspace[0, :size].view(shape), self._workspace[1, :size].view(shape)
        torch.index_select(keys, 0, rows, out=k)
        torch.index_select(values, 0, rows, out=v)
        return k, v

    @torch.inference_mode()
    def copy_blocks(self, pairs: list[tuple[int, int]]) -> None:
        """Copy blocks, for copy on write.

        Args:
            pairs: (source block id, destination block id); no destination is also a source.
        """
        if not pairs:
            return
        device = self.keys[0].device
        sources, destinations = torch.tensor(pairs, dtype=torch.int64, device=device).unbind(1)
        for tensor in (*self.keys, *self.values):
            blocks = tensor.view(self.num_blocks, self.block_size, -1)
            blocks.index_copy_(0, destinations, blocks.index_select(0, sources))
