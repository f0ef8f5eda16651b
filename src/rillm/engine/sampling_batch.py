"""SamplingBatch: the sampling options of a step's rows as tensors.

Built when the set of rows changes and kept as long as it stays the same, which is nearly every
step of a decode. Only positions and token counts move on from step to step.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch

from rillm.engine.messages import TokenSamplingParams
from rillm.engine.randomness import stream_keys, uniforms
from rillm.engine.sequence import Sequence

Row = tuple[Sequence, int]
"""A sequence and the choice to draw for; several choices while a prefill is shared."""


class SamplingBatch:
    """Options of L rows over a vocabulary of V tokens.

    Args:
        rows: what to sample, in order of the logits.
        vocab_size: V.
        device: of the logits.
    """

    def __init__(self, rows: list[Row], vocab_size: int, device: torch.device) -> None:
        self.rows = rows
        self._device = device
        params = [sequence.request.params for sequence, _ in rows]
        self.sampled = [i for i, p in enumerate(params) if p.temperature > 0]
        sampled_params = [params[i] for i in self.sampled]
        self._keys = stream_keys(
            np.array([p.seed for p in sampled_params], dtype=np.int64),
            np.array([rows[i][1] for i in self.sampled], dtype=np.int64),
        )
        self._sampled_sequences = [rows[i][0] for i in self.sampled]
        self.sampled_rows = self._ints(self.sampled)
        self.temperature = self._column([p.temperature for p in sampled_params])
        self.min_p = _if_any(self._column([p.min_p for p in sampled_params]), 0.0)
        self.top_p = self._column([p.top_p for p in sampled_params])
        self.top_k = self._ints(
            [min(p.top_k, vocab_size) or vocab_size for p in sampled_params]
        ).unsqueeze(1)
        self.filters = any(p.top_p < 1.0 or 0 < p.top_k < vocab_size for p in sampled_params)
        self.penalties = Penalties.of(rows, vocab_size, device)
        self.bias = _LogitBias.of(params, device)
        self.allowed = _allowed_mask(rows, vocab_size, device)
        self.with_grammar = [i for i, (s, _) in enumerate(rows) if s.matcher is not None]
        self.with_bad_words = [i for i, p in enumerate(params) if p.bad_words]
        self.with_min_tokens = [
            i for i, (s, _) in enumerate(rows) if s.request.params.min_tokens and s.stop_ids
        ]
        self.with_logprobs = [
            i
            for i, p in enumerate(params)
            if p.num_logprobs is not None or p.logprob_token_ids is not None
        ]

    def uniforms(self) -> torch.Tensor:
        """Draws for the sampled rows at their current positions, [S] float64."""
        positions = np.array([len(s.token_ids) for s in self._sampled_sequences], dtype=np.int64)
        return torch.from_numpy(uniforms(self._keys, positions)).to(self._device)

    def _ints(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _column(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device).unsqueeze(1)


class Penalties:
    """Repetition, presence and frequency penalties of the rows that have any.

    Holds the counts of generated tokens, moved on by one token a row and step.
    """

    def __init__(self, rows: list[Row], at: list[int], vocab_size: int, device: torch.device):
        self.at = torch.tensor(at, device=device)
        self._sequences = [rows[i][0] for i in at]
        self._lengths = [len(s.token_ids) for s in self._sequences]
        counts = np.zeros((len(at), vocab_size), dtype=np.float32)
        in_prompt = np.zeros((len(at), vocab_size), dtype=np.bool_)
        for row, sequence in enumerate(self._sequences):
            in_prompt[row, sequence.request.prompt_token_ids] = True
            np.add.at(counts[row], sequence.token_ids[sequence.num_prompt_tokens :], 1.0)
        self._counts = torch.from_numpy(counts).to(device)
        self._in_prompt = torch.from_numpy(in_prompt).to(device)
        params = [sequence.request.params for sequence in self._sequences]
        self._repetition = self._column([p.repetition_penalty for p in params])
        self._presence = self._column([p.presence_penalty for p in params])
        self._frequency = self._column([p.frequency_penalty for p in params])

    @classmethod
    def of(cls, rows: list[Row], vocab_size: int, device: torch.device) -> Penalties | None:
        """The penalties of these rows, or None when no row has one."""
        at = [i for i, (s, _) in enumerate(rows) if _has_penalty(s.request.params)]
        return cls(rows, at, vocab_size, device) if at else None

    def apply(self, logits: torch.Tensor) -> None:
        """Change the logits of penalised rows in place.

        Args:
            logits: [L, V] float32, all rows of the batch.

        Source: repetition penalty, Keskar et al. 2019 (arXiv:1909.05858); presence and
        frequency as in the OpenAI API reference.
        """
        self._count_new_tokens()
        chosen = logits[self.at]
        generated = self._counts > 0
        seen = self._in_prompt | generated
        scaled = torch.where(chosen > 0, chosen / self._repetition, chosen * self._repetition)
        chosen = torch.where(seen, scaled, chosen)
        chosen -= self._frequency * self._counts + self._presence * generated
        logits[self.at] = chosen

    def _count_new_tokens(self) -> None:
        rows, tokens = [], []
        for row, sequence in enumerate(self._sequences):
            for token_id in sequence.token_ids[self._lengths[row] :]:
                rows.append(row)
                tokens.append(token_id)
            self._lengths[row] = len(sequence.token_ids)
        if rows:
            one = torch.ones((), device=self._counts.device)
            index = (torch.tensor(rows), torch.tensor(tokens))
            self._counts.index_put_(
                tuple(i.to(self._counts.device) for i in index), one, accumulate=True
            )

    def _column(self, values: list[float]) -> torch.Tensor:
        device = self._in_prompt.device
        return torch.tensor(values, dtype=torch.float32, device=device).unsqueeze(1)


class _LogitBias:
    """Biases of all rows as one scatter."""

    def __init__(self, params: list[TokenSamplingParams], device: torch.device) -> None:
        biases = [(row, p.logit_bias) for row, p in enumerate(params) if p.logit_bias]
        rows = chain.from_iterable([row] * len(bias) for row, bias in biases)
        tokens = chain.from_iterable(bias for _, bias in biases)
        values = chain.from_iterable(bias.values() for _, bias in biases)
        self._index = (
            torch.tensor(list(rows), device=device),
            torch.tensor(list(tokens), device=device),
        )
        self._values = torch.tensor(list(values), dtype=torch.float32, device=device)

    @classmethod
    def of(cls, params: list[TokenSamplingParams], device: torch.device) -> _LogitBias | None:
        return cls(params, device) if any(p.logit_bias for p in params) else None

    def apply(self, logits: torch.Tensor) -> None:
        """Add to the logits, [L, V] float32, in place."""
        logits.index_put_(self._index, self._values, accumulate=True)


def _has_penalty(params: TokenSamplingParams) -> bool:
    return (
        params.repetition_penalty != 1.0
        or params.presence_penalty != 0.0
        or params.frequency_penalty != 0.0
    )


def _allowed_mask(rows: list[Row], vocab_size: int, device: torch.device) -> torch.Tensor | None:
    """[L, V] bool, True where a row with a whitelist may not go; None without whitelists."""
    if not any(sequence.request.params.allowed_token_ids for sequence, _ in rows):
        return None
    forbidden = np.zeros((len(rows), vocab_size), dtype=np.bool_)
    for row, (sequence, _) in enumerate(rows):
        allowed = sequence.request.params.allowed_token_ids
        if allowed:
            forbidden[row] = True
            forbidden[row, allowed] = False
            if sequence.matcher is not None:
                # When an output ends is the grammar's to say.
                forbidden[row, list(sequence.matcher.ends)] = False
    return torch.from_numpy(forbidden).to(device)


def _if_any(column: torch.Tensor, neutral: float) -> torch.Tensor | None:
    return column if bool((column != neutral).any()) else None
