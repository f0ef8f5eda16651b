"""Several streams read as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def merge(
    generators: Sequence[AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """Yield (position, item) of all generators as they come; closes all of them at the end."""
    if len(generators) == 1:
        async with aclosing(generators[0]) as items:
            async for item in items:
                yield 0, item
        return
    pending: dict[asyncio.Task[T | None], int] = {}
    for position, generator in enumerate(generators):
        pending[asyncio.create_task(_next(generator))] = position
    try:
        while pending:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            # Insertion order, not the set's: the same outputs merge in the same order.
            for task in [task for task in pending if task in done]:
                next_item = task.result()
                position = pending.pop(task)
                if next_item is not None:
                    pending[asyncio.create_task(_next(generators[position]))] = position
                    yield position, next_item
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for generator in generators:
            await generator.aclose()


async def _next(generator: AsyncGenerator[T, None]) -> T | None:
    return await anext(generator, None)
