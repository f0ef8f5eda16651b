"""An engine's outputs, as an asynchronous generator of a test makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec

from rillm.outputs import RequestOutput


class GeneratedOutputs:
    """What a generator yields, for a reader to take; each output waits for the one before."""

    def __init__(
        self, generator: AsyncGenerator[RequestOutput, None], release: Callable[[], None]
    ) -> None:
        self.on_ready: Callable[[], None] = lambda: None
        self._release = release
        self._is_closed = False
        self._generator = generator
        self._last = RequestOutput("", None, [], [], finished=True)
        self._next: asyncio.Task[RequestOutput | None] = self._ask()

    def take(self) -> RequestOutput | None:
        if not self._next.done() or self._next.cancelled():
            return None
        output = self._next.result()
        if output is None:
            # An engine's last output has the finish; a script may end without.
            return msgspec.structs.replace(self._last, outputs=[], finished=True)
        self._last = output
        self._next = self._ask()
        return output

    def close(self, reasons: Sequence[str | None] = ()) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._next.cancel()
            self._release()

    def _ask(self) -> asyncio.Task[RequestOutput | None]:
        task = asyncio.create_task(self._read())
        task.add_done_callback(lambda task: task.cancelled() or self.on_ready())
        return task

    async def _read(self) -> RequestOutput | None:
        return await anext(self._generator, None)
