"""Compiling the decoder: once, into a directory nobody else can write to, or not at all."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rillm.models.native import build, library

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "rillm"


def test_it_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = build.build_library(has_bf16=True)
    assert library is not None
    assert list(cache.iterdir()) == [library]

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert build.build_library(has_bf16=True) == library


def test_what_root_has_compiled_is_used_by_others(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image: the cache was filled when it was made, and belongs to root."""
    library = build.build_library(has_bf16=True)
    if cache.stat().st_uid != 0:
        pytest.skip("is not root")
    monkeypatch.setattr(os, "getuid", lambda: 65534)
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != cache and may(path, mode))
    assert build.build_library(has_bf16=True) == library
    assert library is not None
    library.unlink()
    other = build.build_library(has_bf16=True)
    assert other is not None
    assert other.parent != cache


def test_processors_and_flags_have_libraries_of_their_own(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build.build_library(has_bf16=True)
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g0"))
    assert build.build_library(has_bf16=True) != library
    assert build.build_library(has_bf16=False) != library
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_directory_that_others_can_write_to_is_not_trusted(cache: Path, mode: int) -> None:
    cache.mkdir()
    cache.chmod(mode)
    library = build.build_library(has_bf16=True)
    assert library is not None
    assert list(cache.iterdir()) == []
    assert library.exists()
    assert library.parent.stat().st_mode & 0o077 == 0


def test_a_cache_that_cannot_be_made_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    library = build.build_library(has_bf16=True)
    assert library is not None
    assert library.exists()


def test_without_a_compiler_there_is_none(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(cache))
    with caplog.at_level(logging.WARNING):
        assert build.build_library(has_bf16=True) is None
    assert "no C compiler" in caplog.text


def test_a_compiler_may_come_with_options(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -pipe")
    assert build.build_library(has_bf16=True) is not None


def test_a_compiler_that_fails_leaves_nothing(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    compiler = tmp_path / "old-cc"
    compiler.write_text("#!/bin/sh\necho 'unrecognized option -mavx512bf16' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with caplog.at_level(logging.WARNING):
        assert build.build_library(has_bf16=True) is None
    assert "unrecognized option" in caplog.text
    assert list(cache.iterdir()) == []


def test_a_library_that_cannot_be_loaded_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "decoder.so"
    file.write_bytes(b"not a library")
    monkeypatch.setattr(library, "build_library", lambda has_bf16: file)
    with caplog.at_level(logging.WARNING):
        assert library.load_library.__wrapped__(has_bf16=True) is None
    assert "decoder.so" in caplog.text
