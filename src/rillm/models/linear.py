"""Matrix products with a weight, and what is fused into them.

The one place that knows how a weight is laid out: quantised weights and other devices enter
as another implementation of `Linear`. Shapes: x is [M, in] contiguous, results are [M, out].
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_BAG_WIDTH = 256
"""Outputs of a bag: few enough to stay in registers, enough for whole cache lines."""
_MIN_BAG_BYTES = 2 << 20
"""Weights smaller than this are those of models that stay in the caches, where packed is faster."""
_MIN_FREE_MEMORY = 0.5
"""Part of the machine's memory that must be available for a weight to be held twice."""


class Linear(Protocol):
    """y = x @ weight.T + bias, with the element-wise step that follows it in a decoder."""

    def __call__(self, x: Tensor) -> Tensor:
        """The product alone."""

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """The product plus `residual` [M, out], which is not changed."""

    def silu(self, x: Tensor) -> Tensor:
        """SiLU of the product: the gate of an MLP."""

    def multiply(self, x: Tensor, other: Tensor) -> Tensor:
        """The product times `other` [M, out]: an MLP's input through its gate."""


class TorchLinear:
    """`Linear` by plain torch operators, on any device and in any dtype."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Hold weight [out, in] and bias [out]."""
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        return F.linear(x, self._weight, self._bias)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """See `Linear`."""
        return self(x).add_(residual)

    def silu(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        return F.silu(self(x))

    def multiply(self, x: Tensor, other: Tensor) -> Tensor:
        """See `Linear`."""
        return self(x).mul_(other)


class OneDnnLinear:
    """`Linear` on the CPU by oneDNN, from a weight packed for its matrix units.

    Packing copies: the given weight can be freed afterwards.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Pack weight [out, in]; hold bias [out]."""
        # The batch size asked for is a hint; the packed layout serves every one.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        self._bias = bias
        # Resolved once: a lookup through torch.ops costs as much as a small operator.
        self._pointwise = torch.ops.mkldnn._linear_pointwise.default
        self._binary = torch.ops.mkldnn._linear_pointwise.binary

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        product: Tensor = self._pointwise(x, self._weight, self._bias, "none", [], "")
        return product

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """See `Linear`."""
        product: Tensor = self._binary(x, residual, self._weight, self._bias, "add")
        return product

    def silu(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        product: Tensor = self._pointwise(x, self._weight, self._bias, "swish", [], "")
        return product

    def multiply(self, x: Tensor, other: Tensor) -> Tensor:
        """See `Linear`."""
        product: Tensor = self._binary(x, other, self._weight, self._bias, "mul")
        return product


class SingleRowLinear:
    """`Linear` on the CPU for weights that come from memory: a quicker way for a single row.

    With M = 1 a product only reads its weight, and oneDNN reads at three quarters of what the
    memory gives. A sum of bags reads ahead: y = sum over i of x[i] * weight.T[i] is one bag of
    rows, and slices of the outputs are as many bags for the threads to share. Sums are in
    float32. Holds the weight a second time, in that layout.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: Linear) -> None:
        """Copy weight [out, in] bfloat16; hold bias [out], and `rows` for M > 1."""
        self._rows = rows
        self._bias = bias
        self._num_outputs, self._num_inputs = weight.shape
        self._num_bags = -(-self._num_outputs // _BAG_WIDTH)
        missing = self._num_bags * _BAG_WIDTH - self._num_outputs
        bags = F.pad(weight, (0, 0, 0, missing)).view(self._num_bags, _BAG_WIDTH, -1)
        self._bags = bags.transpose(1, 2).reshape(-1, _BAG_WIDTH)
        self._indices, self._offsets = _bag_indices(self._num_bags, self._num_inputs)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        return self._single(x) if len(x) == 1 else self._rows(x)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """See `Linear`."""
        return self._single(x).add_(residual) if len(x) == 1 else self._rows.add(x, residual)

    def silu(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        return F.silu(self._single(x)) if len(x) == 1 else self._rows.silu(x)

    def multiply(self, x: Tensor, other: Tensor) -> Tensor:
        """See `Linear`."""
        return self._single(x).mul_(other) if len(x) == 1 else self._rows.multiply(x, other)

    def _single(self, x: Tensor) -> Tensor:
        """The product of x [1, in]: [1, out]."""
        factors = x.expand(self._num_bags, -1).reshape(-1)
        sums, *_ = torch.embedding_bag(
            self._bags, self._indices, self._offsets, False, 0, False, factors, True
        )
        product = sums.view(1, -1)[:, : self._num_outputs]
        return product if self._bias is None else product.add_(self._bias)


@cache
def _bag_indices(num_bags: int, num_inputs: int) -> tuple[Tensor, Tensor]:
    """Rows of all bags one after another [bags * in], and where each begins and ends; int32."""
    indices = torch.arange(num_bags * num_inputs, dtype=torch.int32)
    return indices, torch.arange(0, len(indices) + 1, num_inputs, dtype=torch.int32)


def make_linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The fastest `Linear` for the device and dtype of a weight [out, in]."""
    if _one_dnn_serves(weight.device, weight.dtype):
        packed = OneDnnLinear(weight, bias)
        if weight.dtype == torch.bfloat16 and _bags_serve(weight):
            return SingleRowLinear(weight, bias, packed)
        return packed
    return TorchLinear(weight, bias)


def _one_dnn_serves(device: torch.device, dtype: torch.dtype) -> bool:
    has_one_dnn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type != "cpu" or not has_one_dnn:
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _bags_serve(weight: Tensor) -> bool:
    # Sums of bags are fast by the kernels of fbgemm, which not every build and CPU has.
    has_kernels = "fbgemm" in torch.backends.quantized.supported_engines
    return weight.nbytes >= _MIN_BAG_BYTES and has_kernels and _has_free_memory()


def _has_free_memory() -> bool:
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        available, total = (int(fields[name].split()[0]) for name in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError):
        return False
    return available >= _MIN_FREE_MEMORY * total
