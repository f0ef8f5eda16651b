"""What is being answered, and whether more is taken."""

from __future__ import annotations

from typing import Protocol

from rillm.errors import RillmError, ShuttingDownError
from rillm.server.key_limits import KeyLimits
from rillm.server.metrics import ServerMetrics
from rillm.server.options import HttpOptions


class Endable(Protocol):
    """A stream that can be ended from outside."""

    def fail(self, error: RillmError) -> None:
        """End with an error, after what there is to read."""


class Intake:
    """Everything that is being answered by one application.

    Attributes:
        num_answers: HTTP requests that are being answered, probes not counted.
        is_draining: nothing new is generated: the server is about to stop.
        end_error: what all streams have been ended with; None while they go on.
    """

    def __init__(self, metrics: ServerMetrics, options: HttpOptions) -> None:
        self.num_answers = 0
        self.is_draining = False
        self.end_error: RillmError | None = None
        self._metrics = metrics
        self._limits = KeyLimits(options)
        self._streams: set[Endable] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being answered, and nothing generated in the background."""
        return not self.num_answers and not self._metrics.num_open

    def enter(self, client: str) -> None:
        """Let a request in; whoever calls this calls `leave` at its end.

        Args:
            client: whose it is.

        Raises:
            ShuttingDownError: the server is about to stop.
            RateLimitError: the client has reached its limit.
        """
        if self.is_draining:
            raise ShuttingDownError("the server is shutting down and takes no new requests")
        self._limits.enter(client)

    def leave(self, client: str, num_tokens: int) -> None:
        """Count a request that was let in as ended.

        Args:
            client: whose it was.
            num_tokens: of its prompt and its output together.
        """
        self._limits.leave(client, num_tokens)

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
