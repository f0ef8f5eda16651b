"""rillm: a streaming-first inference server for large language models.

The public names are imported when first used, so that `import rillm` costs nothing and a
frontend without a model never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rillm.async_llm import AsyncLLM
    from rillm.engine_args import AsyncEngineArgs, EngineArgs
    from rillm.llm import LLM
    from rillm.outputs import CompletionOutput, Logprob, RequestOutput
    from rillm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

__version__ = "0.1.0"

_HOMES = {
    "AsyncEngineArgs": "rillm.engine_args",
    "AsyncLLM": "rillm.async_llm",
    "CompletionOutput": "rillm.outputs",
    "EngineArgs": "rillm.engine_args",
    "LLM": "rillm.llm",
    "Logprob": "rillm.outputs",
    "RequestOutput": "rillm.outputs",
    "RequestOutputKind": "rillm.sampling_params",
    "SamplingParams": "rillm.sampling_params",
    "StructuredOutputsParams": "rillm.sampling_params",
}

__all__ = [
    "LLM",
    "AsyncEngineArgs",
    "AsyncLLM",
    "CompletionOutput",
    "EngineArgs",
    "Logprob",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "StructuredOutputsParams",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'rillm' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
