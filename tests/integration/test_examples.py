"""The examples run, and stop when they are told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tiny_models import make_checkpoint, make_tokenizer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "async_streaming.py"


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, str(EXAMPLE), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell that runs the tests in the background has them, and so us, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_async_streaming_answers_three_prompts_with_the_bundled_model() -> None:
    with start() as process:
        out, errors = process.communicate(timeout=100)

    assert (process.returncode, errors) == (0, "")
    assert "The future of artificial intelligence is" in out
    assert "Tell me a short story about a fox." in out


def test_async_streaming_ends_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    # Deep, so that it still answers when this process comes to interrupt it.
    checkpoint = make_tokenizer(make_checkpoint("llama", tmp_path, num_hidden_layers=48))
    with start(str(checkpoint)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        # Looked up before the answer begins: the small model needs less than a second for all.
        children = psutil.Process(process.pid).children(recursive=True)
        process.stdout.read(len("The future of artificial intelligence is") + 1)
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=30)
        errors = process.stderr.read()

    assert (code, errors) == (130, "")
    assert len(children) == 1
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


@pytest.mark.parametrize("name", ["LLM", "AsyncLLM", "SamplingParams", "RequestOutputKind"])
def test_public_names_import_from_the_package(name: str) -> None:
    code = f"from rillm import {name}; print({name}.__name__)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    out = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert out.strip() == name
