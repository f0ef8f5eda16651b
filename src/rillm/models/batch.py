"""ForwardBatch: everything one forward pass is told about its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardBatch:
    """T tokens of B sequences, decodes before prefill chunks.

    The tokens of one sequence are neighbours, in position order; each sequence's last token
    stands at position `seq_len - 1`. Tensors are on the model's device, lists are not, so that
    planning a step reads nothing back from it.
    """

    token_ids: Tensor
    """[T] int64."""
    positions: Tensor
    """[T] int64, place of each token in its sequence, from 0."""
    slot_mapping: Tensor
    """[T] int64, slot of each token: block id * block size + offset."""
    block_tables: Tensor
    """[B, M] int64 block ids in position order, padded with 0, the null block."""
    query_lens: list[int]
    """B numbers: tokens of the sequence in this batch, at least 1."""
    seq_lens: list[int]
    """B numbers: tokens of the sequence in the cache after this step."""
    num_decodes: int
    """Leading sequences whose query length is 1 and that attend as one batch."""
    logits_indices: Tensor
    """[L] int64 rows whose logits are needed."""
