"""Token masks: the logits of tokens that do not fit their row's grammar become minus infinity."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from llguidance import LLExecutor
from llguidance.numpy import fill_next_token_bitmask, fill_next_token_bitmask_par

from rillm.engine.grammars import Matcher
from rillm.engine.sequence import Sequence

_WORD_BITS: Final = 32
_FEW_WORDS: Final = 64
"""Words of a mask that are expanded one by one; more of them, and a whole pass costs less."""
_MINUS_INFINITY: Final = -(2**23)
"""The bits of a float32 minus infinity, read as an int32."""
_ADDED: Final[npt.NDArray[np.float32]] = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), 0, -np.inf
).astype(np.float32)
"""[256, 8]: what each byte of a mask adds to eight logits."""


class TokenMasks:
    """Fills one bit mask for all rows with a grammar, and applies it.

    Args:
        vocab_size: V.
    """

    def __init__(self, vocab_size: int) -> None:
        self._num_words = -(-vocab_size // _WORD_BITS)
        self._added = np.empty((self._num_words * 4, 8), dtype=np.float32)
        self._added_row = self._added.reshape(-1)
        self._executor: LLExecutor | None = None

    def apply(self, logits: torch.Tensor, sequences: Rows[Sequence], at: list[int]) -> None:
        """Exclude what does not fit, in place.

        Args:
            logits: [L, V] float32.
            sequences: L; those at `at` have a matcher. Choices that share a prefill are the same
                sequence.
            at: rows with a grammar.
        """
        matchers = [matcher for i in at if (matcher := sequences[i].matcher) is not None]
        different = list(dict.fromkeys(matchers))
        masks = self._fill(different)
        if len(different) < len(at):
            index = {matcher: i for i, matcher in enumerate(different)}
            masks = masks[[index[matcher] for matcher in matchers]]
        self.exclude(logits, at, masks)
        for i, matcher in zip(at, matchers, strict=True):
            ignored = matcher.ends - sequences[i].stop_ids
            # Where nothing else can follow, what ends an output ends this one, too.
            if ignored and not matcher.is_complete:
                logits[i, list(ignored)] = -torch.inf

    def _fill(self, matchers: list[Matcher]) -> npt.NDArray[np.int32]:
        """Bit masks [M, W]; a matcher in error gets no bit."""
        masks = np.zeros((len(matchers), self._num_words), dtype=np.int32)
        if len(matchers) == 1:
            fill_next_token_bitmask(matchers[0].state, masks)
        else:
            if self._executor is None:
                self._executor = LLExecutor()
            states = [(matcher.state, i) for i, matcher in enumerate(matchers)]
            fill_next_token_bitmask_par(self._executor, states, masks)
        for i, matcher in enumerate(matchers):
            if matcher.state.is_error():
                masks[i] = 0
        return masks

    def _exclude_from(self, row: npt.NDArray[np.float32], mask: npt.NDArray[np.int32]) -> None:
        words = np.flatnonzero(mask)
        if len(words) > _FEW_WORDS:
            np.take(_ADDED, mask.view(np.uint8), axis=0, out=self._added, mode="clip")
            row += self._added_row[: len(row)]
            return
        # Most places in a grammar allow a few tokens: only those are touched.
        bits = np.unpackbits(mask[words].view(np.uint8), bitorder="little").reshape(-1, _WORD_BITS)
        which, bit = np.nonzero(bits)
        allowed = words[which] * _WORD_BITS + bit
        allowed = allowed[allowed < len(row)]
        kept = row[allowed]
        row.fill(-np.inf)
        row[allowed] = kept

    def exclude(self, logits: torch.Tensor, at: list[int], masks: npt.NDArray[np.int32]) -> None:
        """Set logits to minus infinity where a bit is 0.

        Zero or minus infinity is added: a masked fill takes five times as long on a CPU.

        Args:
            logits: [L, V] float32, changed in place.
            at: the rows that the masks are for, ascending.
            masks: [len(at), W], lowest bit first.
        """
        vocab_size = logits.shape[1]
        if logits.device.type == "cpu":
            # Row by row: one row's memory stays in the processor's cache.
            rows = logits.numpy()
            for i, mask in zip(at, masks, strict=True):
                self._exclude_from(rows[i], mask)
            return
        words = torch.from_numpy(~masks).to(logits.device, non_blocking=True)
        shifts = torch.arange(_WORD_BITS, dtype=torch.int32, device=logits.device)
        bits = (words.unsqueeze(-1) >> shifts).bitwise_and_(1).flatten(1)[:, :vocab_size]
        added = bits.mul_(_MINUS_INFINITY).view(torch.float32)
        if len(at) == len(logits):
            logits += added
        else:
            logits[torch.tensor(at, device=logits.device)] += added
