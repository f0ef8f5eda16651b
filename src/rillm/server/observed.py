"""Where everything is counted: every face calls the engine here, every request passes here.

Tokens are counted between the engine's client and the join, so that all routes count alike and
none of them knows about it. HTTP is counted around the application. Both write into the record
of the request, which the context of the running task carries from one to the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rillm.admission import CLIENT
from rillm.engine.messages import StepStats
from rillm.errors import RillmError
from rillm.input_processor import TokensPrompt
from rillm.outputs import RequestOutput
from rillm.sampling_params import SamplingParams
from rillm.server.access_log import CURRENT, RequestRecord, log_request, new_record
from rillm.server.anthropic.errors import speaks_anthropic
from rillm.server.deadline import TIMEOUT_HEADER, Deadline
from rillm.server.intake import Intake
from rillm.server.live_requests import LiveRequests
from rillm.server.metrics import ServerMetrics
from rillm.server.options import OPTIONS, HttpOptions
from rillm.server.paths import is_quiet, route_path
from rillm.server.sampling import SamplingDefaults
from rillm.server.serving_engine import ModelFacts, ServingEngine
from rillm.server.sse import KEEPER, RAW_SEND, StreamKeeper
from rillm.server.tally import Tally
from rillm.streams import Outputs
from rillm.text.tokenizer import Tokenizer

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_now = time.monotonic


class ObservedEngine:
    """An engine whose requests are counted, and taken as long as the server is to go on."""

    def __init__(self, engine: ServingEngine, metrics: ServerMetrics, intake: Intake) -> None:
        self._engine = engine
        self._metrics = metrics
        self._intake = intake
        self.live = LiveRequests()
        """What it works on."""

    def get_tokenizer(self) -> Tokenizer:
        """The engine's."""
        return self._engine.get_tokenizer()

    async def check_constraint(self, sampling_params: SamplingParams) -> None:
        """Refuse what no output can be constrained to, before anything runs."""
        await self._engine.check_constraint(sampling_params)

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """End live requests, as the engine does."""
        await self._engine.abort(request_id)

    @property
    def model_config(self) -> ModelFacts:
        """The engine's."""
        return self._engine.model_config

    @property
    def max_logprobs(self) -> int:
        """The engine's."""
        return self._engine.max_logprobs

    @property
    def generation_config(self) -> SamplingDefaults:
        """The engine's."""
        return self._engine.generation_config

    @property
    def max_model_len(self) -> int:
        """The engine's."""
        return self._engine.max_model_len

    @property
    def ready_info(self) -> object | None:
        """The engine's."""
        return self._engine.ready_info

    @property
    def errored(self) -> bool:
        """The engine's."""
        return self._engine.errored

    @property
    def is_restarting(self) -> bool:
        """The engine's."""
        return self._engine.is_restarting

    @property
    def num_restarts(self) -> int:
        """The engine's."""
        return self._engine.num_restarts

    @property
    def engine_stats(self) -> StepStats | None:
        """The engine's."""
        return self._engine.engine_stats

    async def open_stream(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> ObservedOutputs:
        """Submit one request, as the engine does.

        Raises:
            ShuttingDownError: the server is about to stop.
            RateLimitError: the caller has reached its limit.
            DeadlineError: the caller's time is over.
            RillmError: as the engine.
        """
        record, client = CURRENT.get(), CLIENT.get()
        tally = Tally(self._metrics, sampling_params, record)
        try:
            deadline = Deadline(record)
            self._intake.enter(client)
            try:
                if record is not None:
                    # A loaded engine takes or refuses a request before it first waits.
                    record.is_admitted = self._engine.ready_info is not None
                outputs = await deadline.wait_for(
                    self._engine.open_stream(
                        prompt, sampling_params, request_id, priority=priority, stand_ins=stand_ins
                    )
                )
            except BaseException:
                self._intake.leave(client, 0)
                raise
        except BaseException as error:
            tally.fail(error)
            tally.close()
            if isinstance(error, RillmError) and self._intake.end_error is not None:
                raise self._intake.end_error from error
            raise
        # The name under which the caller knows it, where it came from one.
        caller_id = request_id if record is None else record.request_id
        self.live.add(client, caller_id, request_id)

        def release() -> None:
            self.live.remove(client, caller_id, request_id)
            self._intake.leave(client, tally.num_tokens)

        return ObservedOutputs(outputs, tally, self._intake, deadline, release)


class ObservedOutputs:
    """One request's outputs, counted as they are taken."""

    def __init__(
        self,
        outputs: Outputs,
        tally: Tally,
        intake: Intake,
        deadline: Deadline,
        release: Callable[[], None],
    ) -> None:
        self._outputs = outputs
        self._tally = tally
        self._intake = intake
        self._release = release
        self._error: RillmError | None = None
        self._is_closed = False
        self._stop_watch = deadline.watch(self.fail)
        intake.add(self)

    @property
    def on_ready(self) -> Callable[[], None]:
        """The engine's."""
        return self._outputs.on_ready

    @on_ready.setter
    def on_ready(self, callback: Callable[[], None]) -> None:
        self._outputs.on_ready = callback

    @property
    def on_token(self) -> Callable[[int], bool] | None:
        """The engine's."""
        return self._outputs.on_token

    @on_token.setter
    def on_token(self, callback: Callable[[int], bool] | None) -> None:
        self._outputs.on_token = None if callback is None else self._tally.counting(callback)

    @property
    def is_steady(self) -> bool:
        """The engine's."""
        return self._outputs.is_steady

    def skip(self, num_tokens: int) -> None:
        """As the engine; they have been counted here as they came."""
        self._outputs.skip(num_tokens)

    def take(self) -> RequestOutput | None:
        """What there is to read, or None; as the engine."""
        try:
            output = self._outputs.take()
            if output is None and self._error is not None:
                raise self._error
        except Exception as error:
            # What has been ended may fail on top of it: the engine stops, too.
            self._tally.fail(self._error or error)
            if self._error is None:
                raise
            raise self._error from None
        if output is not None:
            self._tally.add(output)
        return output

    def fail(self, error: RillmError) -> None:
        """End with an error, after what there is to read; the first one counts.

        The engine is rid of it at once, however slowly it is read.
        """
        self._error, tell = self._error or error, self.on_ready
        self._outputs.close()
        tell()

    def close(self, reasons: Sequence[str | None] = ()) -> None:
        """Close the engine's; the request counts as ended, for these reasons."""
        if not self._is_closed:
            self._is_closed = True
            self._stop_watch()
            self._intake.remove(self)
            self._outputs.close(reasons)
            self._release()
            self._tally.close(reasons)


class ObservedApp:
    """The application, every request of which has a record and an id, and is counted.

    Attributes:
        intake: what is being answered.
    """

    def __init__(
        self, metrics: ServerMetrics, intake: Intake, options: HttpOptions, keeper: StreamKeeper
    ) -> None:
        self.app: ASGIApp | None = None
        self.intake = intake
        self._metrics = metrics
        self._options = options
        self._keeper = keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert self.app is not None
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self._options.root_path:
            scope["root_path"] = self._options.root_path
        scope[OPTIONS] = self._options
        scope[RAW_SEND] = send
        scope[KEEPER] = self._keeper
        path = route_path(scope)
        record = new_record(scope["method"], path, _header(scope, b"x-request-id"))
        record.timeout = _header(scope, TIMEOUT_HEADER.lower().encode())
        quiet = is_quiet(path)
        self.intake.num_answers += not quiet
        token = CURRENT.set(record)
        try:
            await self.app(scope, receive, _with_request_id(send, record, scope))
        except asyncio.CancelledError:
            record.aborted_by = record.aborted_by or "server"
            raise
        finally:
            CURRENT.reset(token)
            self.intake.num_answers -= not quiet
            if not quiet:
                self._end(record, scope)

    def _end(self, record: RequestRecord, scope: Scope) -> None:
        log_request(record, self._options.request_log)
        handler: Any = scope.get("route")
        self._metrics.add_http(
            "none" if handler is None else handler.path,
            record.method if record.method in _METHODS else "other",
            record.status or 500,
            _now() - record.started,
        )


def _with_request_id(send: Send, record: RequestRecord, scope: Scope) -> Send:
    """Wrap a send: the response gets the request's id if it has none, the record its status."""
    is_anthropic = speaks_anthropic(scope)

    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.status = message["status"]
            headers = list(message.get("headers", ()))
            if all(name.lower() != b"x-request-id" for name, _ in headers):
                headers.append((b"x-request-id", record.request_id.encode()))
            if is_anthropic:
                headers.append((b"request-id", record.request_id.encode()))
            message = {**message, "headers": headers}
        await send(message)

    return send_with_id


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None
