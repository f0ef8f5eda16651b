"""What is being answered, and whether more is taken."""

from __future__ import annotations

from typing import Protocol

from rillm.errors import RillmError, ShuttingDownError
from rillm.server.metrics import ServerMetrics


class Endable(Protocol):
    """A stream that can be ended from outside."""

    def fail(self, error: RillmError) -> None:
        """End with an error, after what there is to read."""


class LiveRequests:
    """Everything that is being answered by one application.

    Attributes:
        num_answers: HTTP requests that are being answered, probes not counted.
        is_draining: nothing new is generated: the server is about to stop.
        end_error: what all streams have been ended with; None while they go on.
    """

    def __init__(self, metrics: ServerMetrics) -> None:
        self.num_answers = 0
        self.is_draining = False
        self.end_error: RillmError | None = None
        self._metrics = metrics
        self._streams: set[Endable] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being answered, and nothing generated in the background."""
        return not self.num_answers and not self._metrics.num_open

    def check(self) -> None:
        """Refuse to generate any more.

        Raises:
            ShuttingDownError: the server is about to stop.
        """
        if self.is_draining:
            raise ShuttingDownError("the server is shutting down and takes no new requests")

    def add(self, stream: Endable) -> None:
        """Take note of a stream that has been opened."""
        self._streams.add(stream)

    def remove(self, stream: Endable) -> None:
        """Forget a stream that has been closed."""
        self._streams.discard(stream)

    def end(self) -> None:
        """End every stream with an error, after what has been generated. Idempotent."""
        self.is_draining = True
        self.end_error = ShuttingDownError("the server is shutting down before the answer's end")
        for stream in list(self._streams):
            stream.fail(self.end_error)
