"""An engine that plays answers which somebody else has got from a token endpoint.

So what is made of them is made by the join and the encoders, as of a live engine's output.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rillm.engine.messages import (
    EngineRequest,
    TokenDelta,
    TokenSamplingParams,
)
from rillm.errors import EngineGenerateError, InvalidRequestError
from rillm.input_processor import ProcessedRequest, TokensPrompt
from rillm.output_processor import RequestState
from rillm.outputs import RequestOutput
from rillm.sampling_params import RequestOutputKind, SamplingParams
from rillm.server.protocol import GenerationRequest
from rillm.streams import EventStream, Generation, Outputs, Usage
from rillm.text.tokenizer import Tokenizer
from rillm.token_wire import Answer, choice_deltas, prompt_info


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was said of one prompt."""

    steps: Sequence[Sequence[TokenDelta]]
    """Each becomes one output."""
    prompt_tokens: int
    """Length of the prompt, of which perhaps only the end is known."""


class ToldEngine:
    """Plays what was told of each request, by its id."""

    def __init__(self, tokenizer: Tokenizer, told: Mapping[str, Told]) -> None:
        self._tokenizer = tokenizer
        self._told = told

    async def open_stream(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> ToldOutputs:
        """Play what was told of one request."""
        del priority
        request = EngineRequest(
            request_id=0,
            prompt_token_ids=prompt["prompt_token_ids"],
            params=TokenSamplingParams(seed=0, max_tokens=1),
        )
        processed = ProcessedRequest(request=request, prompt=None, params=sampling_params)
        state = RequestState(
            processed, request_id, self._tokenizer, keeps_metrics=False, stand_ins=stand_ins
        )
        return ToldOutputs(
            request_id, request.prompt_token_ids, state, self._told[request_id].steps
        )


class ToldOutputs(Outputs):
    """One request's outputs, one for each step, be it empty."""

    def __init__(
        self,
        request_id: str,
        prompt_token_ids: list[int],
        state: RequestState,
        steps: Sequence[Sequence[TokenDelta]],
    ) -> None:
        self.on_ready: Callable[[], None] = _nobody
        self._request_id = request_id
        self._prompt_token_ids = prompt_token_ids
        self._state = state
        self._steps = deque(steps)

    def take(self) -> RequestOutput:
        """The next step's output; the last one is `finished`, whatever has been told by then."""
        for delta in self._steps.popleft() if self._steps else ():
            self._state.add(delta)
        output = self._state.take() or RequestOutput(
            self._request_id, None, self._prompt_token_ids, [], finished=False
        )
        output.finished = not self._steps
        if self._steps:
            self.on_ready()
        return output

    def close(self, reasons: Sequence[str | None] = ()) -> None:
        """Nothing is held."""


def _nobody() -> None:
    """Tell nobody."""


class ToldStream(EventStream):
    """The events of answers; prompts may be longer than what is known of them."""

    def __init__(
        self, tokenizer: Tokenizer, told: Sequence[Told], generations: Sequence[Generation]
    ) -> None:
        """Join answers to their prompts.

        Args:
            tokenizer: the model's.
            told: what was said of each prompt.
            generations: the prompts, in the same order.
        """
        by_id = {each.request_id: item for each, item in zip(generations, told, strict=True)}
        super().__init__(ToldEngine(tokenizer, by_id), generations)
        self._prompt_tokens = sum(each.prompt_tokens for each in told)

    def usage(self) -> Usage:
        """Counts of the whole call."""
        return replace(super().usage(), prompt_tokens=self._prompt_tokens)


def text_params(
    request: GenerationRequest, num_choices: int, answers: Sequence[Answer]
) -> SamplingParams:
    """The options that concern text and outputs, for choices whose tokens are known.

    Args:
        request: what was asked for.
        num_choices: of each prompt.
        answers: a stop string that one of them names is one, whatever the request says.

    Raises:
        InvalidRequestError: an option is out of range.
    """
    stop = [request.stop] if isinstance(request.stop, str) else list(request.stop or [])
    choices = [choice for answer in answers for choice in answer.choices]
    for choice in choices:
        if isinstance(choice.stop_reason, str) and choice.finish_reason == "stop":
            stop.append(choice.stop_reason)
    has_logprobs = any(choice.logprobs is not None for choice in choices)
    has_chosen = has_logprobs and request.logprob_token_ids is not None
    return SamplingParams(
        n=num_choices,
        max_tokens=None,
        min_tokens=request.min_tokens or 0,
        stop=list(dict.fromkeys(stop)) or None,
        include_stop_str_in_output=bool(request.include_stop_str_in_output),
        skip_special_tokens=request.skip_special_tokens is not False,
        logprobs=0 if has_logprobs and not has_chosen else None,
        logprob_token_ids=request.logprob_token_ids if has_chosen else None,
        output_kind=RequestOutputKind.DELTA,
    )


def told_deltas(
    answer: Answer, name: str, prompt_token_ids: Sequence[int] | None = None
) -> list[TokenDelta]:
    """What an answer adds to its choices.

    Args:
        answer: checked.
        name: where it was sent.
        prompt_token_ids: the whole prompt, for its logprobs; None: they are not told.

    Raises:
        InvalidRequestError: the answer is malformed.
    """
    if prompt_token_ids is None:
        answer.prompt_logprobs = None
    try:
        info = prompt_info(answer, prompt_token_ids or ())
        deltas = list(choice_deltas(answer))
    except EngineGenerateError as error:
        raise InvalidRequestError(f"{name}: {error}", param=name) from error
    told = []
    for choice, delta in zip(answer.choices, deltas, strict=True):
        delta.prompt = info
        told.append(delta)
        if isinstance(choice.stop_reason, str) and delta.finish_reason == "stop":
            # Found again in the text; the token it ends in is no stop token.
            delta.finish_reason = None
            told.append(TokenDelta(0, delta.choice, [], "stop"))
    return told


def cached_tokens(answer: Answer) -> int:
    """Prompt tokens that the engine found in its prefix cache, as far as it says."""
    details = None if answer.usage is None else answer.usage.prompt_tokens_details
    return 0 if details is None else details.cached_tokens or 0
