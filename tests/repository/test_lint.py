"""Linter, formatter and type checker are clean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
