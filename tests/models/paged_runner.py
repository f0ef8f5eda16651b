"""PagedRunner: the least engine there can be, over a poisoned cache."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from tiny_models import VOCAB_SIZE
from torch import Tensor

from rillm.models.batch import ForwardBatch
from rillm.models.config import ModelConfig
from rillm.models.kv_cache import KVCache
from rillm.models.loader import load_model

MakeModel = Callable[..., Path]
"""Of family and overrides: the directory of a checkpoint."""


def tokens_of(length: int, seed: int = 0) -> Tensor:
    """Random token ids."""
    return torch.randint(VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(seed))


class PagedRunner:
    """Runs steps of named sequences; every slot that was never written holds NaN.

    So a result that depends on memory it should not see is NaN and fails any comparison. The
    blocks of a sequence are out of order and not neighbours, unless `in_order`.
    """

    def __init__(
        self,
        path: Path,
        *,
        block_size: int = 4,
        num_blocks: int = 400,
        in_order: bool = False,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        enforce_eager: bool = False,
    ) -> None:
        self.config = ModelConfig.from_directory(path)
        self.device = torch.device(device)
        self.model = load_model(
            path, self.config, dtype=dtype, device=self.device, enforce_eager=enforce_eager
        )
        self.cache = KVCache(self.config, num_blocks, block_size, dtype, self.device)
        for tensor in (*self.cache.keys, *self.cache.values):
            tensor[block_size:] = float("nan")
        self._free = list(range(num_blocks - 1, 0, -1))
        if not in_order:
            random.Random(0).shuffle(self._free)
        self._tables: dict[str, list[int]] = {}
        self._lengths: dict[str, int] = {}

    @torch.inference_mode()
    def step(self, work: dict[str, Tensor]) -> dict[str, Tensor]:
        """Append tokens [n] to each sequence; logits [n, V] of each."""
        names = sorted(work, key=lambda name: not self._is_decode(name, work[name]))
        positions: list[int] = []
        slots: list[int] = []
        for name in names:
            first = self._lengths.get(name, 0)
            self._lengths[name] = first + len(work[name])
            table = self._tables.setdefault(name, [])
            size = self.cache.block_size
            while len(table) * size < self._lengths[name]:
                table.append(self._free.pop())
            new = range(first, self._lengths[name])
            positions += new
            slots += [table[position // size] * size + position % size for position in new]
        most = max(len(self._tables[name]) for name in names)
        tables = [self._tables[name] + [0] * (most - len(self._tables[name])) for name in names]
        counts = [len(work[name]) for name in names]
        batch = ForwardBatch(
            token_ids=torch.cat([work[name] for name in names]).to(self.device),
            positions=torch.tensor(positions, device=self.device),
            slot_mapping=torch.tensor(slots, device=self.device),
            block_tables=torch.tensor(tables, device=self.device),
            query_lens=counts,
            seq_lens=[self._lengths[name] for name in names],
            num_decodes=sum(
                count == 1 and self._lengths[name] > 1
                for name, count in zip(names, counts, strict=True)
            ),
            logits_indices=torch.arange(len(positions), device=self.device),
        )
        hidden = self.model.forward(batch, self.cache)
        logits = self.model.compute_logits(hidden[batch.logits_indices]).cpu()
        return dict(zip(names, torch.split(logits, counts), strict=True))

    def run(self, name: str, tokens: Tensor, cuts: list[int]) -> Tensor:
        """Feed one sequence in pieces that end at `cuts`; logits [T, V] of all its tokens."""
        ends = [*cuts, len(tokens)]
        pieces = [tokens[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
        return torch.cat([self.step({name: piece})[name] for piece in pieces])

    def run_steps(
        self, tokens: dict[str, Tensor], steps: list[dict[str, int]]
    ) -> dict[str, Tensor]:
        """Feed sequences side by side, in steps of so many of their next tokens each.

        Returns:
            Logits [T, V] of all tokens that were fed, of the sequences that got any.
        """
        logits: dict[str, list[Tensor]] = {}
        for step in steps:
            starts = {name: self._lengths.get(name, 0) for name in step}
            work = {
                name: tokens[name][starts[name] : starts[name] + count]
                for name, count in step.items()
            }
            work = {name: piece for name, piece in work.items() if len(piece)}
            for name, rows in (self.step(work) if work else {}).items():
                logits.setdefault(name, []).append(rows)
        return {name: torch.cat(pieces) for name, pieces in logits.items()}

    def _is_decode(self, name: str, tokens: Tensor) -> bool:
        return len(tokens) == 1 and self._lengths.get(name, 0) > 0
