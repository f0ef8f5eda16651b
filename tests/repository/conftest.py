from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def served_address() -> Iterator[str]:
    """Host and port of a server of the bundled model, as the documentation has readers start it."""
    # In float32, so that an answer does not depend on what the prefix cache holds.
    small = ["--kv-cache-memory-bytes", str(64 * 2**20), "--num-threads", "1", "--dtype", "float32"]
    command = [sys.executable, "-m", "rillm", "serve", "--port", "0", *small]
    with subprocess.Popen(
        [*command, "--request-log", "off"], stderr=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stderr is not None
        try:
            line = serving.stderr.readline()
            found = re.search(r" at http://(\S+)$", line)
            assert found, line
            yield found[1]
        finally:
            serving.terminate()
            serving.communicate()
