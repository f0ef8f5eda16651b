"""Functions of single elements in C, against torch's."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rillm.models.native import build
from rillm.models.native.decoder import INSTRUCTIONS

CODE = """
#include "vector.h"
#define LOAD _mm512_maskz_loadu_ps(lanes(count - i), from + i)
void rounded(const float *from, bf16 *to, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) store_bf16(to + i, lanes(count - i), LOAD);
}
void exponentials(const float *from, float *to, int64_t count) {
    for (int64_t i = 0; i < count; i += 16)
        _mm512_mask_storeu_ps(to + i, lanes(count - i), exponential(LOAD));
}
void silus(const float *from, float *to, int64_t count) {
    for (int64_t i = 0; i < count; i += 16)
        _mm512_mask_storeu_ps(to + i, lanes(count - i), silu(LOAD));
}
"""
LENGTH = 100_007
"""Not a whole number of vectors."""

Compute = Callable[[str, Tensor, torch.dtype], Tensor]


@pytest.fixture(scope="module", params=["AVX-512", "AVX512-BF16"])
def compute(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compute:
    """Calls a function of `CODE` with float32 values; its results have the dtype that is named."""
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = request.param == "AVX512-BF16"
    needed = [*INSTRUCTIONS, *(["avx512_bf16"] if has_bf16 else [])]
    if shutil.which("cc") is None or not all(capabilities.get(name) for name in needed):
        pytest.skip(f"needs a processor with {request.param}, and a C compiler")
    folder: Path = tmp_path_factory.mktemp("vector")
    (folder / "code.c").write_text(CODE)
    flags = [*build.FLAGS, *([build.BF16_FLAG] if has_bf16 else []), f"-I{build.SOURCE.parent}"]
    subprocess.run(
        ["cc", *flags, "-o", str(folder / "code.so"), str(folder / "code.c"), "-lm"], check=True
    )
    library = ctypes.CDLL(str(folder / "code.so"))

    def compute(name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
        out = torch.empty(len(values), dtype=dtype)
        pointers = [ctypes.c_void_p(each.data_ptr()) for each in (values, out)]
        library[name](*pointers, ctypes.c_int64(len(values)))
        return out

    return compute


def test_rounding_is_to_nearest_and_to_even(compute: Compute) -> None:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (LENGTH,), generator=generator)
    # Of these each lies in the middle between two numbers.
    ties = bits & ~0xFFFF | 0x8000
    values = torch.cat([bits, ties]).to(torch.int32).view(torch.float32)
    values = torch.cat([values, torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 3.4e38])])
    # AVX512-BF16 takes the smallest numbers for nothing.
    values[values.abs() < torch.finfo(torch.float32).tiny] = 0.0

    rounded = compute("rounded", values, torch.bfloat16)

    is_number = ~values.isnan()
    assert not is_number.all()
    assert rounded[~is_number].isnan().all()
    assert torch.equal(rounded[is_number], values[is_number].to(torch.bfloat16))


@pytest.mark.parametrize(
    ("name", "exact"), [("exponentials", torch.exp), ("silus", torch.nn.functional.silu)]
)
def test_functions_are_as_exact_as_float32(
    compute: Compute, name: str, exact: Callable[[Tensor], Tensor]
) -> None:
    values = torch.linspace(-87, 88, LENGTH)
    expected = exact(values.double())

    error = (compute(name, values, torch.float32).double() - expected) / expected

    assert error[expected != 0].abs().max() < 5e-7
