"""Where everything is counted: every face calls the engine here, every request passes here.

Tokens are counted between the engine's client and the join, so that all routes count alike and
none of them knows about it. HTTP is counted around the application. Both write into the record
of the request, which the context of the running task carries from one to the other.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rillm.engine.messages import StepStats
from rillm.errors import CapacityError, RequestError
from rillm.input_processor import TokensPrompt
from rillm.outputs import RequestOutput
from rillm.sampling_params import SamplingParams
from rillm.server.access_log import CURRENT, RequestRecord, log_request, new_record
from rillm.server.metrics import ServerMetrics
from rillm.server.options import OPTIONS, HttpOptions
from rillm.server.paths import is_quiet, route_path
from rillm.server.sampling import SamplingDefaults
from rillm.server.serving_engine import ModelFacts, ServingEngine
from rillm.server.sse import RAW_SEND
from rillm.text.tokenizer import Tokenizer

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_now = time.monotonic


class ObservedEngine:
    """An engine whose requests are counted."""

    def __init__(self, engine: ServingEngine, metrics: ServerMetrics) -> None:
        self._engine = engine
        self._metrics = metrics

    def get_tokenizer(self) -> Tokenizer:
        """The engine's."""
        return self._engine.get_tokenizer()

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
    def engine_stats(self) -> StepStats | None:
        """The engine's."""
        return self._engine.engine_stats

    def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Stream one request's outputs, as the engine does."""
        outputs = self._engine.generate(
            prompt, sampling_params, request_id, priority=priority, stand_ins=stand_ins
        )
        record = CURRENT.get()
        if record is not None:
            # A loaded engine takes or refuses a request before it first waits for anything.
            record.is_admitted = self._engine.ready_info is not None
        return self._count(outputs, _Tally(self._metrics, sampling_params, record))

    async def _count(
        self, outputs: AsyncGenerator[RequestOutput, None], tally: _Tally
    ) -> AsyncGenerator[RequestOutput, None]:
        metrics, histogram = self._metrics, self._metrics.inter_token
        counts, reasons = tally.counts, tally.reasons
        last_time = 0.0
        metrics.num_open += 1
        try:
            # On the path of a token: written out here, since calls would cost as much again.
            async for output in outputs:
                longest = 0
                for choice in output.outputs:
                    if num_new := len(choice.token_ids):
                        counts[choice.index] += num_new
                        metrics.generation_tokens += num_new
                        if num_new > longest:
                            longest = num_new
                    if choice.finish_reason is not None:
                        reasons[choice.index] = choice.finish_reason
                if longest:
                    time_now = _now()
                    if last_time:
                        gap = time_now - last_time
                        histogram.counts[bisect_left(histogram.bounds, gap / longest)] += longest
                        histogram.sum += gap
                    else:
                        tally.add_first(output, time_now, longest)
                    last_time = time_now
                tally.last_output = output
                yield output
        except RequestError:
            tally.is_refused = True
            raise
        except CapacityError:
            tally.is_refused = True
            metrics.rejections += 1
            raise
        except Exception:
            tally.open_reason = "error"
            raise
        finally:
            metrics.num_open -= 1
            await outputs.aclose()
            tally.close()


class _Tally:
    """What one request of the engine has produced so far."""

    __slots__ = (
        "_metrics",
        "_params",
        "_record",
        "_started",
        "counts",
        "is_refused",
        "last_output",
        "open_reason",
        "reasons",
    )

    def __init__(
        self, metrics: ServerMetrics, params: SamplingParams, record: RequestRecord | None
    ) -> None:
        self.counts = [0] * params.n
        self.reasons: list[str | None] = [None] * params.n
        self.last_output: RequestOutput | None = None
        self.is_refused = False
        self.open_reason = "abort"
        self._metrics = metrics
        self._params = params
        self._record = record
        self._started = _now() if record is None else record.started

    def add_first(self, output: RequestOutput, time_now: float, longest: int) -> None:
        """Count a first output with tokens.

        A whole answer comes at once; when its tokens were made, the engine says.
        """
        stats = output.metrics
        spread = stats.last_token_ts - stats.first_token_ts if stats is not None else 0.0
        first_token = time_now - spread - self._started
        self._metrics.first_token.observe(first_token)
        if spread > 0 and longest > 1:
            self._metrics.inter_token.observe(spread / (longest - 1), longest - 1)
        self._metrics.prompt_tokens += len(output.prompt_token_ids)
        if self._record is not None and self._record.first_token is None:
            self._record.first_token = first_token

    def close(self) -> None:
        """Count the request as ended; choices that are still open end with `open_reason`."""
        if self.is_refused:
            return
        output, record = self.last_output, self._record
        reasons = [reason or self.open_reason for reason in self.reasons]
        self._metrics.finish_reasons.update(reasons)
        if record is not None:
            record.finish_reasons += reasons
            if record.aborted_by is None and "abort" in self.reasons:
                record.aborted_by = "request"
        if output is not None:
            self._add_request(output, sum(self.counts), max(self.counts))

    def _add_request(self, output: RequestOutput, num_tokens: int, longest: int) -> None:
        metrics, record = self._metrics, self._record
        num_prompt, num_cached = len(output.prompt_token_ids), output.num_cached_tokens or 0
        metrics.cached_tokens += num_cached
        metrics.end_to_end.observe(_now() - self._started)
        metrics.prompt_length.observe(num_prompt)
        metrics.computed_length.observe(num_prompt - num_cached)
        metrics.generation_length.observe(num_tokens)
        metrics.longest_generation.observe(longest)
        metrics.choices.observe(self._params.n)
        if self._params.max_tokens is not None:
            metrics.max_tokens.observe(self._params.max_tokens)
        if output.metrics is not None:
            metrics.add_times(output.metrics, longest)
        if record is not None:
            record.prompt_tokens += num_prompt
            record.completion_tokens += num_tokens
            record.cached_tokens += num_cached


class ObservedApp:
    """The application, every request of which has a record and an id, and is counted.

    Attributes:
        num_live: requests being answered, probes not counted.
    """

    def __init__(self, metrics: ServerMetrics, options: HttpOptions) -> None:
        self.app: ASGIApp | None = None
        self.num_live = 0
        self._metrics = metrics
        self._options = options

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
        path = route_path(scope)
        record = new_record(scope["method"], path, _header(scope, b"x-request-id"))
        quiet = is_quiet(path)
        self.num_live += not quiet
        token = CURRENT.set(record)
        try:
            await self.app(scope, receive, _with_request_id(send, record))
        except asyncio.CancelledError:
            record.aborted_by = record.aborted_by or "server"
            raise
        finally:
            CURRENT.reset(token)
            self.num_live -= not quiet
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


def _with_request_id(send: Send, record: RequestRecord) -> Send:
    """Wrap a send: the response gets the request's id if it has none, the record its status."""

    async def send_with_id(message: Message) -> None:
        if message["type"] == "http.response.start":
            record.status = message["status"]
            headers = list(message.get("headers", ()))
            if all(name.lower() != b"x-request-id" for name, _ in headers):
                headers.append((b"x-request-id", record.request_id.encode()))
            message = {**message, "headers": headers}
        await send(message)

    return send_with_id


def _header(scope: Scope, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None
