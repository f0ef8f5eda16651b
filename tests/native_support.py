"""Whether this machine runs a checkpoint by the decoder in C."""

from __future__ import annotations

from pathlib import Path

import torch

from rillm.models import loader
from rillm.models.config import ModelConfig
from rillm.models.native.decoder import native_library

NEEDS_NATIVE = "needs a processor with AVX-512, and a C compiler"


def has_native_decoder(path: Path, dtype: torch.dtype = torch.bfloat16) -> bool:
    """Whether the checkpoint in the directory `path` is run so in `dtype`."""
    config = ModelConfig.from_directory(path)
    return native_library(config, dtype, torch.device("cpu")) is not None


def is_exact(path: Path) -> bool:
    """Whether a token comes out the same in bfloat16, to the last bit, whatever is in its batch.

    Beside matrix units the decoder in C runs small batches only.
    """
    return has_native_decoder(path) and not loader.has_matrix_units()
