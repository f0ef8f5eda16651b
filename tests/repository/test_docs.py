"""Docs stay true: what they point at exists, what they show runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_code_that_docs_point_at_exists(doc: Path) -> None:
    """`src/rillm/x.py:Name.method` in backquotes: the file and the names must be there."""
    for path, name in re.findall(r"`(src/[\w/]+\.py)(?::([\w.]+))?`", doc.read_text()):
        assert (ROOT / path).is_file(), path
        for part in name.split(".") if name else []:
            pattern = rf"^\s*(?:class|(?:async )?def) {part}\b|^{part}\b.*="
            assert re.search(pattern, (ROOT / path).read_text(), re.MULTILINE), f"{path}:{name}"


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_links_of_docs_lead_somewhere(doc: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", doc.read_text()):
        assert (doc.parent / target).exists(), target


def test_ci_runs_the_test_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    script = (ROOT / ".ci" / "run").read_text()
    (command,) = [line.strip() for line in readme.splitlines() if "pytest" in line]
    assert command in script


def test_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    source = (ROOT / "src" / "rillm" / "__init__.py").read_text()
    assert f'__version__ = "{project["version"]}"' in source


@pytest.mark.parametrize("script", ["make_formats.py", "make_http.py", "make_localai.py"])
def test_tables_are_up_to_date(script: str) -> None:
    subprocess.run([sys.executable, ROOT / "docs" / script, "--check"], check=True)
