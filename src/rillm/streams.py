"""The join: prompts as token ids in, stream events out, choice by choice.

Owns what a call needs between the engine's client and a face: one state per choice, the order
of choices over several prompts, and the only usage counter. Knows no HTTP and no gRPC. The
whole answer is the same stream read to its end (`EventStream.collect`), so it cannot differ
from the streamed one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from rillm.choice_parser import ChoiceParser, OutputFormat
from rillm.errors import EngineGenerateError
from rillm.formats.events import (
    ContentDelta,
    Finish,
    ReasoningDelta,
    StreamEvent,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from rillm.input_processor import TokensPrompt
from rillm.merge import merge
from rillm.outputs import (
    CompletionOutput,
    LogprobsDict,
    PromptLogprobs,
    RequestOutput,
    RequestStateStats,
)
from rillm.sampling_params import RequestOutputKind, SamplingParams


class GenerationClient(Protocol):
    """The part of `AsyncLLM` that a stream is made of."""

    def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Stream one request's outputs; closing the generator aborts the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One prompt to continue, everything about it decided."""

    prompt_token_ids: list[int]
    sampling_params: SamplingParams
    request_id: str
    priority: int = 0
    """Lower is served earlier."""
    cache_salt: str | None = None
    """Separates prefix cache entries: only requests of the same salt share blocks."""
    format: OutputFormat | None = None
    """None: all text is content."""
    only_scores: bool = False
    """Tell nothing of what follows the prompt: the engine cannot make less than a token."""

    def engine_params(self) -> SamplingParams:
        """The sampling params for the engine, which finds stop strings in its own text."""
        params = self.sampling_params
        if self.format is None:
            return params
        stop = [self.format.encode_stop(each) for each in self.stop_strings] or None
        # A whole text at once does not say how many of its tokens were reasoning.
        return msgspec.structs.replace(params, stop=stop, output_kind=RequestOutputKind.DELTA)

    @property
    def stop_strings(self) -> list[str]:
        """The stop strings as the request has them."""
        stop = self.sampling_params.stop or []
        return [stop] if isinstance(stop, str) else list(stop)

    def prompt(self) -> TokensPrompt:
        """The prompt as the engine's client takes it."""
        prompt = TokensPrompt(prompt_token_ids=self.prompt_token_ids)
        if self.cache_salt is not None:
            prompt["cache_salt"] = self.cache_salt
        return prompt


@dataclass(slots=True)
class ChoiceDelta:
    """What one engine output adds to one choice."""

    index: int
    """Prompt position * n + the choice's index within its prompt."""
    events: list[StreamEvent]
    """May be empty while the text is not yet certain."""
    token_ids: list[int]
    logprobs: Sequence[LogprobsDict] | None
    """One entry for each of `token_ids`; None when not asked for."""


@dataclass(slots=True)
class ToolCall:
    """A whole tool call."""

    id: str
    name: str
    arguments: str
    """JSON text."""


@dataclass(slots=True)
class ChoiceResult:
    """A whole choice: the fold of its deltas."""

    index: int
    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[LogprobsDict] | None = None
    finish: Finish = field(default_factory=lambda: Finish("abort"))
    """`abort` until the stream has said otherwise."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a call, or of one choice of it."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Prompt tokens found in the prefix cache."""
    reasoning_tokens: int = 0
    """Completion tokens spent on reasoning that a format told apart from content."""


class _Choice:
    """The state of one choice: nothing here is shared with another."""

    __slots__ = (
        "_names_function",
        "_num_begun",
        "_num_complete",
        "_only_scores",
        "_parser",
        "_stop_strings",
        "finished",
        "index",
        "num_reasoning_tokens",
        "num_tokens",
    )

    def __init__(self, index: int, generation: Generation) -> None:
        self.index = index
        self.num_tokens = self.num_reasoning_tokens = 0
        self.finished = False
        self._num_begun = self._num_complete = 0
        self._only_scores = generation.only_scores
        format = generation.format
        self._parser = None if format is None else format.new_parser()
        self._names_function = format is not None and format.names_function
        self._stop_strings: dict[str, str] = {}
        if format is not None and format.stand_ins:
            self._stop_strings = {format.encode_stop(s): s for s in generation.stop_strings}

    def advance(self, output: CompletionOutput) -> ChoiceDelta | None:
        if self.finished:
            return None
        if self._only_scores:
            output = _without_tokens(output)
        self.num_tokens += len(output.token_ids)
        events: list[StreamEvent]
        if self._parser is None:
            events = [ContentDelta(output.text)] if output.text else []
        else:
            events = self._parse(self._parser, output)
            if output.finish_reason is None:
                self._count_calls(events)
        if output.finish_reason is not None:
            if output.finish_reason == "error":
                raise EngineGenerateError(f"the engine gave choice {self.index} up")
            self.finished = True
            self._finish(output.finish_reason, output.stop_reason, events)
        return ChoiceDelta(self.index, events, output.token_ids, output.logprobs)

    def _parse(self, parser: ChoiceParser, output: CompletionOutput) -> list[StreamEvent]:
        """Parse token by token, so that merged outputs count as many tokens of reasoning."""
        events: list[StreamEvent] = []
        for text, token_ids in output.pieces():
            was_reasoning = parser.is_reasoning
            events += parser.feed(text, token_ids)
            if was_reasoning or parser.is_reasoning:
                self.num_reasoning_tokens += len(token_ids)
        return events

    def _finish(
        self, reason: str, stop_reason: int | str | None, events: list[StreamEvent]
    ) -> None:
        if isinstance(stop_reason, str):
            stop_reason = self._stop_strings.get(stop_reason, stop_reason)
        if self._parser is not None:
            is_cut = reason != "stop" or isinstance(stop_reason, str)
            events += self._parser.finish(is_cut=is_cut)
        self._count_calls(events)
        has_called = 0 < self._num_begun == self._num_complete
        if reason == "stop" and has_called and not self._names_function:
            reason = "tool_calls"
        events.append(Finish(reason, stop_reason))

    def _count_calls(self, events: list[StreamEvent]) -> None:
        for event in events:
            self._num_begun += type(event) is ToolCallBegin
            self._num_complete += type(event) is ToolCallEnd


def _without_tokens(output: CompletionOutput) -> CompletionOutput:
    """An output of which only the end is told."""
    reason = output.finish_reason and output.finish_reason.replace("stop", "length")
    return CompletionOutput(output.index, "", [], finish_reason=reason)


class EventStream:
    """The events of one call: every prompt, `n` choices of each. Read it once.

    Attributes:
        prompt_logprobs: for each prompt what the engine reported, None until it has.
        prompt_token_id_logprobs: as above, of the ids that the sampling params chose.
        kv_transfer_params: as above, for whoever continues from this prompt's cache.
        metrics: as above, when things happened to it; complete at its end.
    """

    def __init__(self, client: GenerationClient, generations: Sequence[Generation]) -> None:
        self._client = client
        self._generations = generations
        self._first_choice: list[int] = []
        self._prompt_of: list[int] = []
        for position, generation in enumerate(generations):
            self._first_choice.append(len(self._prompt_of))
            self._prompt_of += [position] * generation.sampling_params.n
        self._choices = [
            _Choice(index, generations[position]) for index, position in enumerate(self._prompt_of)
        ]
        self._cached = [0] * len(generations)
        self.prompt_logprobs: list[PromptLogprobs | None] = [None] * len(generations)
        self.prompt_token_id_logprobs: list[list[list[float]] | None] = [None] * len(generations)
        self.kv_transfer_params: list[dict[str, Any] | None] = [None] * len(generations)
        self.metrics: list[RequestStateStats | None] = [None] * len(generations)

    @property
    def num_choices(self) -> int:
        """Choices of the call: prompts times n."""
        return len(self._choices)

    def prompt_position(self, index: int) -> int:
        """Position of the prompt that choice `index` continues."""
        return self._prompt_of[index]

    def generation_of(self, index: int) -> Generation:
        """The generation that choice `index` belongs to."""
        return self._generations[self._prompt_of[index]]

    def prompt_logprobs_of(self, index: int) -> PromptLogprobs | None:
        """The prompt logprobs of choice `index`; None when not asked for or not known yet."""
        return self.prompt_logprobs[self._prompt_of[index]]

    def usage(self) -> Usage:
        """Counts so far of the whole call; each prompt counts once, whatever its n."""
        return Usage(
            prompt_tokens=sum(len(each.prompt_token_ids) for each in self._generations),
            completion_tokens=sum(choice.num_tokens for choice in self._choices),
            cached_tokens=sum(self._cached),
            reasoning_tokens=sum(choice.num_reasoning_tokens for choice in self._choices),
        )

    def usage_of(self, index: int) -> Usage:
        """Counts so far of choice `index` and its prompt."""
        position = self._prompt_of[index]
        return Usage(
            prompt_tokens=len(self._generations[position].prompt_token_ids),
            completion_tokens=self._choices[index].num_tokens,
            cached_tokens=self._cached[position],
            reasoning_tokens=self._choices[index].num_reasoning_tokens,
        )

    async def deltas(self) -> AsyncGenerator[list[ChoiceDelta], None]:
        """Stream one list for each engine output, with the choices that changed.

        Whoever reads wraps this in `contextlib.aclosing`: leaving early aborts the requests.

        Raises:
            RequestError: a request was refused; raised before the first list.
            CapacityError: as above.
            EngineError: generation failed; at any time.
        """
        outputs = [
            self._client.generate(
                each.prompt(),
                each.engine_params(),
                each.request_id,
                priority=each.priority,
                stand_ins=None if each.format is None else each.format.stand_ins,
            )
            for each in self._generations
        ]
        async with aclosing(merge(outputs)) as merged:
            async for position, output in merged:
                yield self._advance(position, output)

    async def collect(self) -> list[ChoiceResult]:
        """Read the stream to its end.

        Returns:
            One whole choice for each index, in order.

        Raises:
            RillmError: as `deltas`.
        """
        folds = [_Fold(index) for index in range(self.num_choices)]
        async with aclosing(self.deltas()) as stream:
            async for deltas in stream:
                for delta in deltas:
                    folds[delta.index].add(delta)
        return [fold.result() for fold in folds]

    def _advance(self, position: int, output: RequestOutput) -> list[ChoiceDelta]:
        if output.num_cached_tokens is not None:
            self._cached[position] = max(self._cached[position], output.num_cached_tokens)
        if output.prompt_logprobs is not None:
            self.prompt_logprobs[position] = output.prompt_logprobs
        if output.prompt_token_id_logprobs is not None:
            self.prompt_token_id_logprobs[position] = output.prompt_token_id_logprobs
        self.metrics[position] = output.metrics
        if output.kv_transfer_params is not None:
            self.kv_transfer_params[position] = output.kv_transfer_params
        first = self._first_choice[position]
        advanced = (self._choices[first + each.index].advance(each) for each in output.outputs)
        return [delta for delta in advanced if delta is not None]


class _Fold:
    """Collects one choice; text is joined once at the end, so the cost stays linear."""

    def __init__(self, index: int) -> None:
        self._result = ChoiceResult(index)
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._arguments: dict[int, list[str]] = {}

    def add(self, delta: ChoiceDelta) -> None:
        self._result.token_ids += delta.token_ids
        if delta.logprobs is not None:
            if self._result.logprobs is None:
                self._result.logprobs = []
            self._result.logprobs.extend(delta.logprobs)
        for event in delta.events:
            self._add_event(event)

    def _add_event(self, event: StreamEvent) -> None:
        match event:
            case ContentDelta(text):
                self._content.append(text)
            case ReasoningDelta(text):
                self._reasoning.append(text)
            case ToolCallBegin(index, id, name):
                self._result.tool_calls.append(ToolCall(id, name, ""))
                self._arguments[index] = []
            case ToolCallArguments(index, fragment):
                self._arguments[index].append(fragment)
            case Finish():
                self._result.finish = event

    def result(self) -> ChoiceResult:
        self._result.content = "".join(self._content)
        self._result.reasoning = "".join(self._reasoning)
        for call, fragments in zip(self._result.tool_calls, self._arguments.values(), strict=True):
            call.arguments = "".join(fragments)
        return self._result
