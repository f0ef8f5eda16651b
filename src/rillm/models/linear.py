"""Matrix products with a weight, and what is fused into them.

The one place that knows how a weight is laid out: quantised weights and other devices enter
as another implementation of `Linear`. Shapes: x is [M, in] contiguous, results are [M, out].
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


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


def make_linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The fastest `Linear` for the device and dtype of a weight [out, in]."""
    if _one_dnn_serves(weight.device, weight.dtype):
        return OneDnnLinear(weight, bias)
    return TorchLinear(weight, bias)


def _one_dnn_serves(device: torch.device, dtype: torch.dtype) -> bool:
    has_one_dnn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type != "cpu" or not has_one_dnn:
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32
