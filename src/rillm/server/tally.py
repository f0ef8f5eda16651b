"""What one request of the engine has produced so far, for metrics, the log and limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import zip_longest

from rillm.errors import CapacityError, RateLimitError, RequestError
from rillm.outputs import RequestOutput
from rillm.sampling_params import SamplingParams
from rillm.server.access_log import RequestRecord
from rillm.server.metrics import ServerMetrics

_now = time.monotonic


class Tally:
    """What one request of the engine has produced so far."""

    __slots__ = (
        "_counts",
        "_is_refused",
        "_last_output",
        "_last_time",
        "_metrics",
        "_on_token",
        "_open_reason",
        "_params",
        "_reasons",
        "_record",
        "_started",
    )

    def __init__(
        self, metrics: ServerMetrics, params: SamplingParams, record: RequestRecord | None
    ) -> None:
        self._counts = [0] * params.n
        self._reasons: list[str | None] = [None] * params.n
        self._last_output: RequestOutput | None = None
        self._last_time = 0.0
        self._is_refused = False
        self._open_reason = "abort"
        self._metrics = metrics
        self._params = params
        self._record = record
        self._started = _now() if record is None else record.started
        metrics.num_open += 1

    def add(self, output: RequestOutput) -> None:
        """Count an output."""
        metrics = self._metrics
        longest = 0
        for choice in output.outputs:
            if num_new := len(choice.token_ids):
                self._counts[choice.index] += num_new
                metrics.generation_tokens += num_new
                if num_new > longest:
                    longest = num_new
            if choice.finish_reason is not None:
                self._reasons[choice.index] = choice.finish_reason
        if longest:
            time_now = _now()
            if self._last_time:
                gap = (time_now - self._last_time) / longest
                metrics.inter_token.observe(gap, longest)
            else:
                self._add_first(output, time_now, longest)
            self._last_time = time_now
        self._last_output = output

    def counting(self, on_token: Callable[[int], bool]) -> Callable[[int], bool]:
        """Wrap an `on_token` (see `rillm.streams.Outputs`): what it takes is counted."""
        self._on_token = on_token
        return self._take_token

    def _take_token(self, token_id: int) -> bool:
        """Count a token of the only choice, which came neither first nor with an output."""
        if not self._on_token(token_id):
            return False
        metrics, time_now = self._metrics, _now()
        self._counts[0] += 1
        metrics.generation_tokens += 1
        metrics.inter_token.observe(time_now - self._last_time)
        self._last_time = time_now
        return True

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt, once there was an answer to it, and of the output."""
        output = self._last_output
        return sum(self._counts) + (0 if output is None else len(output.prompt_token_ids))

    def fail(self, error: BaseException) -> None:
        """Take note of how the request ends."""
        if isinstance(error, RequestError | CapacityError) and self._last_output is None:
            self._is_refused = True
            if isinstance(error, CapacityError):
                is_own = isinstance(error, RateLimitError)
                self._metrics.rejections["key_limit" if is_own else "capacity"] += 1
        elif isinstance(error, Exception):
            self._open_reason = "error"

    def _add_first(self, output: RequestOutput, time_now: float, longest: int) -> None:
        """Count a first output with tokens.

        A whole answer comes at once; when its tokens were made, the engine says.
        """
        stats = output.metrics
        spread = stats.last_token_ts - stats.first_token_ts if stats is not None else 0.0
        first_token = time_now - spread - self._started
        self._metrics.first_token.observe(first_token)
        if stats is not None and longest > 1:
            self._metrics.inter_token.observe(spread / (longest - 1), longest - 1)
        self._metrics.prompt_tokens += len(output.prompt_token_ids)
        if self._record is not None and self._record.first_token is None:
            self._record.first_token = first_token

    def close(self, told: Sequence[str | None] = ()) -> None:
        """Count the request as ended; choices that are still open end with abort, or the error.

        Args:
            told: the finish reason of each choice as its reader was told.
        """
        self._metrics.num_open -= 1
        if self._is_refused:
            return
        output, record = self._last_output, self._record
        known = [reason or engines for reason, engines in zip_longest(told, self._reasons)]
        reasons = [reason or self._open_reason for reason in known]
        self._metrics.finish_reasons.update(reasons)
        if record is not None:
            record.finish_reasons += reasons
            if record.aborted_by is None and "abort" in self._reasons:
                record.aborted_by = "request"
        if output is not None:
            self._add_request(output, sum(self._counts), max(self._counts))

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
