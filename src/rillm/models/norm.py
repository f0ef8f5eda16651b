"""RMS normalisation.

Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4.
"""

from __future__ import annotations

import torch
from torch import Tensor


class RMSNorm:
    """x / sqrt(mean(x**2) + eps) * weight over the last dimension, computed in float32."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        """Hold a weight that broadcasts against x: [D], or [H, D] with a row for each head."""
        self._weight = weight.to(torch.float32)
        self._eps = torch.tensor(eps, dtype=torch.float32, device=weight.device)
        self._mean = 1 / weight.shape[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise x [..., D]; the result has its dtype."""
        # F.rms_norm has no kernel for the CPU: there these steps take two thirds of its time.
        values = x.to(torch.float32, copy=True)
        norm = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
        scale = torch.addcmul(self._eps, norm, norm, value=self._mean).rsqrt_()
        # In place: for a long prompt a fresh result costs more in page faults than in arithmetic.
        return values.mul_(scale).mul_(self._weight).to(x.dtype)
