"""The benchmark of the server runs, and counts what its stub sends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serving.py"


def test_it_runs() -> None:
    options = ["--streams", "2", "--seconds", "2", "--prompt", "500"]
    result = subprocess.run(
        [sys.executable, str(SCRIPT), *options], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout.splitlines()[-1])
    [row] = document["cost"]
    assert row["streams"] == 2
    assert row["tokens_per_s"] > 10
    assert row["cpu_us_per_token"] > 0
    assert document["pause"]["beside_ms"] > 0
