"""Awaitables that are mostly done at once, run without a task."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Any


def run_to_pause(work: Awaitable[None]) -> Awaitable[None] | None:
    """Run something up to where it first waits.

    A task for each write would cost more than the write. (`asyncio.eager_task_factory` does this
    from Python 3.12 on, but makes a task all the same.)

    Returns:
        None if it is done, else what awaits the rest of it.

    Raises:
        BaseException: what it raised.
    """
    steps = work.__await__()
    try:
        awaited = next(steps)
    except StopIteration:
        return None
    return _Rest(steps, awaited)


class _Rest:
    """Work that waits for something."""

    def __init__(self, steps: Generator[Any, Any, None], awaited: Any) -> None:
        self._steps = steps
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        awaited = self._awaited
        try:
            while True:
                try:
                    sent = yield awaited
                except BaseException as error:  # noqa: BLE001 - for the work to deal with
                    awaited = self._steps.throw(error)
                else:
                    awaited = self._steps.send(sent)
        except StopIteration:
            return
