"""Examples in the documentation run, as a reader would run them.

Python blocks of a page are one program, shell blocks one script each; both find the server that
they name. What cannot be run says why in a comment before it, and its commands are still parsed.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from doc_blocks import ADDRESS, DOCS, Block, all_blocks, as_program, blocks_of, prose_of

from rillm.cli import app

PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "ini": configparser.ConfigParser(interpolation=None, strict=False).read_string,
}
RUN = ("python", "sh", "nginx")
SHOWN = ("text", "mermaid", "yaml", "dockerfile")
COMMANDS = re.compile(r" {4}(?:curl|rillm|python|pip|from|import|apt-get|local-ai) ")

_SHELL = [each for each in all_blocks("sh") if each.not_run is None]
_PYTHON = [doc for doc in DOCS if any(each.language == "python" for each in blocks_of(doc))]


def _environment(folder: Path) -> dict[str, str]:
    """This Python first in the path, and `rillm` with it."""
    for name, arguments in (("python", ""), ("rillm", "-m rillm")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        script.chmod(0o755)
    return os.environ | {
        "PATH": os.pathsep.join([str(folder), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_blocks_say_what_they_are(doc: Path) -> None:
    for block in blocks_of(doc):
        assert block.language in (*RUN, *PARSERS, *SHOWN), block
        assert block.not_run is None or block.language in RUN, block


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_examples_are_in_blocks(doc: Path) -> None:
    """Where they are run: what is merely indented is not."""
    assert [line for line in prose_of(doc) if COMMANDS.match(line)] == []


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_reasons_stand_before_what_is_not_run(doc: Path) -> None:
    written = sum(line.lstrip().startswith("<!-- not run") for line in prose_of(doc))
    assert written == sum(each.not_run is not None for each in blocks_of(doc))


@pytest.mark.parametrize("block", all_blocks(*PARSERS), ids=str)
def test_data_parses(block: Block) -> None:
    PARSERS[block.language](block.text)


@pytest.mark.parametrize("doc", _PYTHON, ids=lambda path: path.name)
def test_python_of_a_page_runs(doc: Path, served_address: str, tmp_path: Path) -> None:
    blocks = [each for each in blocks_of(doc) if each.language == "python" and not each.not_run]
    # Under the page's name, for tracebacks that say where on the page.
    program = tmp_path / doc.name
    program.write_text(as_program(blocks).replace(ADDRESS, served_address), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, program],
        cwd=tmp_path,
        env=_environment(tmp_path),
        capture_output=True,
        text=True,
    )

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("block", _SHELL, ids=str)
def test_shell_block_runs(block: Block, served_address: str, tmp_path: Path) -> None:
    if "curl " in block.text and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    script = block.text.replace(ADDRESS, served_address)
    # A refusal is a failure, too.
    strict = 'set -eu\ncurl() { command curl --fail-with-body "$@"; }\n'
    result = subprocess.run(
        ["bash", "-c", strict + script],
        cwd=tmp_path,
        env=_environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout
    assert '"error"' not in result.stdout


def _rillm_commands(block: Block) -> list[list[str]]:
    lines = block.text.replace("\\\n", " ").splitlines()
    commands = [each for line in lines for each in re.split(r" (?:&&|\|\||\||&)(?: |$)", line)]
    words = [shlex.split(each, comments=True) for each in commands if "rillm " in each]
    return [each[each.index("rillm") + 1 :] for each in words if "rillm" in each]


@pytest.mark.parametrize(
    "block", [each for each in all_blocks("sh") if _rillm_commands(each)], ids=str
)
def test_commands_and_their_options_exist(block: Block) -> None:
    for command in _rillm_commands(block):
        app.parse_args(command, print_error=False, exit_on_error=False)
