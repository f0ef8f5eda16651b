from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plug-ins find each other; the stand-in is gone afterwards."""
    monkeypatch.syspath_prepend(str(PLUGINS))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "vllm" or name.endswith("_plugin"):
            del sys.modules[name]
