"""The compiled library as Python sees it: its structures, field by field, and its functions.

The structures are those of `decoder.c` and the headers beside it; sizes are int64 throughout.
"""

from __future__ import annotations

import ctypes
import logging
from ctypes import POINTER, Structure, c_float, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch

from rillm.models.native.build import build_library

logger = logging.getLogger(__name__)

PANEL = 64
"""Outputs of a panel."""
MAX_HEAD = 256
"""Largest head."""
MAX_GROUP = 64
"""Most query heads of a KV head."""


class Matrix(Structure):
    """A weight in panels."""

    _fields_ = (
        ("panels", c_void_p),
        ("bias", c_void_p),
        ("outputs", c_int64),
        ("inputs", c_int64),
    )


class Layer(Structure):
    """One decoder layer."""

    _fields_ = (
        ("attention_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("qk_norm", c_void_p),
        ("qkv", Matrix),
        ("output", Matrix),
        ("gate_up", Matrix),
        ("down", Matrix),
        ("window", c_int64),
    )


class Decoder(Structure):
    """A whole model."""

    _fields_ = (
        ("num_layers", c_int64),
        ("hidden", c_int64),
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("head_dim", c_int64),
        ("mlp", c_int64),
        ("eps", c_float),
        ("norm", c_void_p),
        ("head", Matrix),
        ("embedding", Matrix),
        ("layers", POINTER(Layer)),
    )


class Batch(Structure):
    """The tokens of a step."""

    _fields_ = (
        ("tokens", c_int64),
        ("sequences", c_int64),
        ("block_size", c_int64),
        ("table_width", c_int64),
        ("token_ids", c_void_p),
        ("slots", c_void_p),
        ("block_tables", c_void_p),
        ("query_lens", c_void_p),
        ("seq_lens", c_void_p),
        ("positions", c_void_p),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
    )


class Threads(Structure):
    """Who works."""

    _fields_ = (("parallel", c_void_p), ("team_size", c_void_p), ("count", c_int64))


class Library:
    """The functions, and the threads they run on.

    Attributes:
        workspace_bytes: of (decoder, tokens, sequences): what `forward` needs for such a step.
        forward: of (decoder, batch, threads, workspace, hidden): runs the layers; `hidden` is
            [tokens, hidden] float32.
        logits: of (decoder, hidden, count, threads, normalized, logits): scores [count, V] float32
            after rows [count, hidden] of `hidden`; `normalized` is as many bfloat16.
    """

    def __init__(self, path: Path) -> None:
        """Load the file that `build_library` made."""
        library = ctypes.CDLL(str(path))
        decoder, batch, threads = POINTER(Decoder), POINTER(Batch), POINTER(Threads)
        self.workspace_bytes = library.rillm_workspace_bytes
        self.workspace_bytes.argtypes = [decoder, c_int64, c_int64]
        self.workspace_bytes.restype = c_int64
        self.forward = library.rillm_forward
        self.forward.argtypes = [decoder, batch, threads, c_void_p, c_void_p]
        self.forward.restype = None
        self.logits = library.rillm_logits
        self.logits.argtypes = [decoder, c_void_p, c_int64, threads, c_void_p, c_void_p]
        self.logits.restype = None
        self._parallel, self._team_size = _torch_threads()

    def threads(self) -> Threads:
        """Those of torch, as many as it uses at this moment; one where it has none to lend."""
        return Threads(self._parallel, self._team_size, torch.get_num_threads())


@cache
def load_library(*, has_bf16: bool) -> Library | None:
    """The library, compiled if need be; None where it cannot be, or cannot be loaded.

    Args:
        has_bf16: see `build_library`.
    """
    path = build_library(has_bf16=has_bf16)
    if path is None:
        return None
    try:
        return Library(path)
    except OSError as error:
        # Where nothing may be run from, for one.
        logger.warning("%s: decoding by torch operators, more slowly", error)
        return None


def _torch_threads() -> tuple[int | None, int | None]:
    """Addresses of what starts the OpenMP threads of torch, and of what counts them.

    A pool of our own would find its cores taken: after a parallel operator torch's threads wait
    for the next one without sleeping.
    """
    # Looks into what torch was linked with, too, whatever that file is called.
    torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    try:
        parallel, team_size = torch_library.GOMP_parallel, torch_library.omp_get_num_threads
    except AttributeError:
        return None, None
    return ctypes.cast(parallel, c_void_p).value, ctypes.cast(team_size, c_void_p).value
