"""One choice of a call: what is asked of it, its state, and what it tells."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

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
from rillm.outputs import CompletionOutput, LogprobsDict
from rillm.sampling_params import RequestOutputKind, SamplingParams


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


class ChoiceDelta(msgspec.Struct):
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


class Choice:
    """The state of one choice: nothing here is shared with another.

    Attributes:
        index: over all prompts of the call.
        finish_reason: as the reader is told; None while something may follow.
        num_tokens: generated so far.
        num_reasoning_tokens: as above, those that were spent on reasoning.
    """

    __slots__ = (
        "_num_begun",
        "_num_complete",
        "_only_scores",
        "_parser",
        "_setting",
        "_stop_strings",
        "finish_reason",
        "index",
        "num_reasoning_tokens",
        "num_tokens",
    )

    def __init__(self, index: int, generation: Generation) -> None:
        self.index = index
        self.num_tokens = self.num_reasoning_tokens = 0
        self.finish_reason: str | None = None
        self._num_begun = self._num_complete = 0
        self._only_scores = generation.only_scores
        format = generation.format
        self._parser = None if format is None else format.new_parser()
        name = "content" if format is None else format.name
        hides_special = generation.sampling_params.skip_special_tokens
        self._setting = None if name is None else (name, hides_special)
        """What is the same for all choices that read alike, if it is known."""
        self._stop_strings: dict[str, str] = {}
        if format is not None and format.stand_ins:
            self._stop_strings = {format.encode_stop(s): s for s in generation.stop_strings}

    def steady_state(self) -> Hashable:
        """What becomes of a token depends on this alone, if it is not None."""
        if self._setting is None or self._only_scores:
            return None
        if self._parser is None:
            return self._setting
        place = self._parser.steady_place
        return None if place is None else (self._setting, place)

    def skip(self, num_tokens: int) -> None:
        """Count tokens that were told without `advance`, in a steady state."""
        self.num_tokens += num_tokens
        if self._parser is not None and self._parser.is_reasoning:
            self.num_reasoning_tokens += num_tokens

    def advance(self, output: CompletionOutput) -> ChoiceDelta | None:
        """Take in an engine's output; None once the choice has finished.

        Raises:
            EngineGenerateError: the engine gave the choice up.
        """
        if self.finish_reason is not None:
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
            self._finish(output.finish_reason, output.stop_reason, events)
        return ChoiceDelta(self.index, events, output.token_ids, output.logprobs)

    def _parse(self, parser: ChoiceParser, output: CompletionOutput) -> list[StreamEvent]:
        """Parse token by token, so that merged outputs count as many tokens of reasoning."""
        if len(output.token_ids) == 1:
            was_reasoning = parser.is_reasoning
            events = parser.feed(output.text, output.token_ids)
            self.num_reasoning_tokens += was_reasoning or parser.is_reasoning
            return events
        events = []
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
        if reason == "stop" and 0 < self._num_begun == self._num_complete:
            reason = "tool_calls"
        self.finish_reason = reason
        events.append(Finish(reason, stop_reason))

    def _count_calls(self, events: list[StreamEvent]) -> None:
        for event in events:
            kind = type(event)
            if kind is ToolCallBegin:
                self._num_begun += 1
            elif kind is ToolCallEnd:
                self._num_complete += 1


def _without_tokens(output: CompletionOutput) -> CompletionOutput:
    """An output of which only the end is told."""
    reason = output.finish_reason and output.finish_reason.replace("stop", "length")
    return CompletionOutput(output.index, "", [], finish_reason=reason)


class ChoiceFold:
    """Collects one choice; text is joined once at the end, so the cost stays linear."""

    def __init__(self, index: int) -> None:
        self._result = ChoiceResult(index)
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._arguments: dict[int, list[str]] = {}

    def add(self, delta: ChoiceDelta) -> None:
        """Add what came next."""
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
        """The choice as far as it has come."""
        self._result.content = "".join(self._content)
        self._result.reasoning = "".join(self._reasoning)
        for call, fragments in zip(self._result.tool_calls, self._arguments.values(), strict=True):
            call.arguments = "".join(fragments)
        return self._result
