"""What the routes need of an engine's client; `AsyncLLM` has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rillm.engine.messages import StepStats
from rillm.sampling_params import SamplingParams
from rillm.server.sampling import SamplingDefaults
from rillm.streams import GenerationClient
from rillm.text.tokenizer import Tokenizer


class ModelFacts(Protocol):
    """What is known of a model before it is loaded."""

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""


class ServingEngine(GenerationClient, Protocol):
    """One model behind an engine, perhaps still loading."""

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer; there at once."""

    async def check_constraint(self, sampling_params: SamplingParams) -> None:
        """Refuse what no output can be constrained to, before anything runs."""

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """End live requests; their streams yield a last output with finish reason `abort`."""

    @property
    def model_config(self) -> ModelFacts:
        """The model's."""

    @property
    def max_logprobs(self) -> int:
        """Most alternatives a request may ask for."""

    @property
    def generation_config(self) -> SamplingDefaults:
        """The sampling defaults that the model recommends."""

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus output, in tokens."""

    @property
    def ready_info(self) -> object | None:
        """What the engine decided when it loaded; None before, and requests wait."""

    @property
    def errored(self) -> bool:
        """Whether the engine has stopped and serves nothing any more."""

    @property
    def is_restarting(self) -> bool:
        """Whether the engine has died and is being started again; requests wait meanwhile."""

    @property
    def num_restarts(self) -> int:
        """Times that the engine was started again."""

    @property
    def engine_stats(self) -> StepStats | None:
        """Counters of the engine after its newest step; None where it tells none."""
