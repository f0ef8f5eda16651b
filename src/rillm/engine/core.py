"""EngineCore: schedule, forward, sample, update. Synchronous, one thread, no text."""

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from rillm.engine.batch_builder import BatchBuilder
from rillm.engine.block_pool import BlockPool
from rillm.engine.config import EngineConfig, EngineInfo
from rillm.engine.finishing import failures
from rillm.engine.grammars import GrammarCompiler
from rillm.engine.logprobs import top_logprobs
from rillm.engine.messages import (
    Commands,
    EngineRequest,
    StepOutputs,
    TokenDelta,
    TokenSamplingParams,
)
from rillm.engine.plan import EnginePlan, plan
from rillm.engine.sampler import Sampler
from rillm.engine.sampling_batch import Row
from rillm.engine.scheduled_batch import SampledToken, ScheduledBatch
from rillm.engine.scheduler import Scheduler
from rillm.engine.sequence import Sequence
from rillm.engine.step_board import StepBoard
from rillm.errors import ConfigError
from rillm.models.batch import ForwardBatch
from rillm.models.config import ModelConfig, read_generation_config
from rillm.models.kv_cache import KVCache
from rillm.models.loader import default_dtype, load_model

_PROMPT_LOGPROB_ROWS = 64
"""Prompt positions whose logits are held at a time."""
_PROBE = EngineRequest(
    request_id=0,
    prompt_token_ids=[0],
    params=TokenSamplingParams(seed=0, max_tokens=1, temperature=0.0),
)
"""A request that any working engine can compute."""


class EngineCore:
    """One model, its KV cache and its step loop.

    Args:
        config: what was asked for.
        board: where it writes down whose tokens are in a step; None where nobody reads it.

    Raises:
        ConfigError: the model cannot be loaded, or a setting is out of range.
    """

    def __init__(self, config: EngineConfig, board: StepBoard | None = None) -> None:
        started_s = time.monotonic()
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        path = Path(config.model_path)
        self.model_config = ModelConfig.from_directory(path)
        tokenizer_path = None if config.tokenizer_path is None else Path(config.tokenizer_path)
        # First of all, so that its thread reads the vocabulary while the weights load here.
        self.grammars = GrammarCompiler(
            tokenizer_path,
            self.model_config.vocab_size,
            [*read_generation_config(path).eos_token_ids, *self.model_config.eos_token_ids],
        )
        self.device = _device(config.device)
        self.dtype = _dtype(config, self.model_config, self.device)
        self.model = load_model(
            path,
            self.model_config,
            dtype=self.dtype,
            device=self.device,
            enforce_eager=config.enforce_eager,
        )
        block_bytes = KVCache.block_bytes(self.model_config, config.block_size, self.dtype)
        self.plan = plan(
            config,
            self.model_config,
            block_bytes=block_bytes,
            free_bytes=_free_bytes(self.device, config.gpu_memory_utilization),
            on_gpu=self.device.type != "cpu",
        )
        self.kv_cache = KVCache(
            self.model_config,
            self.plan.num_blocks + 1,
            self.plan.block_size,
            self.dtype,
            self.device,
        )
        self.scheduler = Scheduler(
            BlockPool(self.plan.num_blocks),
            block_size=self.plan.block_size,
            max_num_seqs=self.plan.max_num_seqs,
            max_num_batched_tokens=self.plan.max_num_batched_tokens,
            enable_prefix_caching=config.enable_prefix_caching,
        )
        self._builder = BatchBuilder(
            block_size=self.plan.block_size,
            max_num_seqs=self.plan.max_num_seqs,
            max_blocks_per_seq=-(-self.plan.max_model_len // self.plan.block_size),
            device=self.device,
        )
        self._sampler = Sampler(self.model_config.vocab_size, self.device)
        self._board = board or StepBoard(self.plan.max_num_seqs)
        self._board.close_file()
        self._failures: list[TokenDelta] = []
        self.info = self._info(self.plan, block_bytes, time.monotonic() - started_s)

    def _info(self, sizes: EnginePlan, block_bytes: int, load_seconds: float) -> EngineInfo:
        return EngineInfo(
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            max_model_len=sizes.max_model_len,
            max_num_seqs=sizes.max_num_seqs,
            max_num_batched_tokens=sizes.max_num_batched_tokens,
            block_size=sizes.block_size,
            num_blocks=sizes.num_blocks,
            kv_cache_bytes=sizes.num_blocks * block_bytes,
            memory_bytes=_memory_bytes(self.device),
            load_seconds=load_seconds,
        )

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self.scheduler.has_work or bool(self._failures)

    @property
    def is_blocked(self) -> bool:
        """Whether all there is waits for `grammars`, so that a step would do nothing yet."""
        return self.scheduler.is_blocked and not self._failures

    def apply(self, commands: Commands) -> None:
        """Do what the client asked for, before the next step; who cannot be taken in ends in it."""
        for replay in commands.replays:
            self._admit(replay.request, partial(self.scheduler.resume, replay))
        for request in commands.requests:
            self._admit(request, partial(self.scheduler.add, request))
        for request_id, choice in commands.aborts:
            self.scheduler.abort(request_id, choice)
        if commands.reset_prefix_cache:
            self.scheduler.pool.forget_all()

    def _admit(self, request: EngineRequest, queue: Callable[[], None]) -> None:
        self._board.enter([request.request_id])
        try:
            queue()
            if request.params.grammar is not None:
                self.grammars.compile(request.request_id, request.params.grammar)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is about this request
            traceback.print_exc()
            self._failures += failures(request, _describe(error), range(request.n))
        self._board.leave()

    @torch.inference_mode()
    def step(self) -> StepOutputs:
        """Run one step of everything that fits into it.

        A step that fails is taken apart: each of its sequences runs alone once, and the one that
        fails alone ends with an error.

        Returns:
            The new tokens of every sequence that has any.

        Raises:
            Exception: the engine itself has failed, and no request can be blamed for it.
        """
        deltas, self._failures = self._failures, []
        deltas += self._take_grammars()
        batch = self.scheduler.schedule()
        if batch.sequences:
            request_ids = [sequence.request.request_id for sequence in batch.sequences]
            num_tokens = sum(batch.num_scheduled_tokens)
            self._board.enter(request_ids, num_tokens)
            started_s = time.monotonic()
            try:
                sampled = self._compute(batch)
            except Exception as error:  # noqa: BLE001 - sorted out below
                traceback.print_exc()
                deltas += self._isolate(batch, error)
            else:
                self.scheduler.pacer.observe(
                    num_tokens, num_tokens - batch.num_decodes, time.monotonic() - started_s
                )
                deltas += self.scheduler.update(batch, sampled)
            self._board.leave()
        return StepOutputs(deltas, self.scheduler.stats())

    def _isolate(self, batch: ScheduledBatch, error: Exception) -> list[TokenDelta]:
        """Find out whose fault it is that a step failed."""
        if len(batch.sequences) > 1:
            self.scheduler.quarantine(batch)
            return []
        deltas = self.scheduler.fail(batch.sequences[0].request.request_id, _describe(error))
        self._probe()
        return deltas

    def _probe(self) -> None:
        """Compute something simple.

        Raises:
            Exception: not even that works: it is the engine, not the request.
        """
        sequence = Sequence.start(_PROBE, 0, 0.0)
        # There is a free block: the sequence that failed has just left one.
        sequence.block_ids = self.scheduler.pool.allocate(1)
        try:
            self._compute(ScheduledBatch([sequence], [1]))
        finally:
            self.scheduler.pool.release(sequence.block_ids)

    def _compute(self, batch: ScheduledBatch) -> list[SampledToken]:
        """Run the model and the sampler; the scheduler has not been told anything yet."""
        if batch.block_copies:
            self.kv_cache.copy_blocks(batch.block_copies)
        forward = self._builder.build(batch)
        hidden = self.model.forward(forward, self.kv_cache)
        rows = _rows(batch)
        self._report_prompts(hidden, batch)
        if not rows:
            return []
        logits = self.model.compute_logits(_sampled_hidden(hidden, forward))
        return self._sampler.sample(logits, rows)

    def _take_grammars(self) -> list[TokenDelta]:
        """Let the requests run whose grammars are compiled; end those that have none."""
        failed: list[TokenDelta] = []
        for compiled in self.grammars.take():
            if compiled.matcher is not None:
                self.scheduler.release(compiled.request_id, compiled.matcher)
            else:
                failed += self.scheduler.fail(compiled.request_id, compiled.error or "")
        return failed

    def _report_prompts(self, hidden: torch.Tensor, batch: ScheduledBatch) -> None:
        """Collect what sequences ask to know of their prompts.

        Args:
            hidden: [T, H], all rows of the step.
            batch: where each sequence's rows are.
        """
        end = 0
        for sequence, count in zip(batch.sequences, batch.num_scheduled_tokens, strict=True):
            start, end = end, end + count
            params = sequence.request.params
            wanted = params.num_prompt_logprobs is not None
            wanted |= params.prompt_logprob_token_ids is not None
            wanted |= sequence.request.pools
            # A preempted sequence recomputes its prompt, long after it was reported.
            if wanted and sequence.num_output_tokens == 0:
                self._report_prompt(sequence, hidden[start:end])

    def _report_prompt(self, sequence: Sequence, hidden: torch.Tensor) -> None:
        """Add the prompt positions of this step; each row predicts the position after it."""
        params = sequence.request.params
        if sequence.request.pools:
            sums = self.model.normalize(hidden).sum(0, dtype=torch.float32).tolist()
            before = sequence.hidden_sum or [0.0] * len(sums)
            sequence.hidden_sum = [a + b for a, b in zip(before, sums, strict=True)]
            return
        first = sequence.num_computed_tokens
        following = sequence.request.prompt_token_ids[first + 1 : first + 1 + len(hidden)]
        for offset in range(0, len(following), _PROMPT_LOGPROB_ROWS):
            targets = following[offset : offset + _PROMPT_LOGPROB_ROWS]
            logits = self.model.compute_logits(hidden[offset : offset + len(targets)])
            if params.num_prompt_logprobs is not None:
                ids = torch.tensor(targets, device=logits.device)
                counts = [params.num_prompt_logprobs] * len(targets)
                sequence.prompt_logprobs += top_logprobs(logits, ids, counts)
            if params.prompt_logprob_token_ids is not None:
                self._score_candidates(sequence, logits, first + offset)

    def _score_candidates(self, sequence: Sequence, logits: torch.Tensor, at: int) -> None:
        """Score the chosen ids of each position; an id of -1 pads and scores nothing."""
        params = sequence.request.params
        table = params.prompt_logprob_token_ids or []
        logprobs = torch.log_softmax(logits, dim=-1)
        for offset, row in enumerate(logprobs):
            index = at + offset - params.prompt_logprob_start
            if 0 <= index < len(table):
                ids = [token_id for token_id in table[index] if token_id >= 0]
                values = row[torch.tensor(ids, dtype=torch.int64, device=row.device)]
                sequence.prompt_token_id_logprobs.append(values.tolist())


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _rows(batch: ScheduledBatch) -> list[Row]:
    """What to sample: each sequence that catches up with this step, for each of its choices."""
    rows: list[Row] = []
    for sequence, count in zip(batch.sequences, batch.num_scheduled_tokens, strict=True):
        if count == sequence.num_uncomputed_tokens:
            if sequence.num_forks == 1:
                rows.append((sequence, sequence.choice))
            else:
                rows += [(sequence, choice) for choice in range(sequence.num_forks)]
    return rows


def _sampled_hidden(hidden: torch.Tensor, forward: ForwardBatch) -> torch.Tensor:
    """Rows of the hidden states to sample from, [L, H]."""
    is_all = forward.num_decodes == len(hidden) == len(forward.logits_indices)
    return hidden if is_all else hidden.index_select(0, forward.logits_indices)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu" or (name.split(":")[0] == "cuda" and torch.cuda.is_available()):
        return torch.device(name)
    raise ConfigError(f"device is {name!r}, must be auto, cpu, or cuda where there is a GPU")


def _dtype(config: EngineConfig, model: ModelConfig, device: torch.device) -> torch.dtype:
    name = config.dtype
    dtypes = {
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "half": torch.float16,
        "float32": torch.float32,
        "float": torch.float32,
    }
    if name == "auto":
        return default_dtype(model, device, enforce_eager=config.enforce_eager)
    if name not in dtypes:
        raise ConfigError(f"dtype is {name!r}, must be auto or one of {', '.join(dtypes)}")
    return dtypes[name]


def _free_bytes(device: torch.device, utilization: float) -> int:
    """Memory the KV cache may take, in bytes."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, int(free - total * (1 - utilization)))
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _memory_bytes(device: torch.device) -> int:
    """Memory taken so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
