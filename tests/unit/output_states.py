"""Request states and deltas, written by hand."""

from __future__ import annotations

from typing import Any

from fakes import engine_request

from rillm.engine.messages import FinishReason, TokenDelta, TokenLogprobs
from rillm.input_processor import ProcessedRequest
from rillm.output_processor import RequestState
from rillm.sampling_params import SamplingParams
from rillm.text.tokenizer import Tokenizer

PROMPT = "hi"


def new_state(tokenizer: Tokenizer | None, **params: Any) -> RequestState:
    interval = params.pop("engine_stream_interval", 1)
    request = engine_request(0, [7, 8], n=params.get("n", 1))
    processed = ProcessedRequest(request=request, prompt=PROMPT, params=SamplingParams(**params))
    return RequestState(processed, "caller's id", tokenizer, stream_interval=interval)


def delta(
    ids: list[int], choice: int = 0, reason: FinishReason | None = None, **fields: Any
) -> TokenDelta:
    return TokenDelta(0, choice, list(ids), finish_reason=reason, **fields)


def logprobs_of(ids: list[int]) -> list[TokenLogprobs]:
    """Logprobs that tell the position and the token."""
    return [TokenLogprobs([i, 65, i], [-float(i), -0.5, -float(i)], 2) for i in ids]
