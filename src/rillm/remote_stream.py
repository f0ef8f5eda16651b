"""One request on its way from an engine elsewhere to its reader."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from rillm.engine.messages import PromptInfo, RequestTimes, TokenDelta
from rillm.errors import EngineGenerateError
from rillm.input_processor import ProcessedRequest
from rillm.output_processor import RequestState
from rillm.output_stream import OutputStream
from rillm.outputs import RequestOutput
from rillm.token_wire import MAX_ID_LENGTH, Answer, choice_deltas, prompt_info

_ID_PREFIX: Final = "generate-tokens-"
"""What servers put before an id to name the answer."""
_UNPRINTABLE: Final = re.compile(r"[^!-~]")


class RemoteStream(OutputStream):
    """Takes in what an engine says, and wakes the reader.

    The last finish of a request waits for the end of its stream, because the usage follows it.

    Attributes:
        wire_id: the name it has on the way to the engine, its own.
        name_there: the name by which the engine can end it.
        url: of the engine that is being asked.
        task: what feeds this stream.
        is_aborted: whether the request was ended from here.
        has_begun: whether a token has come, so that no other engine can be asked.
        kv_transfer_params: what the engine said for whoever continues from its cache.
    """

    def __init__(self, request_id: str, release: Callable[[RemoteStream], None]) -> None:
        super().__init__(request_id, release)
        suffix = f"-{secrets.token_hex(4)}"
        printable = _UNPRINTABLE.sub("_", request_id)
        self.wire_id = printable[: MAX_ID_LENGTH - len(suffix)] + suffix
        self.name_there = _ID_PREFIX + self.wire_id
        self.url: str | None = None
        self.task: asyncio.Task[None] | None = None
        self.is_aborted = False
        self.has_begun = False
        self.kv_transfer_params: dict[str, Any] | None = None
        self._processed: ProcessedRequest | None = None
        self._open: set[int] = set()
        self._info: PromptInfo | None = None
        self._last: TokenDelta | None = None
        self._started = 0.0
        self._first_token = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether every choice has ended, without a finish that waits for the usage."""
        return not self._open

    @property
    def has_finish(self) -> bool:
        """Whether every choice has ended."""
        return self.is_complete or self._last is not None

    def begin(self, processed: ProcessedRequest, state: RequestState) -> None:
        """Start with a request that has passed all checks."""
        self.state = state
        self._processed = processed
        self._open = set(range(processed.request.n))
        self._started = time.monotonic()
        if self.is_aborted:
            self.state.abort()

    def add(self, answer: Answer) -> None:
        """Take in a whole answer, or a chunk.

        Raises:
            EngineGenerateError: the answer says that a choice failed, or is malformed.
        """
        processed = self._processed
        assert processed is not None
        request, params = processed.request, processed.params
        table = params.prompt_logprob_token_ids
        self._info = prompt_info(answer, request.prompt_token_ids, table) or self._info
        self.kv_transfer_params = answer.kv_transfer_params or self.kv_transfer_params
        self.name_there = answer.request_id or self.name_there
        has_news = False
        for delta in choice_deltas(answer):
            if not 0 <= delta.choice < request.n:
                raise EngineGenerateError(f"an engine answered with a choice {delta.choice}")
            if delta.token_ids or delta.finish_reason is not None:
                has_news |= self._take(delta, request.params.eos_token_id)
        if has_news:
            self.wake()

    def end(self) -> None:
        """Take note that the engine has said everything.

        Raises:
            EngineGenerateError: it has not.
        """
        last, self._last = self._last, None
        if last is not None:
            self._put(last)
        if self._open:
            raise EngineGenerateError("an engine ended a stream before its last token")
        self.wake()

    def abort(self) -> None:
        """End all open choices with finish reason `abort`."""
        self.is_aborted = True
        if self._processed is not None:
            self._open.clear()
            self.state.abort()
            self.stop()
        self.wake()

    def stop(self) -> None:
        """Close the connection, unless everything has come."""
        if self.task is not None:
            self.task.cancel()

    def take(self) -> RequestOutput | None:
        """What there is to read, or None.

        Raises:
            RillmError: the request was refused, or failed; all that came before has been taken.
        """
        output = super().take()
        if output is not None:
            output.kv_transfer_params = self.kv_transfer_params
        return output

    def _take(self, delta: TokenDelta, eos_token_id: int | None) -> bool:
        """Take in a delta; whether the reader has something to look at."""
        now = time.monotonic()
        self._first_token = self._first_token or now
        if not self.has_begun or delta.finish_reason is not None:
            delta.times = RequestTimes(self._started, self._started, self._first_token, now, 0)
        self.has_begun = True
        if delta.finish_reason == "stop" and delta.token_ids:
            # An engine without a tokenizer may not know which token is the end of sequence.
            stop_id = delta.token_ids[-1]
            delta.stop_token_id = None if stop_id == eos_token_id else stop_id
        if delta.finish_reason is not None and self._open == {delta.choice}:
            self._last = delta
            return False
        return self._put(delta)

    def _put(self, delta: TokenDelta) -> bool:
        delta.prompt, self._info = self._info, None
        if self.has_told(delta):
            return False
        has_stopped = self.state.add(delta)
        if has_stopped or delta.finish_reason is not None:
            self._open.discard(delta.choice)
        return True
