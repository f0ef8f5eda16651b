"""The formats stay small enough to read in an hour."""

from __future__ import annotations

import ast
from pathlib import Path

import rillm

FORMATS = Path(rillm.__file__).parent / "formats"
LIMIT = 3500


def strings_that_stand_alone(tree: ast.AST) -> set[int]:
    """Numbers of the lines of docstrings, those of attributes included."""
    return {
        number
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def num_lines(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    skipped = strings_that_stand_alone(ast.parse(text)) if path.suffix == ".py" else set()
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in skipped
        for number, line in enumerate(text.splitlines(), start=1)
    )


def test_the_formats_are_under_3500_lines() -> None:
    """Python and descriptions together, without blank lines, comments and docstrings."""
    sizes = {
        path: num_lines(path) for path in FORMATS.rglob("*") if path.suffix in (".py", ".toml")
    }
    assert len(sizes) > 50
    assert sum(sizes.values()) < LIMIT, sorted(sizes.items(), key=lambda item: -item[1])
