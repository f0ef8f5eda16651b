"""One request on its way from an engine to its reader.

The reader is told that there is something to take, and takes it when it likes: what it has not
taken is merged, so a slow reader gets fewer, larger outputs. `take` is a plain call, so that an
output can be passed on to a socket without waking a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from rillm.engine.messages import TokenDelta
from rillm.errors import RillmError
from rillm.output_processor import RequestState
from rillm.outputs import RequestOutput


class OutputStream:
    """The reading end of one request; whoever feeds it fills `state` and calls `wake`.

    Attributes:
        request_id: the caller's name for the request.
        state: what has been produced and not yet taken; there once the request has begun.
        on_ready: called when there may be something to take; the reader sets it. It must not
            raise. What came before it was set is not announced: take first, then wait.
        on_token: see `rillm.streams.Outputs`.
    """

    __slots__ = (
        "__weakref__",
        "_error",
        "_is_closed",
        "_release",
        "on_ready",
        "on_token",
        "request_id",
        "state",
    )

    state: RequestState

    def __init__(self, request_id: str, release: Callable[[Any], None]) -> None:
        """Begin a stream.

        Args:
            request_id: the caller's name for it.
            release: called once with this stream when it is closed.
        """
        self.request_id = request_id
        self.on_ready: Callable[[], None] = _nobody
        self.on_token: Callable[[int], bool] | None = None
        self._release = release
        self._is_closed = False
        self._error: RillmError | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the last output has been taken."""
        return self.state.is_finished

    @property
    def is_steady(self) -> bool:
        """See `rillm.streams.Outputs`."""
        return self.state.is_steady

    def skip(self, num_tokens: int) -> None:
        """See `rillm.streams.Outputs`."""
        self.state.skip(num_tokens)

    def take(self) -> RequestOutput | None:
        """What there is to read, or None.

        Raises:
            RillmError: the request was refused, or failed; all that came before has been taken.
        """
        output = self.state.take()
        if output is None and self._error is not None:
            raise self._error
        return output

    def has_told(self, delta: TokenDelta) -> bool:
        """Offer the reader a token that comes alone.

        Returns:
            Whether it has been told, so that it is not to be added to `state`.
        """
        return (
            self.on_token is not None
            and len(delta.token_ids) == 1
            and delta.finish_reason is None
            and delta.prompt is None
            and delta.times is None
            and self.on_token(delta.token_ids[0])
        )

    def wake(self) -> None:
        """Let the reader look."""
        self.on_ready()

    def fail(self, error: RillmError) -> None:
        """End with an error, after what has come so far."""
        self._error = self._error or error
        self.wake()

    def close(self, reasons: Sequence[str | None] = ()) -> None:
        """Forget the request; aborts it unless it has finished. Idempotent.

        Args:
            reasons: of no use here; see `rillm.streams.Outputs`.
        """
        if not self._is_closed:
            self._is_closed = True
            self.on_ready = _nobody
            self.on_token = None
            self._release(self)

    async def read(self) -> AsyncGenerator[RequestOutput, None]:
        """Yield outputs to the last one; closes the stream at the end, and when left early.

        Raises:
            RillmError: as `take`.
        """
        changed = asyncio.Event()
        self.on_ready = changed.set
        try:
            while not self.is_finished:
                output = self.take()
                if output is not None:
                    yield output
                else:
                    await changed.wait()
                    changed.clear()
        finally:
            self.close()


def _nobody() -> None:
    """Tell nobody."""
