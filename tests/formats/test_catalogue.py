"""Descriptions in files: what they may hold, and what is said of those that are wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rillm.formats.description import Calls, Evidence, Format
from rillm.formats.loader import DescriptionError, load
from rillm.formats.syntax.tagged import Tagged

SHARED = """
[shared.tags]
kind = "tags"
key_open = "<k>"
key_end = ["</k>"]
value_close = "</v>"
[shared.calls]
syntax = "tags"
open = "<calls>"
"""


def loaded(tmp_path: Path, text: str) -> tuple[Format, ...]:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_shared_tables_by_name_and_with_other_fields(tmp_path: Path) -> None:
    tags = Tagged(key_open=("<k>",), key_end=("</k>",), value_close=("</v>",))
    first, second = loaded(
        tmp_path,
        SHARED
        + """
        [[format]]
        names = ["a", "b"]
        family = "A"
        calls = "calls"
        [[format]]
        family = "B"
        calls = { like = "calls", syntax = { like = "tags", is_xml = true }, loose = true }
        evidence = { names = "b", rank = 2 }
        """,
    )
    assert first == Format(
        names=("a", "b"), family="A", calls=Calls(syntax=tags, open=("<calls>",))
    )
    assert second.calls is not None
    assert second.calls.syntax == Tagged(
        key_open=("<k>",), key_end=("</k>",), value_close=("</v>",), is_xml=True
    )
    assert second.calls.loose
    assert second.evidence == Evidence(names=("b",), rank=2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nmaes = 'a'", "nmaes is unknown"),
        ("calls = { like = 'calls', spcae = 'keep' }", "calls.spcae is unknown"),
        (
            "calls = { like = 'calls', space = 'all' }",
            "calls.space must be one of trim, blank, kee",
        ),
        ("calls = { like = 'calls', loose = 1 }", "calls.loose must be of type bool"),
        ("calls = { like = 'calls', open = [1] }", "calls.open must be a string or an array"),
        ("calls = 'others'", "calls.like must be one of tags, calls, is 'others'"),
        ("calls = {}", "calls.syntax is missing"),
        ("calls = { syntax = {} }", "calls.syntax.kind must be one of json, json_array"),
        ("calls = { syntax = { kind = 'yaml' } }", "calls.syntax.kind must be one of json"),
        ("calls = { syntax = { kind = 'tags' } }", "calls.syntax.key_open is missing"),
        ("evidence = { rank = true }", "evidence.rank must be of type int"),
        ("reasoning = 1", "reasoning must be a table"),
        ("header = { open = 'a', end = 'b', route = 'x' }", "header.route must be one of harmony"),
    ],
)
def test_errors_name_file_format_and_key(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        loaded(tmp_path, f"{SHARED}\n[[format]]\nfamily = 'A'\n{line}\n")
    assert f"mine.toml: format 'A': {said}" in str(caught.value)


def test_errors_name_what_has_no_format(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match="mine.toml: unknown key 'formats'"):
        loaded(tmp_path, "[[formats]]\nfamily = 'A'\n")
    with pytest.raises(DescriptionError, match=r"mine.toml: format '\?': family is missing"):
        loaded(tmp_path, "[[format]]\nnames = 'a'\n")


def test_files_are_read_when_a_format_is_asked_for() -> None:
    code = (
        "import sys, rillm.cli, rillm.formats.registry as registry;"
        "sys.exit(registry.all_formats.cache_info().currsize)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
