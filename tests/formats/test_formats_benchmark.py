"""The benchmark of the formats runs, and its answers are what it says they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from formats.folding import events_of, fold

from rillm.formats.registry import combine

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_it_runs() -> None:
    command = [sys.executable, str(BENCHMARKS / "formats.py"), "--tokens", "200", "--repeats", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout.splitlines()[-1])
    assert all(set(times) == {"200"} for times in document["us_per_token"].values())


def test_its_answers_are_text_and_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS.parent))
    from benchmarks import formats as benchmark

    for case, names in benchmark.CASES.items():
        pieces = benchmark.answer(case, 300)
        events = events_of(combine(*names), pieces, benchmark.TOOLS, start="content")
        answer = fold(events)
        assert bool(answer.content) == (case == "text")
        for call in answer.calls:
            assert call.is_complete
            assert json.loads(call.arguments)["path"] == "tide.py"
        assert len(answer.calls) == (case != "text")
