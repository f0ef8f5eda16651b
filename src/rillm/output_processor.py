"""From token deltas to outputs: text, stop strings, logprobs, one state object a choice.

Deltas are taken in as they come, so that a stop string ends its choice at once however slowly
the stream is read. What has not been read yet is merged: a slow reader gets fewer, larger
outputs and costs nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from rillm.engine.messages import PromptInfo, RequestTimes, TokenDelta, TokenLogprobs
from rillm.input_processor import ProcessedRequest
from rillm.outputs import (
    CompletionOutput,
    FlatLogprobs,
    Logprob,
    LogprobsDict,
    PromptLogprobs,
    RequestOutput,
    RequestStateStats,
    SampleLogprobs,
)
from rillm.sampling_params import RequestOutputKind, SamplingParams
from rillm.text.candidates import decode_candidate
from rillm.text.detokenizer import Detokenizer
from rillm.text.stop import StopMatcher
from rillm.text.tokenizer import Tokenizer

_CONTEXT_TOKENS = 4
"""Tokens before a candidate that can complete its character."""


class ChoiceState:
    """One choice: what has been produced, and what of it has not been read yet.

    Args:
        index: of the choice.
        processed: its request.
        tokenizer: None for no text at all.
        stream_interval: tokens between two outputs.
        stand_ins: text to put for some token ids, whether they are special or not.
    """

    def __init__(
        self,
        index: int,
        processed: ProcessedRequest,
        tokenizer: Tokenizer | None,
        stream_interval: int = 1,
        stand_ins: Mapping[int, str] | None = None,
    ) -> None:
        params = processed.params
        prompt_token_ids = processed.request.prompt_token_ids
        self.index = index
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.num_tokens = 0
        self.is_dirty = False
        self._is_delta = params.output_kind is RequestOutputKind.DELTA
        self._params = params
        self._stream_interval = stream_interval
        self._tokenizer = tokenizer
        self._detokenizer = (
            tokenizer.detokenizer(
                skip_special_tokens=params.skip_special_tokens,
                prompt_token_ids=prompt_token_ids,
                stand_ins=stand_ins,
            )
            if tokenizer is not None and params.detokenize
            else None
        )
        self._stop = (
            StopMatcher(params.stop, include_stop=params.include_stop_str_in_output)
            if params.stop
            else None
        )
        self._text: list[str] = []
        self._ends: list[int] | None = None if stand_ins is None else []
        self._token_ids: list[int] = []
        self._logprobs = _new_logprobs(params)
        self._cumulative_logprob = 0.0
        self._recent = prompt_token_ids[-_CONTEXT_TOKENS:]
        self._num_unread = 0
        self._may_be_steady = (
            self._is_delta
            and self._stop is None
            and self._logprobs is None
            and stream_interval == 1
        )

    def add(self, delta: TokenDelta) -> bool:
        """Take in new tokens.

        Returns:
            Whether a stop string ended the choice, so that the engine has to be told.
        """
        found = self._add_text(delta) if self._detokenizer is not None else None
        # Counted afterwards: what follows a stop string has been dropped.
        num_new = len(delta.token_ids)
        self._token_ids += delta.token_ids
        self.num_tokens += num_new
        if delta.logprobs is not None and self._logprobs is not None:
            self._add_logprobs(self._logprobs, delta.token_ids, delta.logprobs)
        if found is not None:
            self.finish_reason, self.stop_reason = "stop", found
        elif delta.finish_reason is not None:
            self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_token_id
            if delta.finish_reason == "repetition":
                self.stop_reason = "repetition_detected"
        self._mark(num_new)
        return found is not None and delta.finish_reason is None

    @property
    def is_steady(self) -> bool:
        """Whether the output for the next token depends on that token only."""
        return (
            self._may_be_steady
            and not self.is_dirty
            and self.num_tokens > 0
            and self.finish_reason is None
            and self._detokenizer is not None
            and self._detokenizer.is_steady
        )

    def end(self, reason: str) -> None:
        """End the choice from outside; what was held back is released."""
        if self.finish_reason is None:
            self._text.append(self._rest())
            self.finish_reason = reason
            self.is_dirty = True

    def _mark(self, num_new: int) -> None:
        """Decide whether there is enough to be read."""
        self._num_unread += num_new
        is_first = self.num_tokens == num_new
        if is_first or self._num_unread >= self._stream_interval or self.finish_reason is not None:
            self.is_dirty = True

    def _add_text(self, delta: TokenDelta) -> str | None:
        """Detokenize and match stop strings; return the one that was found."""
        detokenizer = self._detokenizer
        assert detokenizer is not None
        shown_ids = delta.token_ids
        # The text of a stop token is not part of the output; its id is.
        if delta.finish_reason == "stop" and not self._params.include_stop_str_in_output:
            shown_ids = shown_ids[:-1]
        if self._stop is None and self._ends is None:
            self._text.append(detokenizer.push(shown_ids))
        elif self._stop is None and len(shown_ids) == 1:
            self._append(detokenizer.push(shown_ids))
        elif self._stop is None:
            for token_id in shown_ids:
                self._append(detokenizer.push([token_id]))
        else:
            found = self._match(self._stop, detokenizer, shown_ids, delta)
            if found is not None:
                return found
        if delta.finish_reason is not None:
            self._text.append(self._rest())
        return None

    def _match(
        self, stop: StopMatcher, detokenizer: Detokenizer, token_ids: list[int], delta: TokenDelta
    ) -> str | None:
        """Add tokens one by one up to a stop string; what follows it is dropped from the delta."""
        for i, token_id in enumerate(token_ids):
            text = detokenizer.push([token_id])
            found = None
            if self.num_tokens + i >= self._params.min_tokens:
                text, found = stop.push(text)
            self._append(text)
            if found is not None:
                del delta.token_ids[i + 1 :]
                if delta.logprobs is not None:
                    del delta.logprobs[i + 1 :]
                return found
        return None

    def _append(self, text: str) -> None:
        """Add the text of one token."""
        self._text.append(text)
        if self._ends is not None:
            self._ends.append(len(text) + (self._ends[-1] if self._ends else 0))

    def _rest(self) -> str:
        """What detokenizer and stop matcher still hold back."""
        text = self._detokenizer.finish() if self._detokenizer is not None else ""
        if self._stop is None:
            return text
        shown, found = self._stop.push(text)
        if found is not None:
            return shown
        return shown + self._stop.finish()

    def _add_logprobs(
        self, into: SampleLogprobs, token_ids: list[int], logprobs: list[TokenLogprobs]
    ) -> None:
        is_ranked = self._params.logprob_token_ids is None
        for token_id, position in zip(token_ids, logprobs, strict=True):
            self._cumulative_logprob += position.logprobs[0]
            into.append(_position(position, self._recent, self._tokenizer, is_ranked=is_ranked))
            self._recent = [*self._recent, token_id][-_CONTEXT_TOKENS:]

    def take(self) -> CompletionOutput:
        """What there is to read: for deltas what is new, else everything so far."""
        self.is_dirty = False
        self._num_unread = 0
        output = CompletionOutput(
            index=self.index,
            text="".join(self._text),
            token_ids=self._token_ids,
            cumulative_logprob=None if self._logprobs is None else self._cumulative_logprob,
            logprobs=self._logprobs,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            text_ends=self._ends,
        )
        if self._is_delta:
            self._text, self._token_ids = [], []
            self._ends = None if self._ends is None else []
            if self._logprobs is not None:
                self._logprobs = _new_logprobs(self._params)
        else:
            self._text = [output.text]
            output.token_ids = list(self._token_ids)
            if self._logprobs is not None:
                output.logprobs = self._logprobs[:]
        return output


class RequestState:
    """One request: its choices and what their stream has not read yet.

    Args:
        processed: the request, checked.
        request_id: the caller's name for it.
        tokenizer: None for no text at all.
        stream_interval: tokens between two outputs, where the request names no larger number.
        keeps_metrics: whether outputs carry `metrics`.
        stand_ins: text to put for some token ids, whether they are special or not.
    """

    def __init__(
        self,
        processed: ProcessedRequest,
        request_id: str,
        tokenizer: Tokenizer | None,
        *,
        stream_interval: int = 1,
        keeps_metrics: bool = True,
        stand_ins: Mapping[int, str] | None = None,
    ) -> None:
        params = processed.params
        self.request_id = request_id
        self.is_finished = False
        self._kind = params.output_kind
        interval = max(stream_interval, params.stream_interval or 1)
        self._choices = [
            ChoiceState(i, processed, tokenizer, interval, stand_ins) for i in range(params.n)
        ]
        self._num_open = params.n
        self._prompt = processed.prompt
        self._prompt_token_ids = processed.request.prompt_token_ids
        self._tokenizer = tokenizer
        self._prompt_logprobs: PromptLogprobs | None = None
        self._prompt_token_id_logprobs: list[list[float]] | None = None
        self._num_cached_tokens: int | None = None
        self._metrics = RequestStateStats(arrival_time=time.time()) if keeps_metrics else None

    def add(self, delta: TokenDelta) -> bool:
        """Take in new tokens of one choice.

        Returns:
            Whether a stop string ended the choice, so that the engine has to be told.
        """
        choice = self._choices[delta.choice]
        if choice.finish_reason is not None:
            return False
        if delta.prompt is not None:
            self._add_prompt_info(delta.prompt)
        must_abort = choice.add(delta)
        if self._metrics is not None:
            self._metrics.num_generation_tokens += len(delta.token_ids)
            if delta.times is not None:
                _update_metrics(self._metrics, delta.times)
        if choice.finish_reason is not None:
            self._num_open -= 1
        return must_abort

    @property
    def is_steady(self) -> bool:
        """Whether the output for the next token depends on that token only."""
        return len(self._choices) == 1 and self._choices[0].is_steady

    def skip(self, num_tokens: int) -> None:
        """Count tokens that were told without `add`, one by one, in a steady state."""
        self._choices[0].num_tokens += num_tokens
        if self._metrics is not None:
            self._metrics.num_generation_tokens += num_tokens

    def abort(self) -> None:
        """End all open choices with finish reason `abort`."""
        for choice in self._choices:
            choice.end("abort")
        self._num_open = 0

    def take(self) -> RequestOutput | None:
        """What there is to read, or None.

        Deltas and cumulative outputs hold the choices that changed; a final output holds all.
        """
        if self._kind is RequestOutputKind.FINAL_ONLY and self._num_open:
            return None
        outputs = []
        for choice in self._choices:
            if choice.is_dirty:
                outputs.append(choice.take())  # noqa: PERF401 - a frame less for each token
        if not outputs:
            return None
        self.is_finished = self._num_open == 0
        output = RequestOutput(
            request_id=self.request_id,
            prompt=self._prompt,
            prompt_token_ids=self._prompt_token_ids,
            outputs=outputs,
            finished=self.is_finished,
            prompt_logprobs=self._prompt_logprobs,
            prompt_token_id_logprobs=self._prompt_token_id_logprobs,
            num_cached_tokens=self._num_cached_tokens,
            metrics=self._metrics,
        )
        if self._kind is RequestOutputKind.DELTA:
            self._prompt_logprobs = None
            self._prompt_token_id_logprobs = None
        return output

    def _add_prompt_info(self, info: PromptInfo) -> None:
        self._num_cached_tokens = info.num_cached_tokens
        self._prompt_token_id_logprobs = info.token_id_logprobs
        if info.logprobs is not None:
            ids = self._prompt_token_ids
            self._prompt_logprobs = [None]
            for i, position in enumerate(info.logprobs, start=1):
                recent = ids[max(0, i - _CONTEXT_TOKENS) : i]
                self._prompt_logprobs.append(_position(position, recent, self._tokenizer))


def _new_logprobs(params: SamplingParams) -> SampleLogprobs | None:
    if params.logprobs is None and params.logprob_token_ids is None:
        return None
    return FlatLogprobs() if params.flat_logprobs else []


def _position(
    position: TokenLogprobs,
    recent: list[int],
    tokenizer: Tokenizer | None,
    *,
    is_ranked: bool = True,
) -> LogprobsDict:
    """One position's logprobs: the token itself first, then the alternatives.

    Alternatives have a rank where they are the best ones, none where the request chose them.
    """
    ids, values = position.token_ids, position.logprobs
    num_others = len(ids) - 1
    others = range(1, num_others + 1) if is_ranked else [None] * num_others
    ranks: Iterable[int | None] = (position.rank, *others)
    result: LogprobsDict = {}
    for token_id, logprob, rank in zip(ids, values, ranks, strict=True):
        if token_id not in result:
            text = None if tokenizer is None else decode_candidate(tokenizer, recent, token_id)
            result[token_id] = Logprob(logprob, rank, text)
    return result


def _update_metrics(metrics: RequestStateStats, times: RequestTimes) -> None:
    metrics.queued_ts = times.queued
    metrics.scheduled_ts = times.scheduled
    metrics.first_token_ts = metrics.first_token_ts or times.first_token
    metrics.last_token_ts = times.last_token
    metrics.first_token_latency = metrics.first_token_ts - times.queued
    metrics.num_preemptions = max(metrics.num_preemptions, times.num_preemptions)
