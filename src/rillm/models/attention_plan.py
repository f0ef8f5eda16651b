"""Which slots each sequence of a step attends to, and how the work is cut.

Computed once per step for each window size in use and then shared by the layers. Pure index
arithmetic: knows neither queries nor keys.

Decodes are padded into groups of similar length. Padding points at slot 0 of the null block,
which is zero: a masked score times whatever stale memory holds would still be NaN if that were
infinite. Prefill chunks are cut into query blocks, because a causal mask makes half of a whole
score matrix useless.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rillm.models.batch import ForwardBatch
from rillm.models.kv_cache import Slots


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """Decodes that attend in one call, each padded to the longest."""

    rows: slice
    """Their places in `WindowPlan.decode_order`."""
    slots: Slots
    """A run of S slots of a single decode; or [B * K * S] int64, rows of `KVCache.read_heads` in
    the order of decodes, KV heads and positions."""
    mask: Tensor | None
    """[B, 1, 1, S], 0 or minus infinity, in the model's dtype; None: nothing is padded."""


@dataclass(frozen=True, slots=True)
class QueryBlock:
    """Consecutive queries of a prefill chunk."""

    queries: slice
    """Rows of the chunk."""
    keys: slice
    """Keys of the chunk that any of them sees."""
    mask: Tensor
    """[queries, m] for the last m keys, 0 or minus infinity, in the model's dtype; all queries
    see the keys before."""


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """One sequence's tokens of this step, and what they attend to."""

    rows: slice
    """Rows of the batch."""
    slots: Slots | None
    """Slots of the keys; None: the keys are those of the chunk itself."""
    blocks: list[QueryBlock]


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The attention of one step for the layers of one window size."""

    decode_order: Tensor | None
    """[Bd] int64, rows of the batch in the order of the groups; None: as they stand."""
    decode_groups: list[DecodeGroup]
    chunks: list[PrefillChunk]


@dataclass(frozen=True, slots=True)
class _Limits:
    """Sizes that suit a kind of device."""

    group_slots: int
    """Most slots of a group of several decodes."""
    block_rows: int
    """Most queries of a block."""
    block_scores: int
    """Most scores of a block for one head, unless that would take fewer than 16 rows."""


# The CPU wants the keys of a group to stay in its cache; a GPU wants few launches.
_CPU_LIMITS = _Limits(group_slots=4096, block_rows=128, block_scores=2**19)
_GPU_LIMITS = _Limits(group_slots=2**18, block_rows=1024, block_scores=2**24)
_MIN_BLOCK_ROWS = 16
_FREE_PADDING = 128
"""Slots of padding per decode that cost less than another call."""


def plan_window(
    batch: ForwardBatch,
    window: int | None,
    block_size: int,
    num_kv_heads: int,
    dtype: torch.dtype,
) -> WindowPlan:
    """Plan the attention of one step. Reads nothing back from the device.

    Args:
        batch: the step.
        window: last positions that a token sees, itself included; None means all.
        block_size: tokens of a KV cache block.
        num_kv_heads: K.
        dtype: of the masks.
    """
    return _Planner(batch, window, block_size, num_kv_heads, dtype).plan()


class _Planner:
    def __init__(
        self,
        batch: ForwardBatch,
        window: int | None,
        block_size: int,
        num_kv_heads: int,
        dtype: torch.dtype,
    ) -> None:
        self._batch = batch
        self._window = window
        self._block_size = block_size
        self._dtype = dtype
        self._device = batch.block_tables.device
        self._num_kv_heads = num_kv_heads
        self._heads = torch.arange(num_kv_heads, device=self._device).unsqueeze(1)
        self._limits = _CPU_LIMITS if self._device.type == "cpu" else _GPU_LIMITS

    def plan(self) -> WindowPlan:
        num_decodes = self._batch.num_decodes
        spans = [self._span(length) for length in self._batch.seq_lens[:num_decodes]]
        order, sizes = self._group(spans)
        groups = []
        row = 0
        for size in sizes:
            groups.append(self._decode_group(order[row : row + size], slice(row, row + size)))
            row += size
        in_place = order == list(range(num_decodes))
        return WindowPlan(
            decode_order=None if in_place else torch.tensor(order, device=self._device),
            decode_groups=groups,
            chunks=list(self._chunks()),
        )

    def _span(self, seq_len: int) -> int:
        return seq_len if self._window is None else min(seq_len, self._window)

    def _group(self, spans: list[int]) -> tuple[list[int], list[int]]:
        """Decodes in the order of the groups, and the sizes of the groups."""
        order = sorted(range(len(spans)), key=lambda index: -spans[index])
        sizes: list[int] = []
        longest = 0
        for index in order:
            fits = sizes and (sizes[-1] + 1) * longest <= self._limits.group_slots
            if fits and longest <= 2 * spans[index] + _FREE_PADDING:
                sizes[-1] += 1
            else:
                sizes.append(1)
                longest = spans[index]
        # A single group needs no order of its own, and so no copies of queries and results.
        return (order if len(sizes) > 1 else list(range(len(spans)))), sizes

    def _decode_group(self, members: list[int], rows: slice) -> DecodeGroup:
        ends = [self._batch.seq_lens[index] for index in members]
        spans = [self._span(end) for end in ends]
        if len(members) == 1:
            slots = self._sequence_slots(members[0], ends[0] - spans[0], ends[0])
            if not isinstance(slots, slice):
                slots = self._head_rows(slots.unsqueeze(0))
            return DecodeGroup(rows, slots, None)
        longest = max(spans)
        starts_and_ends = torch.tensor(
            [[end - span for end, span in zip(ends, spans, strict=True)], ends],
            device=self._device,
        ).unsqueeze(2)
        positions = starts_and_ends[0] + torch.arange(longest, device=self._device)
        padding = positions >= starts_and_ends[1]
        tables = self._batch.block_tables.index_select(
            0, torch.tensor(members, device=self._device)
        )
        blocks = (positions // self._block_size).clamp_(max=tables.shape[1] - 1)
        slots = tables.gather(1, blocks) * self._block_size + positions % self._block_size
        slots.masked_fill_(padding, 0)
        mask = self._additive(padding)[:, None, None] if min(spans) < longest else None
        return DecodeGroup(rows, self._head_rows(slots), mask)

    def _head_rows(self, slots: Tensor) -> Tensor:
        """Rows [B * K * S] of single heads, for slots [B, S]."""
        return (slots.unsqueeze(1) * self._num_kv_heads + self._heads).flatten()

    def _sequence_slots(self, index: int, start: int, stop: int) -> Slots:
        """Slots of the positions from `start` to before `stop` of one sequence."""
        size = self._block_size
        blocks = self._batch.block_tables[index, start // size : (stop - 1) // size + 1]
        # Only the CPU can look at the block ids without waiting for the device.
        if self._device.type == "cpu":
            ids = blocks.tolist()
            if ids == list(range(ids[0], ids[0] + len(ids))):
                first = ids[0] * size + start % size
                return slice(first, first + stop - start)
        slots = blocks.unsqueeze(1) * size + torch.arange(size, device=self._device)
        return slots.flatten()[start % size :][: stop - start]

    def _chunks(self) -> Iterator[PrefillChunk]:
        row = self._batch.num_decodes
        for index in range(self._batch.num_decodes, len(self._batch.seq_lens)):
            count, end = self._batch.query_lens[index], self._batch.seq_lens[index]
            first_query = end - count
            first_key = self._first_seen(first_query)
            yield PrefillChunk(
                rows=slice(row, row + count),
                slots=self._sequence_slots(index, first_key, end) if first_query else None,
                blocks=list(self._blocks(first_query, first_key, count)),
            )
            row += count

    def _first_seen(self, position: int) -> int:
        return 0 if self._window is None else max(0, position - self._window + 1)

    def _blocks(self, first_query: int, first_key: int, count: int) -> Iterator[QueryBlock]:
        """Cut `count` queries at positions from `first_query` on; keys count from `first_key`.

                 keys ─────────────────────────▶
        queries  ┌──────────────────┬────────┐
           │     │ seen by all      │◣ mask  │      without a window the mask is the
           ▼     │                  │  ◣     │      triangle of the block's own keys;
                 └──────────────────┴────────┘      with one it covers all keys
        """
        longest = first_query + count - first_key
        rows = min(self._limits.block_rows, self._limits.block_scores // longest)
        rows = max(rows, _MIN_BLOCK_ROWS)
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            queries = torch.arange(first_query + start, first_query + stop, device=self._device)
            low = self._first_seen(first_query + start)
            high = first_query + stop
            windowed = self._window is not None and self._first_seen(high - 1) > 0
            masked_from = low if windowed else first_query + start
            keys = torch.arange(masked_from, high, device=self._device)
            hidden = keys > queries.unsqueeze(1)
            if self._window is not None and windowed:
                hidden |= keys <= queries.unsqueeze(1) - self._window
            yield QueryBlock(
                queries=slice(start, stop),
                keys=slice(low - first_key, high - first_key),
                mask=self._additive(hidden),
            )

    def _additive(self, hidden: Tensor) -> Tensor:
        # Adding is several times faster than filling by a mask of booleans.
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=self._device)
        return mask.masked_fill_(hidden, float("-inf"))
