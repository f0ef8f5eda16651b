"""What all tests share: one CPU thread for models this small, asyncio for asynchronous tests."""

from __future__ import annotations

import gc
import os

# Before torch is imported, here and in the engine processes that tests start: on tiny tensors
# a second thread only waits for the first.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("rillm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rillm")


def pytest_collection_finish() -> None:
    # What the imports of all tests leave is half a million objects: each full collection of them
    # would halt this process, and the servers in it, for a quarter of a second.
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
