"""Linters, formatters and type checker are clean."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from rillm.models.native import build

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("ruff check .", id="ruff check"),
        pytest.param("ruff format --check .", id="ruff format"),
        pytest.param("mypy", id="mypy"),
    ],
)
def test_is_clean(command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


C_SOURCES = sorted(map(str, (ROOT / "src").rglob("*.[ch]")))


def test_c_is_formatted() -> None:
    formatter = shutil.which("clang-format", path=sysconfig.get_path("scripts"))
    assert formatter is not None
    assert C_SOURCES
    result = subprocess.run(
        [formatter, "--dry-run", "--Werror", *C_SOURCES], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("more", [[], [build.BF16_FLAG]])
def test_c_compiles_without_a_warning(more: list[str], tmp_path: Path) -> None:
    strict = ["-Wall", "-Wextra", "-Werror"]
    flags = [*build.FLAGS, *more, *strict, "-o", str(tmp_path / "decoder.so")]
    result = subprocess.run(
        ["cc", *flags, str(build.SOURCE), "-lm"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
