"""Clients that conflict with the tests' own environment, each in one of its own.

RILLM_CLIENTS names a directory with virtual environments `clients-langchain` (langchain-openai),
`clients-pydantic_ai` (pydantic-ai-slim[openai]) and `clients-litellm` (litellm, mcp, openai<3), and
with `clients-npm` (npm install openai ai @ai-sdk/openai-compatible). What is not there is
skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENVIRONMENTS = Path(os.environ.get("RILLM_CLIENTS", "")).absolute()
RILLM = [sys.executable, "-m", "rillm", "serve", "--port", "0", "--num-threads", "2"]

pytestmark = pytest.mark.skipif(
    "RILLM_CLIENTS" not in os.environ, reason="RILLM_CLIENTS names no environments of clients"
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    process = subprocess.Popen(RILLM, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"at (http://\S+)$", line)
            assert found, line
            yield found[1]
        finally:
            process.kill()


@pytest.mark.parametrize("name", ["langchain", "pydantic_ai", "litellm"])
def test_python_client(url: str, name: str) -> None:
    python = ENVIRONMENTS / f"clients-{name}" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there")
    run([str(python), str(HERE / f"{name}_client.py"), url], HERE)


@pytest.mark.parametrize("name", ["openai", "ai"])
def test_npm_client(url: str, name: str) -> None:
    folder = ENVIRONMENTS / "clients-npm"
    node = shutil.which("node")
    if node is None or not (folder / "node_modules" / name).exists():
        pytest.skip(f"{name} is not installed in {folder}, or node is not there")
    run([node, str(HERE / f"{name}_client.mjs"), url], folder)


def run(command: list[str], folder: Path) -> None:
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
