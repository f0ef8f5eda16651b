"""What the routes need of an engine's client; `AsyncLLM` has it."""

from __future__ import annotations

from typing import Protocol

from rillm.server.sampling import SamplingDefaults
from rillm.streams import GenerationClient
from rillm.text.tokenizer import Tokenizer


class ServingEngine(GenerationClient, Protocol):
    """One model behind an engine, perhaps still loading."""

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer; there at once."""

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
