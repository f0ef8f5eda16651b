"""The compiled library as Python sees it: its structures, field by field, and its functions.

The structures are those of `decoder.c` and the headers beside it; sizes are int64 throughout.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from rillm.models.native.build import build_library

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
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
    )


class Threads(Structure):
    """Who works."""

    _fields_ = (("parallel", c_void_p), ("team_size", c_void_p), ("count", c_int64))


class Library:
    """The functions, with the threads they run on."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self._workspace_bytes = library.rillm_workspace_bytes
        self._workspace_bytes.argtypes = [POINTER(Decoder), c_int64, c_int64]
        self._workspace_bytes.restype = c_int64
        self._forward = library.rillm_forward
        self._forward.argtypes = [
            POINTER(Decoder),
            POINTER(Batch),
            POINTER(Threads),
            c_void_p,
            c_void_p,
        ]
        self._forward.restype = None
        self._logits = library.rillm_logits
        self._logits.argtypes = [
            POINTER(Decoder),
            c_void_p,
            c_int64,
            POINTER(Threads),
            c_void_p,
            c_void_p,
        ]
        self._logits.restype = None
        self._threads = _torch_threads()
        self._workspace = torch.empty(0, dtype=torch.uint8)

    def forward(self, decoder: Decoder, batch: Batch) -> Tensor:
        """Run the layers of `decoder`: [tokens, hidden] float32."""
        needed = self._workspace_bytes(decoder, batch.tokens, batch.sequences)
        if needed > len(self._workspace):
            self._workspace = torch.empty(needed, dtype=torch.uint8)
        hidden = torch.empty((batch.tokens, decoder.hidden), dtype=torch.float32)
        self._threads.count = torch.get_num_threads()
        self._forward(decoder, batch, self._threads, self._workspace.data_ptr(), hidden.data_ptr())
        return hidden

    def logits(self, decoder: Decoder, hidden: Tensor) -> Tensor:
        """Scores [L, V] float32 after rows [L, hidden] float32 of `forward`."""
        logits = torch.empty((len(hidden), decoder.head.outputs), dtype=torch.float32)
        normalized = torch.empty(hidden.shape, dtype=torch.bfloat16)
        self._threads.count = torch.get_num_threads()
        self._logits(
            decoder,
            hidden.data_ptr(),
            len(hidden),
            self._threads,
            normalized.data_ptr(),
            logits.data_ptr(),
        )
        return logits


@cache
def load_library() -> Library | None:
    """The library, compiled if need be; None where it cannot be."""
    path = build_library()
    return None if path is None else Library(path)


def _torch_threads() -> Threads:
    """The OpenMP threads of torch.

    A pool of our own would find its cores taken: after a parallel operator torch's threads wait
    for the next one without sleeping.
    """
    # Looks into what torch was linked with, too, whatever the file is called.
    torch_library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    try:
        addresses = [
            ctypes.cast(getattr(torch_library, name), c_void_p).value
            for name in ("GOMP_parallel", "omp_get_num_threads")
        ]
    except AttributeError:
        return Threads(None, None, 1)
    return Threads(*addresses, 1)
