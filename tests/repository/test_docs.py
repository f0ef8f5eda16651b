"""Docs stay true: what they point at exists, what they show runs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from doc_blocks import DOCS, ROOT, prose_of


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_code_that_docs_point_at_exists(doc: Path) -> None:
    """`src/rillm/x.py:Name.method` in backquotes: the file and the names must be there."""
    for path, name in re.findall(r"`(src/[\w/]+\.py)(?::([\w.]+))?`", doc.read_text()):
        assert (ROOT / path).is_file(), path
        for part in name.split(".") if name else []:
            pattern = rf"^\s*(?:class|(?:async )?def) {part}\b|^{part}\b.*="
            assert re.search(pattern, (ROOT / path).read_text(), re.MULTILINE), f"{path}:{name}"


def anchors_of(page: Path) -> set[str]:
    """What links can name of a page: its headings, as sites of Markdown spell them."""
    titles = [line.lstrip("#").strip() for line in prose_of(page) if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_links_of_docs_lead_somewhere(doc: Path) -> None:
    links = re.findall(
        r"""(?:\]\(|src="|srcset=")(?!https?:)([^)#"]*)(?:#([^)"]+))?""", doc.read_text()
    )
    for target, anchor in links:
        page = doc.parent / target if target else doc
        assert page.exists(), target
        assert not anchor or anchor in anchors_of(page), f"{target}#{anchor}"


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"- [\w ]+: (\S+\.md)\n", navigation)
    assert sorted(listed) == [page.name for page in sorted((ROOT / "docs").glob("*.md"))]
    overview = re.findall(r"^\* \[[\w ]+\]\((\S+)\)", (ROOT / "docs/index.md").read_text(), re.M)
    assert overview == [page for page in listed if page != "index.md"]


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
