"""Scheduler: which sequences run in the next step, and what becomes of their tokens.

Owns the waiting and running sequences. Every step it hands out one token budget: running
decodes first, then running prefill chunks, then waiting sequences. Beside decodes, prefill gets
no more than a step can take without its readers feeling it, so that a long prompt never stalls
one. When blocks run out, the last running sequence is preempted: its blocks are released and it
starts over from the prefix cache when there is room; its reader sees a pause.

A sequence under suspicion runs in steps of its own until it has got a token: should it fail, or
take the process with it, nobody else is there.

Source: continuous batching, Yu et al. 2022 (Orca, OSDI); chunked prefill with piggybacked
decodes, Agrawal et al. 2023 (arXiv:2308.16369).
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable
from operator import attrgetter

from rillm.engine.block_pool import BlockPool, block_hash
from rillm.engine.finishing import advance, failures
from rillm.engine.grammars import Matcher
from rillm.engine.messages import EngineRequest, Replay, StepStats, TokenDelta
from rillm.engine.pacing import PrefillPacer
from rillm.engine.scheduled_batch import SampledToken, ScheduledBatch
from rillm.engine.sequence import Sequence
from rillm.engine.waiting import OUTPUT_WEIGHT, WaitingQueue

_by_order = attrgetter("order")


class Scheduler:
    """Admission, token budget, blocks, preemption and the end of sequences.

    Args:
        pool: the blocks; must hold at least one sequence of the longest length.
        block_size: token positions of a block.
        max_num_seqs: most sequences in a step.
        max_num_batched_tokens: most tokens in a step, at least `max_num_seqs`.
        enable_prefix_caching: look for, and remember, full blocks.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        pool: BlockPool,
        *,
        block_size: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        enable_prefix_caching: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = pool
        self.block_size = block_size
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.enable_prefix_caching = enable_prefix_caching
        self.pacer = PrefillPacer(max_num_batched_tokens)
        self._clock = clock
        self._waiting = WaitingQueue()
        self._running: list[Sequence] = []
        self._held: dict[int, list[Sequence]] = {}
        self._live: dict[int, list[Sequence]] = {}
        self._suspects: list[Sequence] = []
        self._num_reserved = 0
        self._num_arrivals = 0
        self._num_preemptions = 0

    @property
    def has_work(self) -> bool:
        """Whether any sequence is waiting or running."""
        return bool(self._running or self._waiting or self._held)

    @property
    def is_blocked(self) -> bool:
        """Whether there are sequences, and all of them wait for their grammars."""
        return bool(self._held) and not (self._running or self._waiting)

    def stats(self) -> StepStats:
        """Counters for the client."""
        return StepStats(
            num_running=len(self._running),
            num_waiting=len(self._waiting) + sum(map(len, self._held.values())),
            num_free_blocks=self.pool.num_free,
            num_preemptions=self._num_preemptions,
        )

    def add(self, request: EngineRequest) -> None:
        """Queue a request that was checked by the client, or hold it until its grammar comes."""
        self._queue(request, [Sequence.start(request, self._num_arrivals, self._clock())])

    def resume(self, replay: Replay) -> None:
        """Queue what is left of a request that another core has begun."""
        members = Sequence.resume(replay, self._num_arrivals, self._clock())
        self._queue(replay.request, members)
        self._suspect([member for member in members if member.choice in replay.suspects])

    def _queue(self, request: EngineRequest, members: list[Sequence]) -> None:
        self._num_arrivals += 1
        self._live[request.request_id] = list(members)
        if request.params.grammar is not None:
            self._held[request.request_id] = members
            return
        for sequence in members:
            self._waiting.add(sequence)

    def release(self, request_id: int, matcher: Matcher) -> None:
        """Give a request its compiled grammar; unknown ids are ignored: it was aborted."""
        for sequence in self._held.pop(request_id, []):
            sequence.follow(matcher.fork())
            self._waiting.add(sequence)

    def quarantine(self, batch: ScheduledBatch) -> None:
        """Set the sequences of a step that failed back; from now on each of them runs alone."""
        for sequence in batch.sequences:
            self._preempt(sequence)
        self._suspect(batch.sequences)

    def _suspect(self, sequences: list[Sequence]) -> None:
        self._suspects += sequences
        # What has only just begun has gone wrong more often than what has long been running.
        self._suspects.sort(key=attrgetter("num_output_tokens"))

    def fail(self, request_id: int, error: str) -> list[TokenDelta]:
        """End all choices of a request with an error; unknown ids are ignored."""
        members = list(self._live.get(request_id, []))
        for sequence in members:
            self._retire(sequence)
        return [delta for each in members for delta in failures(each.request, error, each.choices)]

    def abort(self, request_id: int, choice: int | None = None) -> None:
        """Drop a request, or one of its choices, and free its blocks; unknown ids are ignored.

        While a prefill is shared, its sequence stands for all choices and goes with the request
        only.
        """
        for sequence in list(self._live.get(request_id, [])):
            if choice is None or (choice == sequence.choice and sequence.num_forks == 1):
                self._retire(sequence)

    # ---- choosing a step -------------------------------------------------------------------

    def schedule(self) -> ScheduledBatch:
        """Choose the sequences of the next step and give them the blocks they write to.

        Returns:
            The batch; empty when nothing waits or runs.
        """
        batch, budget = ScheduledBatch(), self.max_num_batched_tokens
        for suspect in self._suspects:
            if suspect.request.request_id not in self._held:
                self._schedule_alone(suspect, batch, budget)
                return batch
        before = self._num_preemptions
        for sequence in [s for s in self._running if s.num_uncomputed_tokens == 1]:
            if sequence.block_ids and self._make_room(sequence, 1, batch):
                batch.add(sequence, 1)
                budget -= 1
        batch.num_decodes = len(batch.sequences)
        if batch.num_decodes:
            budget = min(budget, self.pacer.budget)
        for sequence in [s for s in self._running if s.num_uncomputed_tokens > 1]:
            chunk = min(sequence.num_uncomputed_tokens, budget)
            if chunk and sequence.block_ids and self._make_room(sequence, chunk, batch):
                batch.add(sequence, chunk)
                budget -= chunk
        is_short = before != self._num_preemptions
        while self._waiting and budget and not is_short:
            chunk = self._admit(self._waiting.first(), batch, budget)
            budget -= chunk
            is_short = not chunk
        return batch

    def _schedule_alone(self, sequence: Sequence, batch: ScheduledBatch, budget: int) -> None:
        """Make a step of one sequence, whoever has to give way."""
        missing = self._num_blocks(len(sequence.token_ids)) - len(sequence.block_ids)
        others = [other for other in self._running if other is not sequence]
        # One more than it needs, for a copy on write.
        while others and self.pool.num_free <= missing:
            self._preempt(others.pop())
        if sequence in self._waiting:
            while not self._admit(sequence, batch, budget):
                self._preempt(others.pop())
            return
        chunk = min(sequence.num_uncomputed_tokens, budget)
        self._make_room(sequence, chunk, batch)
        batch.add(sequence, chunk)
        batch.num_decodes = int(sequence.num_uncomputed_tokens == 1)

    def _make_room(self, sequence: Sequence, num_tokens: int, batch: ScheduledBatch) -> bool:
        """Give a running sequence the blocks for its next tokens, preempting later ones."""
        computed = sequence.num_computed_tokens
        last = computed // self.block_size
        copy_on_write = computed % self.block_size != 0 and self.pool.is_shared(
            sequence.block_ids[last]
        )
        missing = self._num_blocks(computed + num_tokens) - len(sequence.block_ids)
        if not missing and not copy_on_write:
            return True
        while self.pool.num_free < missing + copy_on_write:
            victim = self._running[-1]
            if victim in batch.sequences:
                return False
            self._preempt(victim)
            if victim is sequence:
                return False
        if copy_on_write and self.pool.is_shared(sequence.block_ids[last]):
            (copy,) = self.pool.allocate(1)
            batch.block_copies.append((sequence.block_ids[last], copy))
            self.pool.release([sequence.block_ids[last]])
            sequence.block_ids[last] = copy
        sequence.block_ids += self.pool.allocate(missing)
        sequence.block_table_version += 1
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._num_reserved -= sequence.num_forks
        self._release_blocks(sequence)
        sequence.num_computed_tokens = 0
        sequence.num_remembered_blocks = 0
        sequence.num_preemptions += 1
        if sequence.num_output_tokens == 0:
            # Not reported yet, and found again when the prompt is computed again.
            sequence.prompt_logprobs = []
            sequence.prompt_token_id_logprobs = []
            sequence.hidden_sum = []
        self._num_preemptions += 1
        self._waiting.add(sequence)

    def _admit(self, sequence: Sequence, batch: ScheduledBatch, budget: int) -> int:
        """Start a waiting sequence if there are rows and blocks for it.

        Returns:
            How much of the budget it takes, 0 if it has to wait.
        """
        if self._num_reserved + sequence.num_forks > self.max_num_seqs:
            return 0
        cached = self._cached_blocks(sequence)
        num_cached = len(cached) * self.block_size
        chunk = min(len(sequence.token_ids) - num_cached, budget)
        missing = self._num_blocks(num_cached + chunk) - len(cached)
        if missing > self.pool.num_free - self.pool.num_free_among(cached):
            return 0
        self._waiting.remove(sequence)
        self.pool.hold(cached)
        sequence.block_ids = cached + self.pool.allocate(missing)
        sequence.block_table_version += 1
        sequence.num_computed_tokens = num_cached
        sequence.num_remembered_blocks = len(cached)
        if sequence.num_cached_tokens is None:
            sequence.num_cached_tokens = num_cached
            sequence.scheduled_s = self._clock()
            self._waiting.charge(sequence.request.client, len(sequence.token_ids) - num_cached)
        insort(self._running, sequence, key=_by_order)
        self._num_reserved += sequence.num_forks
        batch.add(sequence, chunk)
        return chunk

    def _cached_blocks(self, sequence: Sequence) -> list[int]:
        """Find the blocks of the sequence's longest known prefix, short of its last token."""
        if not self.enable_prefix_caching or not sequence.request.read_prefix_cache:
            return []
        num_full = (len(sequence.token_ids) - 1) // self.block_size
        self._extend_hashes(sequence, num_full)
        return self.pool.find(sequence.block_hashes[:num_full])

    def _extend_hashes(self, sequence: Sequence, count: int) -> None:
        hashes = sequence.block_hashes
        for i in range(len(hashes), count):
            tokens = sequence.token_ids[i * self.block_size : (i + 1) * self.block_size]
            parent = hashes[-1] if hashes else None
            hashes.append(block_hash(parent, tokens, sequence.request.cache_salt))

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    # ---- after a step ----------------------------------------------------------------------

    def update(self, batch: ScheduledBatch, sampled: list[SampledToken]) -> list[TokenDelta]:
        """Count a step's tokens as computed and append what was sampled.

        Args:
            batch: what `schedule` returned, after its forward pass.
            sampled: one token for each choice of each sequence that caught up, in the batch's
                order, choices of a fork in ascending order.

        Returns:
            One delta for each sampled token.
        """
        now_s = self._clock()
        deltas: list[TokenDelta] = []
        tokens = iter(sampled)
        for sequence, count in zip(batch.sequences, batch.num_scheduled_tokens, strict=True):
            sequence.num_computed_tokens += count
            if sequence.num_computed_tokens // self.block_size > sequence.num_remembered_blocks:
                self._remember_full_blocks(sequence)
            if sequence.num_uncomputed_tokens == 0:
                family = self._fork(sequence)
                deltas += [self._append(member, next(tokens), now_s) for member in family]
        return deltas

    def _remember_full_blocks(self, sequence: Sequence) -> None:
        num_full = sequence.num_computed_tokens // self.block_size
        if self.enable_prefix_caching:
            self._extend_hashes(sequence, num_full)
            for i in range(sequence.num_remembered_blocks, num_full):
                self.pool.remember(sequence.block_ids[i], sequence.block_hashes[i])
        sequence.num_remembered_blocks = num_full

    def _append(self, sequence: Sequence, token: SampledToken, now_s: float) -> TokenDelta:
        """Add a sampled token to its sequence and end the sequence where it ends."""
        if sequence in self._suspects:
            self._suspects.remove(sequence)
        delta = advance(sequence, token, now_s)
        self._waiting.charge(sequence.request.client, OUTPUT_WEIGHT * len(delta.token_ids))
        if delta.finish_reason is not None:
            self._retire(sequence)
        return delta

    def _fork(self, parent: Sequence) -> list[Sequence]:
        """Start the other choices of a request whose prompt has just been prefilled.

        They share all its blocks; a partial last one is copied by whoever writes to it first.
        """
        members = [parent]
        for choice in range(1, parent.num_forks):
            fork = parent.fork(choice)
            self.pool.hold(fork.block_ids)
            insort(self._running, fork, key=_by_order)
            self._live[parent.request.request_id].append(fork)
            members.append(fork)
        parent.num_forks = 1
        return members

    def _retire(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is."""
        if sequence in self._running:
            self._running.remove(sequence)
            self._num_reserved -= sequence.num_forks
        elif (held := self._held.get(sequence.request.request_id)) is not None:
            held.remove(sequence)
            if not held:
                del self._held[sequence.request.request_id]
        else:
            self._waiting.remove(sequence)
        if sequence in self._suspects:
            self._suspects.remove(sequence)
        self._release_blocks(sequence)
        siblings = self._live[sequence.request.request_id]
        siblings.remove(sequence)
        if not siblings:
            del self._live[sequence.request.request_id]

    def _release_blocks(self, sequence: Sequence) -> None:
        self.pool.release(sequence.block_ids)
        sequence.block_ids = []
        sequence.block_table_version += 1

    def check(self) -> None:
        """Verify that sequences and pool agree.

        Raises:
            AssertionError: a block is lost, or held by nobody, or a row is miscounted.
        """
        self.pool.check()
        held: dict[int, int] = {}
        for sequence in [*self._running, *self._waiting]:
            for block_id in sequence.block_ids:
                held[block_id] = held.get(block_id, 0) + 1
        assert len(held) + self.pool.num_free == self.pool.num_blocks
        assert all(self.pool.is_shared(b) == (count > 1) for b, count in held.items())
        assert self._num_reserved == sum(s.num_forks for s in self._running)
        assert self._num_reserved <= self.max_num_seqs
