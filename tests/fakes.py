"""Stand-ins with exact, simple behaviour, for tests of what surrounds them.

`ScriptedModel` replaces the transformer: it reads each sequence's context back through the block
table, as attention does, so that a wrong block table, slot mapping or copy on write changes what
it reads and is noticed at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch

from rillm.engine.batch_builder import BatchBuilder
from rillm.engine.block_pool import BlockPool
from rillm.engine.messages import EngineRequest, TokenDelta, TokenSamplingParams
from rillm.engine.scheduled_batch import SampledToken, ScheduledBatch
from rillm.engine.scheduler import Scheduler

VOCAB_SIZE = 12


def engine_request(
    request_id: int,
    prompt_token_ids: list[int],
    *,
    max_tokens: int = 4,
    n: int = 1,
    priority: int = 0,
    cache_salt: str | None = None,
    read_prefix_cache: bool = True,
    client: str = "",
    **params: Any,
) -> EngineRequest:
    """A request with everything but the prompt left at a default."""
    return EngineRequest(
        request_id=request_id,
        prompt_token_ids=prompt_token_ids,
        params=TokenSamplingParams(
            **({"seed": request_id, "temperature": 0.0} | params), max_tokens=max_tokens
        ),
        n=n,
        priority=priority,
        cache_salt=cache_salt,
        read_prefix_cache=read_prefix_cache,
        client=client,
    )


def next_token(context: list[int], choice: int) -> int:
    """What the scripted model says after these tokens, from 0 to VOCAB_SIZE - 1."""
    return hashlib.blake2b(bytes([choice, *context]), digest_size=8).digest()[0] % VOCAB_SIZE


def run_alone(request: EngineRequest, choice: int) -> tuple[list[int], str]:
    """Output tokens and finish reason of one choice, by the definition."""
    context = list(request.prompt_token_ids)
    output: list[int] = []
    while True:
        token_id = next_token(context, choice)
        context.append(token_id)
        output.append(token_id)
        if token_id in request.params.stop_token_ids and len(output) > request.params.min_tokens:
            return output, "stop"
        if len(output) == request.params.max_tokens:
            return output, "length"


class ScriptedModel:
    """A KV cache that stores (position, token) at each slot, and a model that reads it back."""

    def __init__(self, *, block_size: int, max_num_seqs: int, max_model_len: int) -> None:
        self._block_size = block_size
        self._slots: dict[int, tuple[int, int]] = {}
        self._builder = BatchBuilder(
            block_size=block_size,
            max_num_seqs=max_num_seqs,
            max_blocks_per_seq=-(-max_model_len // block_size),
            device=torch.device("cpu"),
        )

    def step(self, batch: ScheduledBatch) -> list[SampledToken]:
        """Run a scheduled batch; fail where the context read differs from the real one."""
        copied = {to: self._block(source) for source, to in batch.block_copies}
        for block_id, content in copied.items():
            for offset, entry in enumerate(content):
                self._slots.pop(block_id * self._block_size + offset, None)
                if entry is not None:
                    self._slots[block_id * self._block_size + offset] = entry
        forward = self._builder.build(batch)
        slots = forward.slot_mapping.tolist()
        assert len(set(slots)) == len(slots), "two tokens were written to one slot"
        assert min(slots) >= self._block_size, "the null block was written to"
        written = zip(forward.positions.tolist(), forward.token_ids.tolist(), strict=True)
        self._slots.update(zip(slots, written, strict=True))
        sampled = []
        for row, sequence in enumerate(batch.sequences):
            table = forward.block_tables[row].tolist()
            seq_len = forward.seq_lens[row]
            context = [self._read(table, position) for position in range(seq_len)]
            assert context == list(enumerate(sequence.token_ids[:seq_len]))
            assert not any(table[-(-seq_len // self._block_size) :]), "padding is not null"
            if seq_len == len(sequence.token_ids):
                choices = range(sequence.choice, sequence.choice + sequence.num_forks)
                tokens = [token_id for _, token_id in context]
                sampled += [SampledToken(next_token(tokens, choice)) for choice in choices]
        assert len(sampled) == len(forward.logits_indices)
        return sampled

    def _block(self, block_id: int) -> list[tuple[int, int] | None]:
        start = block_id * self._block_size
        return [self._slots.get(slot) for slot in range(start, start + self._block_size)]

    def _read(self, table: list[int], position: int) -> tuple[int, int] | None:
        slot = table[position // self._block_size] * self._block_size
        return self._slots.get(slot + position % self._block_size)


class ScriptedEngine:
    """Scheduler, block pool and scripted model, stepped by hand; collects what comes out."""

    def __init__(
        self,
        *,
        num_blocks: int,
        block_size: int = 4,
        max_num_seqs: int = 8,
        max_num_batched_tokens: int = 64,
        enable_prefix_caching: bool = True,
    ) -> None:
        self.scheduler = Scheduler(
            BlockPool(num_blocks),
            block_size=block_size,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            enable_prefix_caching=enable_prefix_caching,
        )
        self.model = ScriptedModel(
            block_size=block_size,
            max_num_seqs=max_num_seqs,
            max_model_len=num_blocks * block_size,
        )
        self.outputs: dict[tuple[int, int], list[int]] = {}
        self.finish_reasons: dict[tuple[int, int], str] = {}
        self.num_scheduled_tokens = 0

    def step(
        self, inspect: Callable[[ScheduledBatch], None] = lambda batch: None
    ) -> list[TokenDelta]:
        """One step; shows what was scheduled before it runs, returns what came out of it."""
        batch = self.scheduler.schedule()
        inspect(batch)
        self.num_scheduled_tokens += sum(batch.num_scheduled_tokens)
        deltas = self.scheduler.update(batch, self.model.step(batch)) if batch.sequences else []
        for delta in deltas:
            key = (delta.request_id, delta.choice)
            assert key not in self.finish_reasons, "a token after the end"
            self.outputs.setdefault(key, []).extend(delta.token_ids)
            if delta.finish_reason is not None:
                self.finish_reasons[key] = delta.finish_reason
        return deltas

    def run(self) -> None:
        """Step until nothing waits or runs."""
        for _ in range(10_000):
            if not self.scheduler.has_work:
                return
            self.step()
        raise AssertionError("the engine does not come to an end")
