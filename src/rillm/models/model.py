"""Model: token ids in, logits out, by the decoder that is quickest for a step."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from rillm.models.batch import ForwardBatch
from rillm.models.kv_cache import KVCache

_FEW_ROWS = 32
"""Up to which the reading of the weights takes as long as the products, or longer."""


class Decoder(Protocol):
    """All layers of a model, and what makes scores of their result."""

    def forward(self, batch: ForwardBatch, kv_cache: KVCache) -> Tensor:
        """See `Model.forward`."""

    def normalize(self, hidden: Tensor) -> Tensor:
        """See `Model.normalize`."""

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """See `Model.compute_logits`."""


class Model:
    """A model, run by one or two decoders; keys and values are kept in a KVCache.

    To be called in torch's inference mode.
    """

    def __init__(self, few: Decoder, many: Decoder) -> None:
        """Join them.

        Args:
            few: for steps of a few decodes, and a few rows of logits.
            many: for all others; may be the same.
        """
        self._few = few
        self._many = many

    def forward(self, batch: ForwardBatch, kv_cache: KVCache) -> Tensor:
        """Run the layers, and write the keys and values of the batch's tokens.

        Args:
            batch: T tokens.
            kv_cache: holds the context of every sequence of the batch; of the model's dtype.

        Returns:
            [T, hidden], of the dtype of what is added up along the layers, before the final norm:
            `compute_logits` does that for the rows that need it.
        """
        num_tokens = len(batch.token_ids)
        is_few = num_tokens == batch.num_decodes and num_tokens <= _FEW_ROWS
        return (self._few if is_few else self._many).forward(batch, kv_cache)

    def normalize(self, hidden: Tensor) -> Tensor:
        """The model's last hidden state, of rows [L, hidden] of what `forward` returned."""
        return self._many.normalize(hidden)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token.

        Args:
            hidden: [L, hidden], rows of what `forward` returned.

        Returns:
            [L, V] float32.
        """
        return (self._few if len(hidden) <= _FEW_ROWS else self._many).compute_logits(hidden)
