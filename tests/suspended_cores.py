"""Engine cores that stand still.

A core makes thousands of tokens a second, whoever reads them. A test that has to do something
before a stream ends lets the core stand still while it does it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from rillm.async_llm import AsyncLLM
from rillm.engine.running_core import CORE_MODULE


def cores(parent: int | None = None, module: str = CORE_MODULE) -> list[psutil.Process]:
    """The living cores that a process has started; None: this one."""
    found = []
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if module in child.cmdline():
                found.append(child)
    return found


def core_of(llm: AsyncLLM) -> psutil.Process:
    """The core of an engine."""
    process = llm._client._core._process
    assert process is not None
    return psutil.Process(process.pid)


@contextmanager
def suspended(core: psutil.Process) -> Iterator[None]:
    """Let a core stand still; what it has said still arrives, and nothing else."""
    core.suspend()
    try:
        yield
    finally:
        # Its server may have ended it meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            core.resume()
