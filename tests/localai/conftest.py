from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest


@pytest.fixture(scope="module")
async def one_event_loop() -> AsyncIterator[None]:
    """One loop for all tests of a file that use gRPC: grpc.aio does not survive the end of one."""
    yield
    # What channels and servers still have to say is said while there is a loop to say it to.
    gc.collect()
    await asyncio.sleep(0.1)
