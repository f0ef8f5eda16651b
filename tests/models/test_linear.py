from __future__ import annotations

import pytest
import torch

from rillm.models.linear import OneDnnLinear, TorchLinear, make_linear

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("num_rows", [1, 3, 130])
def test_packed_and_plain_products_agree(dtype: torch.dtype, has_bias: bool, num_rows: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    x, other = normal(num_rows, 48), normal(num_rows, 80)
    weight, bias = normal(80, 48) / 7, normal(80) if has_bias else None
    exact = TorchLinear(weight, bias)
    fused = OneDnnLinear(weight.to(dtype), bias if bias is None else bias.to(dtype))
    x_fused, other_fused = x.to(dtype), other.to(dtype)
    tolerance = TOLERANCES[dtype]
    for ours, plain in (
        (fused(x_fused), exact(x)),
        (fused.silu(x_fused), exact.silu(x)),
        (fused.add(x_fused, other_fused), exact.add(x, other)),
        (fused.multiply(x_fused, other_fused), exact.multiply(x, other)),
    ):
        torch.testing.assert_close(ours.float(), plain, rtol=tolerance, atol=2 * tolerance)
    assert torch.equal(other_fused, other.to(dtype))


def test_plain_products_are_what_they_say() -> None:
    x, weight = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 4.0], [0.5, 0.0]])
    linear = TorchLinear(weight, torch.tensor([1.0, 1.0]))
    other = torch.tensor([[10.0, 20.0]])
    assert linear(x).tolist() == [[-4.0, 1.5]]
    assert linear.add(x, other).tolist() == [[6.0, 21.5]]
    assert linear.multiply(x, other).tolist() == [[-40.0, 30.0]]
    assert linear.silu(x)[0, 1].item() == pytest.approx(1.5 / (1 + 2.718281828**-1.5))
    assert other.tolist() == [[10.0, 20.0]]


def test_a_dtype_without_packing_falls_back_to_plain_products() -> None:
    assert isinstance(make_linear(torch.ones(4, 4, dtype=torch.float64)), TorchLinear)
