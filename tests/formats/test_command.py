"""`rillm formats`: the list, a model's formats, and a text replayed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from formats.test_registry import REASONING_NAMES, TOOL_NAMES

CALL = '<tool_call>\n{"name": "tide", "arguments": {"port": "B"}}\n</tool_call>'
TEXT = f"<think>\nhm\n</think>\n\nWell.\n{CALL}"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rillm", "formats", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def text_file(tmp_path: Path) -> str:
    path = tmp_path / "answer.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def test_the_list_has_every_name() -> None:
    words = run().stdout.split()

    assert set(TOOL_NAMES) <= set(words)
    assert set(REASONING_NAMES) <= set(words)


def test_a_model_gets_its_formats_with_the_reasons() -> None:
    lines = run("bundled").stdout.splitlines()

    assert lines[0].startswith("--tool-call-parser hermes: ")
    assert "chat template: '<tool_call>'" in lines[0]
    assert lines[1].startswith("--reasoning-parser qwen3: ")


@pytest.mark.parametrize("chunks", ["token", "char", "5"])
@pytest.mark.parametrize("model", [[], ["--model", "bundled"]])
def test_a_replay_shows_every_piece_and_what_comes_of_it(
    text_file: str, chunks: str, model: list[str]
) -> None:
    result = run("replay", "hermes+qwen3", text_file, "--chunks", chunks, *model)

    assert result.returncode == 0, result.stderr
    rows = [line.partition(" |")[::2] for line in result.stdout.splitlines()]
    pieces = [left.strip() for left, _ in rows if left.strip() and left.strip() != "(end)"]
    assert "".join(json.loads(piece) for piece in pieces) == TEXT
    events = [right.strip() for _, right in rows if right]
    assert any(event.startswith('ToolCallBegin(0, "call_') for event in events)
    assert events.count("ToolCallEnd(0)") == 1
    arguments = [event for event in events if event.startswith("ToolCallArguments(0, ")]
    fragments = [
        json.loads(event.removeprefix("ToolCallArguments(0, ")[:-1]) for event in arguments
    ]
    assert "".join(fragments) == '{"port": "B"}'


def test_a_combined_name_is_both_halves(tmp_path: Path) -> None:
    path = tmp_path / "answer.txt"
    path.write_text("<think>a</think><tool_call>tide</tool_call>", encoding="utf-8")

    shown = run("replay", "glm45", str(path), "--chunks", "99").stdout

    assert 'ReasoningDelta("a")' in shown
    assert "ToolCallBegin(0" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope", "FILE"], "no reasoning format is named 'nope'"),
        (["openai+qwen3", "FILE"], "cannot be mixed"),
        (["hermes", "missing.txt"], "missing.txt cannot be read"),
        (["hermes", "FILE", "--chunks", "0"], "chunks is '0', must be token, char or a number"),
        (["hermes", "FILE", "--tools", "FILE"], "is not JSON"),
    ],
)
def test_what_cannot_be_replayed_is_said(text_file: str, arguments: list[str], words: str) -> None:
    result = run("replay", *(text_file if each == "FILE" else each for each in arguments))

    assert result.returncode == 2
    assert words in result.stderr
