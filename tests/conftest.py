"""What all tests share: one CPU thread for models this small, asyncio for asynchronous tests."""

from __future__ import annotations

import os

# Before torch is imported, here and in the engine processes that tests start: on tiny tensors
# a second thread only waits for the first.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
