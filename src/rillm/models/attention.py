"""Causal attention of one step over the KV cache.

Grouped-query attention: each KV head serves G = H / K query heads. The G queries of a head are
treated as so many queries of one head, so that keys are read once and never repeated.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rillm.models.attention_plan import DecodeGroup, PrefillChunk, WindowPlan, plan_window
from rillm.models.batch import ForwardBatch
from rillm.models.config import ModelConfig
from rillm.models.kv_cache import KVCache


class AttentionPlan:
    """The attention of one step: made once, used by every layer.

    Reads nothing back from the device.
    """

    def __init__(
        self, config: ModelConfig, batch: ForwardBatch, kv_cache: KVCache, dtype: torch.dtype
    ) -> None:
        """Plan the step `batch` for queries of `dtype`."""
        self._cache = kv_cache
        self._slot_mapping = batch.slot_mapping
        self._num_decodes = batch.num_decodes
        by_window = {
            window: plan_window(batch, window, kv_cache.block_size, config.num_kv_heads, dtype)
            for window in dict.fromkeys(config.layer_windows)
        }
        self._plans = [by_window[window] for window in config.layer_windows]
        self._scale = config.head_dim**-0.5
        self._nothing = torch.empty((), dtype=dtype, device=batch.slot_mapping.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the step's keys and values, then attend.

        Args:
            layer: index of the layer.
            q: [T, H, D], rotated.
            k: [T, K, D], rotated.
            v: [T, K, D].

        Returns:
            [T, H * D] contiguous.
        """
        self._cache.write(layer, self._slot_mapping, k, v)
        plan = self._plans[layer]
        q = q.view(*k.shape[:2], -1, k.shape[2])
        if not plan.chunks:
            return self._decode(layer, plan, q).flatten(1)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        if self._num_decodes:
            out[: self._num_decodes] = self._decode(layer, plan, q[: self._num_decodes])
        for chunk in plan.chunks:
            keys, values = k[chunk.rows], v[chunk.rows]
            if chunk.slots is not None:
                keys, values = self._cache.read(layer, chunk.slots)
            self._prefill(chunk, q[chunk.rows], keys, values, out[chunk.rows])
        return out.flatten(1)

    def _decode(self, layer: int, plan: WindowPlan, q: Tensor) -> Tensor:
        """Attend with one query per sequence: q and result [B, K, G, D]."""
        if plan.decode_order is not None:
            q = q.index_select(0, plan.decode_order)
        results = [self._attend_group(layer, group, q[group.rows]) for group in plan.decode_groups]
        result = results[0] if len(results) == 1 else torch.cat(results)
        if plan.decode_order is None:
            return result
        return torch.empty_like(result).index_copy_(0, plan.decode_order, result)

    def _attend_group(self, layer: int, group: DecodeGroup, q: Tensor) -> Tensor:
        """Attend with the decodes of a group: q and result [B, K, G, D].

        For several decodes, two batched products of whole heads take less than half the time of
        the fused operator on the CPU. Scores are rounded to the dtype, as in `_prefill`.
        """
        if isinstance(group.slots, slice):
            keys, values = self._cache.read(layer, group.slots)
            k, v = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (keys, values))
            return F.scaled_dot_product_attention(q, k, v)
        keys, values = self._cache.read_heads(layer, group.slots)
        num_heads, group_size, head_dim = q.shape[0] * q.shape[1], q.shape[2], q.shape[3]
        k, v = (tensor.view(num_heads, -1, head_dim) for tensor in (keys, values))
        queries = q.reshape(num_heads, group_size, head_dim)
        scores = torch.baddbmm(self._nothing, queries, k.transpose(1, 2), beta=0, alpha=self._scale)
        if group.mask is not None:
            scores.view(*q.shape[:3], -1).add_(group.mask)
        return torch.bmm(torch.softmax(scores, dim=-1), v).view(q.shape)

    def _prefill(self, chunk: PrefillChunk, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        """Attend with the queries of one sequence.

        Softmax is computed in float32 and rounded to the dtype, as are the scores. On the CPU
        this takes less than half the time of the fused operator.

        Args:
            chunk: which keys each query sees.
            q: [n, K, G, D].
            k: [S, K, D].
            v: [S, K, D].
            out: [n, K, G, D], filled.
        """
        num_kv_heads, group_size, head_dim = q.shape[1:]
        q, out = q.permute(1, 2, 0, 3), out.permute(1, 2, 0, 3)
        k, v = k.permute(1, 2, 0), v.transpose(0, 1)
        for block in chunk.blocks:
            queries = q[:, :, block.queries].reshape(num_kv_heads, -1, head_dim)
            scores = torch.baddbmm(
                self._nothing, queries, k[:, :, block.keys], beta=0, alpha=self._scale
            )
            rows = scores.view(num_kv_heads, group_size, -1, scores.shape[2])
            rows[..., -block.mask.shape[1] :] += block.mask
            weights = torch.softmax(scores, dim=-1)
            result = torch.bmm(weights, v[:, block.keys])
            out[:, :, block.queries] = result.view(num_kv_heads, group_size, -1, head_dim)
