"""An engine's outputs, as an asynchronous generator of a test makes them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import msgspec

from rillm.input_processor import TokensPrompt
from rillm.outputs import RequestOutput
from rillm.sampling_params import SamplingParams
from rillm.streams import Outputs


class GeneratedOutputs(Outputs):
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


class GeneratingEngine(ABC):
    """The part of an engine that opens streams, for one whose outputs a generator makes.

    Attributes:
        num_live: streams that are open.
    """

    num_live = 0

    @abstractmethod
    def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]: ...

    async def open_stream(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> GeneratedOutputs:
        outputs = self.generate(
            prompt, sampling_params, request_id, priority=priority, stand_ins=stand_ins
        )
        self.num_live += 1
        return GeneratedOutputs(outputs, self._release)

    def _release(self) -> None:
        self.num_live -= 1
