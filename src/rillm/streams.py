"""The join: prompts as token ids in, stream events out, choice by choice.

Owns what a call needs between the engine's client and a face: one state per choice, the order
of choices over several prompts, and the only usage counter. Knows no HTTP and no gRPC. The
whole answer is the same stream read to its end (`EventStream.collect`), so it cannot differ
from the streamed one.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from rillm.choices import (
    Choice,
    ChoiceDelta,
    ChoiceFold,
    ChoiceResult,
    Generation,
    ToolCall,
)
from rillm.input_processor import TokensPrompt
from rillm.outputs import PromptLogprobs, RequestOutput, RequestStateStats
from rillm.sampling_params import SamplingParams

__all__ = [
    "ChoiceDelta",
    "ChoiceResult",
    "EventStream",
    "Generation",
    "GenerationClient",
    "Outputs",
    "ToolCall",
    "Usage",
]


class Outputs(Protocol):
    """One request's outputs; `rillm.output_stream.OutputStream` is this."""

    on_ready: Callable[[], None]
    """Called when there may be something to take; must not raise."""
    on_token: Callable[[int], bool] | None = None
    """If set, it may be called with a token that comes alone and says nothing else, before
    anything is made of it. Returns whether the reader has told it; then there will be no output
    for it, and the reader says so by `skip`. Must not raise."""

    @property
    def is_steady(self) -> bool:
        """Whether the output for the next token depends on that token only, if that is known."""
        return False

    def skip(self, num_tokens: int) -> None:
        """Count tokens that `on_token` has taken. Who never calls that need not have this."""
        raise NotImplementedError
        raise NotImplementedError

    def take(self) -> RequestOutput | None:
        """What there is to read, or None; raises what the request failed with.

        After an output that is `finished` it is not called again.
        """

    def close(self, reasons: Sequence[str | None] = ()) -> None:
        """Forget the request; aborts it unless it has finished.

        Args:
            reasons: the finish reason of each choice as its reader was told, for who counts them;
                None where there was none.
        """


class GenerationClient(Protocol):
    """The part of `AsyncLLM` that a stream is made of."""

    async def open_stream(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> Outputs:
        """Submit one request; the caller closes what is returned."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a call, or of one choice of it."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Prompt tokens found in the prefix cache."""
    reasoning_tokens: int = 0
    """Completion tokens spent on reasoning that a format told apart from content."""


class EventStream:
    """The events of one call: every prompt, `n` choices of each. Read it once.

    Either through `deltas`, which does all of it, or by `start`, then `take` whenever `on_ready`
    was called, and `close`: so a face can pass tokens on without waking a task for each.

    Attributes:
        on_ready: called when there may be something to take; must not raise.
        on_token: as `Outputs` has it, where there is one choice; to be set before `start`.
        is_finished: whether everything has been taken.
        prompt_logprobs: for each prompt what the engine reported, None until it has.
        prompt_token_id_logprobs: as above, of the ids that the sampling params chose.
        kv_transfer_params: as above, for whoever continues from this prompt's cache.
        metrics: as above, when things happened to it; complete at its end.
    """

    def __init__(self, client: GenerationClient, generations: Sequence[Generation]) -> None:
        self._client = client
        self._generations = generations
        self.on_ready: Callable[[], None] = _nobody
        self.on_token: Callable[[int], bool] | None = None
        self._outputs: list[Outputs] = []
        self._ready: dict[int, None] = {}
        """Positions of prompts with something to take, in the order in which it came."""
        self._num_open = len(generations)
        self.is_finished = not generations
        self._ended = [False] * len(generations)
        self._first_choice: list[int] = []
        self._prompt_of: list[int] = []
        for position, generation in enumerate(generations):
            self._first_choice.append(len(self._prompt_of))
            self._prompt_of += [position] * generation.sampling_params.n
        self._choices = [
            Choice(index, generations[position]) for index, position in enumerate(self._prompt_of)
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

    async def start(self) -> None:
        """Submit the requests; whoever calls this closes the stream.

        Raises:
            RequestError: a request is refused.
            CapacityError: as above.
            EngineError: the engine has stopped.
        """
        for position, each in enumerate(self._generations):
            outputs = await self._client.open_stream(
                each.prompt(),
                each.engine_params(),
                each.request_id,
                priority=each.priority,
                stand_ins=None if each.format is None else each.format.stand_ins,
            )
            self._outputs.append(outputs)
            outputs.on_ready = functools.partial(self._mark, position)
            if len(self._choices) == 1:
                outputs.on_token = self.on_token
            self._ready[position] = None

    def take(self) -> list[ChoiceDelta]:
        """What is new in all choices; empty when nothing is, or nothing that is told.

        Raises:
            RillmError: generation failed, or a request was refused after all.
        """
        deltas: list[ChoiceDelta] = []
        ready, self._ready = self._ready, {}
        for position in ready:
            outputs = self._outputs[position]
            # A request may fail after its end, with the engine: nobody has to know.
            if self._ended[position]:
                continue
            output = outputs.take()
            if output is not None:
                self._advance(position, output, deltas)
                if output.finished:
                    self._ended[position] = True
                    self._num_open -= 1
                    self.is_finished = not self._num_open
        return deltas

    def steady_state(self) -> Hashable:
        """What becomes of a token that comes alone depends on this alone, if it is not None.

        None where it depends on more, such as text that is held back, and where there are
        several choices.
        """
        if len(self._choices) != 1 or self.is_finished or not self._outputs[0].is_steady:
            return None
        return self._choices[0].steady_state()

    def skip(self, num_tokens: int) -> None:
        """Count tokens that `on_token` has taken, all of them in the same steady state."""
        self._choices[0].skip(num_tokens)
        self._outputs[0].skip(num_tokens)

    def close(self) -> None:
        """Abort what has not finished. Idempotent."""
        for position, outputs in enumerate(self._outputs):
            first = self._first_choice[position]
            num_choices = self._generations[position].sampling_params.n
            choices = self._choices[first : first + num_choices]
            outputs.close([choice.finish_reason for choice in choices])

    async def deltas(self) -> AsyncGenerator[list[ChoiceDelta], None]:
        """Stream what is new, each time that something is.

        Whoever reads wraps this in `contextlib.aclosing`: leaving early aborts the requests.

        Raises:
            RequestError: a request was refused; raised before the first list.
            CapacityError: as above.
            EngineError: generation failed; at any time.
        """
        changed = asyncio.Event()
        self.on_ready = changed.set
        try:
            await self.start()
            while not self.is_finished:
                if deltas := self.take():
                    yield deltas
                elif not self.is_finished:
                    await changed.wait()
                    changed.clear()
        finally:
            self.close()

    async def read_to_end(self, take: Callable[[list[ChoiceDelta]], object]) -> None:
        """Read the stream for whoever folds it.

        Args:
            take: called with what is new, each time that something is.

        Raises:
            RillmError: as `deltas`.
        """
        async with aclosing(self.deltas()) as batches:
            async for deltas in batches:
                take(deltas)

    async def collect(self) -> list[ChoiceResult]:
        """Read the stream to its end.

        Returns:
            One whole choice for each index, in order.

        Raises:
            RillmError: as `deltas`.
        """
        folds = [ChoiceFold(index) for index in range(self.num_choices)]

        def fold(deltas: list[ChoiceDelta]) -> None:
            for delta in deltas:
                folds[delta.index].add(delta)

        await self.read_to_end(fold)
        return [fold.result() for fold in folds]

    def _mark(self, position: int) -> None:
        self._ready[position] = None
        self.on_ready()

    def _advance(self, position: int, output: RequestOutput, deltas: list[ChoiceDelta]) -> None:
        """Take in what one prompt's request has produced; adds to `deltas` what is new in it."""
        num_cached = output.num_cached_tokens
        if num_cached is not None and num_cached > self._cached[position]:
            self._cached[position] = num_cached
        if output.prompt_logprobs is not None:
            self.prompt_logprobs[position] = output.prompt_logprobs
        if output.prompt_token_id_logprobs is not None:
            self.prompt_token_id_logprobs[position] = output.prompt_token_id_logprobs
        self.metrics[position] = output.metrics
        if output.kv_transfer_params is not None:
            self.kv_transfer_params[position] = output.kv_transfer_params
        first = self._first_choice[position]
        for each in output.outputs:
            delta = self._choices[first + each.index].advance(each)
            if delta is not None:
                deltas.append(delta)


def _nobody() -> None:
    """Tell nobody."""
