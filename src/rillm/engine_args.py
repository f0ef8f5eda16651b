"""EngineArgs: the settings of an engine, as a caller writes them or the command line names them.

The string under a field is its help text. Field names are vLLM's where it has the setting, so
that programs move over by changing an import.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rillm.engine.config import EngineConfig
from rillm.engine.supervision import Supervision
from rillm.errors import ConfigError
from rillm.models.hub import resolve_model

BUNDLED_MODEL = "bundled"
"""Name of the small model that comes with the package."""


@dataclass(kw_only=True)
class EngineArgs:
    """Settings of an engine. None means: decide from the model and the machine."""

    model: str = BUNDLED_MODEL
    """Directory or hub id of the model; `bundled` is the small one that comes along."""
    tokenizer: str | None = None
    """Directory or hub id of the tokenizer, if not the model's."""
    revision: str | None = None
    """Branch, tag or commit of the model on the hub."""
    served_model_name: str | list[str] | None = None
    """Names the model answers to; by default what `model` says."""
    skip_tokenizer_init: bool = False
    """Token ids in and out only."""
    dtype: str = "auto"
    """auto, bfloat16, float16 or float32."""
    device: str = "auto"
    """auto, cpu or cuda."""
    max_model_len: int | None = None
    """Longest prompt plus output, in tokens."""
    max_num_seqs: int = 256
    """Most sequences in one step."""
    max_waiting_requests: int = 1024
    """Requests that may wait beyond those, each choice of `n` counting as one; more are refused at
    once, with 503 over HTTP."""
    max_num_batched_tokens: int | None = None
    """Tokens of one step: decodes first, then chunks of prefill."""
    block_size: int = 16
    """Token positions in one KV cache block."""
    num_gpu_blocks_override: int | None = None
    """KV cache blocks, on any device, whatever the memory."""
    kv_cache_memory_bytes: int | None = None
    """Memory for the KV cache."""
    gpu_memory_utilization: float = 0.9
    """Share of a GPU's memory for weights and KV cache together."""
    enable_prefix_caching: bool = True
    """Reuse the KV cache of equal prompt prefixes."""
    enable_chunked_prefill: bool = True
    """Always on: long prompts are computed in chunks between the steps of others."""
    enforce_eager: bool = False
    """Run forward passes by torch operators only, without the decoder that is compiled for CPUs
    with AVX-512."""
    tensor_parallel_size: int = 1
    """Devices a model is split over; 1."""
    seed: int | None = None
    """Makes requests without a seed of their own repeatable in order of arrival."""
    max_logprobs: int = 20
    """Most alternatives a request may ask for; -1: the whole vocabulary."""
    num_threads: int | None = None
    """CPU threads of the forward pass."""
    stream_interval: int = 1
    """Tokens between two outputs of a stream, where a request names no larger number."""
    disable_log_stats: bool = False
    """Leave `metrics` out of the outputs."""
    in_process: bool = False
    """Run the engine core in a thread of this process instead of a process of its own; it is then
    not started again when it fails."""
    max_restarts: int = 5
    """Times in a row that a dead engine core is started again without a token in between, before
    streams end with an error; 0: never."""
    hang_timeout: float = 60.0
    """Seconds an engine core may make no progress before it is killed, and as many for each 512
    tokens of its step; 0: for ever."""
    load_timeout: float = 1800.0
    """Seconds an engine core may take to load; 0: for ever."""

    def model_directory(self) -> Path:
        """Find the model's files, downloading them if need be.

        Raises:
            ConfigError: there is no such model.
        """
        if self.model == BUNDLED_MODEL:
            return Path(__file__).parent / "bundled"
        return resolve_model(self.model, self.revision)

    def tokenizer_directory(self, model_directory: Path) -> Path:
        """Find the tokenizer's files, by default the model's.

        Raises:
            ConfigError: there is no such directory or repository.
        """
        return resolve_model(self.tokenizer) if self.tokenizer else model_directory

    def served_names(self) -> list[str]:
        """Names the model answers to, the first one to be shown."""
        if isinstance(self.served_model_name, str):
            return [self.served_model_name]
        return self.served_model_name or [self.model]

    def engine_config(self, model_directory: Path) -> EngineConfig:
        """What the engine core is asked for.

        Raises:
            ConfigError: a setting that would change the output is not supported.
        """
        if not self.enable_chunked_prefill:
            raise ConfigError("enable_chunked_prefill is False, must be True: prefill is chunked")
        if self.tensor_parallel_size != 1:
            raise ConfigError(
                f"tensor_parallel_size is {self.tensor_parallel_size}, must be 1: a model runs on "
                "one device"
            )
        return EngineConfig(
            model_path=str(model_directory),
            tokenizer_path=str(self.tokenizer_directory(model_directory)),
            dtype=self.dtype,
            device=self.device,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            block_size=self.block_size,
            num_blocks=self.num_gpu_blocks_override,
            kv_cache_memory_bytes=self.kv_cache_memory_bytes,
            gpu_memory_utilization=self.gpu_memory_utilization,
            enable_prefix_caching=self.enable_prefix_caching,
            num_threads=self.num_threads,
            enforce_eager=self.enforce_eager,
        )

    def supervision(self) -> Supervision:
        """Within which bounds the engine core is kept alive.

        Raises:
            ConfigError: a bound is out of range.
        """
        return Supervision(
            max_restarts=self.max_restarts,
            hang_timeout=self.hang_timeout,
            load_timeout=self.load_timeout,
        )


@dataclass(kw_only=True)
class AsyncEngineArgs(EngineArgs):
    """Settings of an `AsyncLLM`."""

    enable_log_requests: bool = False
    """Log each request when it arrives and when it ends."""


@dataclass(kw_only=True)
class RemoteEngineArgs:
    """Which engines, and whose tokenizer."""

    engine: list[str]
    """URL of a server with the token endpoint; may be given several times for one model, requests
    then take turns."""
    model: str = BUNDLED_MODEL
    """Directory or hub id of the model's configuration and tokenizer; weights are not read."""
    tokenizer: str | None = None
    """Directory or hub id of the tokenizer, if not the model's."""
    revision: str | None = None
    """Branch, tag or commit of the model on the hub."""
    served_model_name: str | list[str] | None = None
    """Names the model answers to; by default what `model` says."""
    engine_api_key: str | None = None
    """Key to show to the engines."""
    max_logprobs: int = 20
    """Most alternatives a request may ask for; -1: the whole vocabulary."""
    seed: int | None = None
    """Makes requests without a seed of their own repeatable in order of arrival."""

    def __post_init__(self) -> None:
        """Check the URLs.

        Raises:
            ConfigError: there is none, or one is not of HTTP.
        """
        if not self.engine:
            raise ConfigError("engine is empty, must hold the URL of at least one engine")
        for url in self.engine:
            if not url.startswith(("http://", "https://")):
                raise ConfigError(f"engine is {url!r}, must begin with http:// or https://")

    def model_directory(self) -> Path:
        """Find the model's files, downloading them if need be, without its weights.

        Raises:
            ConfigError: there is no such model.
        """
        if self.model == BUNDLED_MODEL:
            return EngineArgs().model_directory()
        return resolve_model(self.model, self.revision, has_weights=False)

    def tokenizer_directory(self, model_directory: Path) -> Path:
        """Find the tokenizer's files, by default the model's.

        Raises:
            ConfigError: there is no such directory or repository.
        """
        if not self.tokenizer:
            return model_directory
        return resolve_model(self.tokenizer, has_weights=False)

    def served_names(self) -> list[str]:
        """Names the model answers to, the first one to be shown."""
        if isinstance(self.served_model_name, str):
            return [self.served_model_name]
        return self.served_model_name or [self.model]
