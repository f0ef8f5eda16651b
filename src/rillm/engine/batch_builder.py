"""BatchBuilder: sequences of a step to the tensors of its forward pass.

Owns the host-side block table rows, which are rewritten only when a row's sequence or its
blocks have changed: in steady decode a step costs a few array operations for the whole batch.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch

from rillm.engine.scheduled_batch import ScheduledBatch
from rillm.engine.sequence import Sequence
from rillm.models.batch import ForwardBatch


class BatchBuilder:
    """Builds the forward batch of each step.

    Args:
        block_size: token positions of a block.
        max_num_seqs: most sequences in a step.
        max_blocks_per_seq: most blocks of one sequence.
        device: where the tensors go.
    """

    def __init__(
        self, *, block_size: int, max_num_seqs: int, max_blocks_per_seq: int, device: torch.device
    ) -> None:
        self._block_size = block_size
        self._device = device
        self._tables = np.zeros((max_num_seqs, max_blocks_per_seq), dtype=np.int64)
        self._owners: list[Sequence | None] = [None] * max_num_seqs
        self._versions = [0] * max_num_seqs
        self._widths = [0] * max_num_seqs

    def build(self, batch: ScheduledBatch) -> ForwardBatch:
        """Lay out a step: T tokens of B sequences, decodes first.

        Logits are asked for at the last token of each sequence that catches up, once for each
        of its choices.
        """
        sequences = batch.sequences
        counts = batch.num_scheduled_tokens
        starts = [sequence.num_computed_tokens for sequence in sequences]
        width = self._update_tables(sequences)
        tables = self._tables[: len(sequences), :width]
        if batch.num_decodes == len(sequences):
            token_ids = np.array([s.token_ids[-1] for s in sequences], dtype=np.int64)
            positions = np.array(starts, dtype=np.int64)
            rows = np.arange(len(sequences))
            seq_lens = [start + 1 for start in starts]
        else:
            spans = [
                s.token_ids[start : start + count]
                for s, start, count in zip(sequences, starts, counts, strict=True)
            ]
            token_ids = np.fromiter(chain.from_iterable(spans), dtype=np.int64)
            seq_lens = [start + count for start, count in zip(starts, counts, strict=True)]
            positions = np.concatenate(
                [np.arange(a, b) for a, b in zip(starts, seq_lens, strict=True)]
            )
            rows = np.repeat(np.arange(len(sequences)), counts)
        blocks = tables[rows, positions // self._block_size]
        slots = blocks * self._block_size + positions % self._block_size
        return ForwardBatch(
            token_ids=self._tensor(token_ids),
            positions=self._tensor(positions),
            slot_mapping=self._tensor(slots),
            block_tables=self._tensor(tables),
            query_lens=counts,
            seq_lens=seq_lens,
            num_decodes=batch.num_decodes,
            logits_indices=self._tensor(_logits_indices(batch, seq_lens)),
        )

    def _update_tables(self, sequences: list[Sequence]) -> int:
        width = 0
        for row, sequence in enumerate(sequences):
            if (
                self._owners[row] is not sequence
                or self._versions[row] != sequence.block_table_version
            ):
                table = self._tables[row]
                used = len(sequence.block_ids)
                table[:used] = sequence.block_ids
                table[used : self._widths[row]] = 0
                self._owners[row] = sequence
                self._versions[row] = sequence.block_table_version
                self._widths[row] = used
            width = max(width, self._widths[row])
        return width

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)


def _logits_indices(batch: ScheduledBatch, seq_lens: list[int]) -> np.ndarray:
    indices: list[int] = []
    end = 0
    for sequence, count, seq_len in zip(
        batch.sequences, batch.num_scheduled_tokens, seq_lens, strict=True
    ):
        end += count
        if seq_len == len(sequence.token_ids):
            indices += [end - 1] * sequence.num_forks
    return np.array(indices, dtype=np.int64)
