"""EngineCore: schedule, forward, sample, update. Synchronous, one thread, no text."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

import torch

from rillm.engine.batch_builder import BatchBuilder
from rillm.engine.block_pool import BlockPool
from rillm.engine.config import EngineConfig, EngineInfo
from rillm.engine.grammars import GrammarCompiler
from rillm.engine.logprobs import top_logprobs
from rillm.engine.messages import Commands, StepOutputs, TokenDelta
from rillm.engine.plan import EnginePlan, plan
from rillm.engine.sampler import Sampler
from rillm.engine.sampling_batch import Row
from rillm.engine.scheduler import ScheduledBatch, Scheduler
from rillm.engine.sequence import Sequence
from rillm.errors import ConfigError
from rillm.models.batch import ForwardBatch
from rillm.models.config import ModelConfig, read_generation_config
from rillm.models.kv_cache import KVCache
from rillm.models.loader import default_dtype, load_model

_PROMPT_LOGPROB_ROWS = 64
"""Prompt positions whose logits are held at a time."""


class EngineCore:
    """One model, its KV cache and its step loop.

    Args:
        config: what was asked for.

    Raises:
        ConfigError: the model cannot be loaded, or a setting is out of range.
    """

    def __init__(self, config: EngineConfig) -> None:
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
        self.dtype = _dtype(config.dtype, self.model_config, self.device)
        self.model = load_model(path, self.model_config, dtype=self.dtype, device=self.device)
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
        return self.scheduler.has_work

    @property
    def is_blocked(self) -> bool:
        """Whether all there is waits for `grammars`, so that a step would do nothing yet."""
        return self.scheduler.is_blocked

    def apply(self, commands: Commands) -> None:
        """Do what the client asked for, before the next step."""
        for request in commands.requests:
            self.scheduler.add(request)
            if request.params.grammar is not None:
                self.grammars.compile(request.request_id, request.params.grammar)
        for request_id, choice in commands.aborts:
            self.scheduler.abort(request_id, choice)
        if commands.reset_prefix_cache:
            self.scheduler.pool.forget_all()

    @torch.inference_mode()
    def step(self) -> StepOutputs:
        """Run one step of everything that fits into it.

        Returns:
            The new tokens of every sequence that has any.
        """
        failed = self._take_grammars()
        batch = self.scheduler.schedule()
        if not batch.sequences:
            return StepOutputs(failed, self.scheduler.stats())
        if batch.block_copies:
            self.kv_cache.copy_blocks(batch.block_copies)
        forward = self._builder.build(batch)
        hidden = self.model(forward, self.kv_cache)
        rows = _rows(batch)
        self._report_prompts(hidden, batch)
        sampled = []
        if rows:
            logits = self.model.compute_logits(_sampled_hidden(hidden, forward))
            sampled = self._sampler.sample(logits, rows)
        deltas = self.scheduler.update(batch, sampled)
        return StepOutputs(failed + deltas, self.scheduler.stats())

    def _take_grammars(self) -> list[TokenDelta]:
        """Let the requests run whose grammars are compiled; end those that have none."""
        failed = []
        for compiled in self.grammars.take():
            if compiled.matcher is not None:
                self.scheduler.release(compiled.request_id, compiled.matcher)
            elif delta := self.scheduler.fail(compiled.request_id, compiled.error or ""):
                failed.append(delta)
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


def _dtype(name: str, model: ModelConfig, device: torch.device) -> torch.dtype:
    dtypes = {
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "half": torch.float16,
        "float32": torch.float32,
        "float": torch.float32,
    }
    if name == "auto":
        return default_dtype(model, device)
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
