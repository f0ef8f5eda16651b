"""The fenced blocks of the documentation, and what is said about them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDRESS = "127.0.0.1:8000"
"""Where examples expect a server of the bundled model."""

_FENCE = re.compile(r"( *)```(.*)")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    doc: Path
    line: int
    """Of its first line of text, from 1."""
    language: str
    text: str
    not_run: str | None
    """Why it is not run; None where it is."""

    def __str__(self) -> str:
        return f"{self.doc.name}:{self.line}"


def blocks_of(doc: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    lines = doc.read_text(encoding="utf-8").splitlines()
    found = []
    at = 0
    while at < len(lines):
        opening = _FENCE.fullmatch(lines[at])
        if opening is None:
            at += 1
            continue
        end = next(i for i in range(at + 1, len(lines)) if lines[i] == f"{opening[1]}```")
        marker = _NOT_RUN.fullmatch(lines[at - 1].strip()) if at else None
        text = textwrap.dedent("\n".join(lines[at + 1 : end])) + "\n"
        found.append(Block(doc, at + 2, opening[2], text, marker and marker[1]))
        at = end + 1
    return found


def all_blocks(*languages: str) -> list[Block]:
    """Blocks of some languages, on all pages."""
    return [each for doc in DOCS for each in blocks_of(doc) if each.language in languages]


def as_program(blocks: Iterable[Block]) -> str:
    """Blocks of one page as one program, every line where it stands on the page."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.text.splitlines()
    return "\n".join(lines) + "\n"


def prose_of(doc: Path) -> list[str]:
    """The lines of a page that are in no fenced block."""
    lines: list[str] = []
    is_fenced = False
    for line in doc.read_text(encoding="utf-8").splitlines():
        if _FENCE.fullmatch(line):
            is_fenced = not is_fenced
        elif not is_fenced:
            lines.append(line)
    return lines
