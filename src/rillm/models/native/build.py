"""Compiles the C sources of this folder, once for each version of them, processor and user.

The library goes to the user's cache directory. Where that cannot be trusted or written to, it is
compiled into a directory of the process's own, which is gone when the process ends.

`python -m rillm.models.native.build` does it ahead of time, for an image; it fails where nothing
can be compiled.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SOURCE = Path(__file__).parent / "decoder.c"
"""What is compiled; it includes all else."""
FLAGS = (
    "-O3",
    "-std=gnu11",
    "-shared",
    "-fPIC",
    "-mavx512f",
    "-mavx512bw",
    "-mavx512vl",
    "-mavx512dq",
    "-mfma",
)
"""Not -march=native: machines may share the cache, and these instructions are all it needs."""
BF16_FLAG = "-mavx512bf16"
"""For processors that multiply bfloat16: twice as fast where arithmetic is the bound."""
_TIMEOUT_S = 120

logger = logging.getLogger(__name__)


def build_library(*, has_bf16: bool) -> Path | None:
    """Find or make the shared library.

    Args:
        has_bf16: with AVX512-BF16, which not every processor with AVX-512 has.

    Returns:
        Its file; None where there is no compiler, or none that knows these instructions. The
        log says which.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or _found("cc") or _found("gcc")
    if not compiler:
        logger.warning("no C compiler (cc) on the path: decoding by torch operators, more slowly")
        return None
    compiler += [*FLAGS, BF16_FLAG] if has_bf16 else FLAGS
    name = f"decoder-{_fingerprint(compiler)}.so"
    directory = _cache_directory() or _own_directory()
    library = directory / name
    if library.exists():
        return library
    if not os.access(directory, os.W_OK):
        directory = _own_directory()
        library = directory / name
    partial = directory / f"{library.name}.{os.getpid()}.{threading.get_ident()}"
    command = [*compiler, "-o", str(partial), str(SOURCE), "-lm"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
        # At once: another process may be looking for the same file.
        partial.replace(library)
    except (OSError, subprocess.SubprocessError) as error:
        partial.unlink(missing_ok=True)
        words = getattr(error, "stderr", None) or str(error)
        logger.warning(
            "%s cannot compile the decoder: decoding by torch operators, more slowly\n%s",
            compiler[0],
            words,
        )
        return None
    return library


def _found(name: str) -> list[str]:
    path = shutil.which(name)
    return [] if path is None else [path]


def _fingerprint(compiler: list[str]) -> str:
    digest = hashlib.sha256(shlex.join(compiler).encode())
    for source in sorted(SOURCE.parent.glob("*.[ch]")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _cache_directory() -> Path | None:
    """A directory that only the user, or root, can write to: what lies there is run."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(home) / "rillm"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except (OSError, RuntimeError):
        return None
    is_shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return directory if status.st_uid in (0, os.getuid()) and not is_shared else None


def _own_directory() -> Path:
    global _temporary
    if _temporary is None:
        _temporary = tempfile.TemporaryDirectory(prefix="rillm-")
    return Path(_temporary.name)


_temporary: tempfile.TemporaryDirectory[str] | None = None

if __name__ == "__main__":
    sys.exit(None in [build_library(has_bf16=each) for each in (True, False)])
