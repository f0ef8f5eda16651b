"""What the tests know of the session's server."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from suspended_cores import core_of, suspended

from rillm.async_llm import AsyncLLM


@dataclass
class RunningServer:
    """The bundled model behind HTTP; the loop runs in another thread."""

    llm: AsyncLLM
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def suspended(self) -> AbstractContextManager[None]:
        """Let the engine core stand still."""
        return suspended(core_of(self.llm))
