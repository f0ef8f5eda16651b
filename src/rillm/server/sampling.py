"""Request fields to SamplingParams: the request, then the model's defaults, then built-in ones."""

from __future__ import annotations

from typing import Any, Protocol

from rillm.errors import InvalidRequestError
from rillm.request_options import clamped_logit_bias
from rillm.sampling_params import RepetitionDetection, RequestOutputKind, SamplingParams
from rillm.server.protocol import GenerationRequest, Repetition
from rillm.structured_outputs import StructuredOutputsParams

_AS_SENT = (
    "n",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "stop_token_ids",
    "ignore_eos",
    "min_tokens",
    "bad_words",
    "allowed_token_ids",
    "include_stop_str_in_output",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "logprob_token_ids",
    "stream_interval",
)


class SamplingDefaults(Protocol):
    """What a model's generation_config.json says."""

    @property
    def max_new_tokens(self) -> int | None:
        """Most tokens to generate; None where it says nothing."""

    def sampling_defaults(self) -> dict[str, Any]:
        """The options it gives, by their names in `SamplingParams`."""


def sampling_params(
    request: GenerationRequest,
    defaults: SamplingDefaults,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
    constraint: StructuredOutputsParams | None = None,
) -> SamplingParams:
    """Make the sampling options of a request.

    Args:
        request: the decoded body.
        defaults: the model's own.
        max_tokens: most tokens to generate; None is what is left of the context.
        logprobs: alternatives for each generated token, or None.
        prompt_logprobs: alternatives for each prompt token, or None.
        constraint: what the output fits.

    Raises:
        InvalidRequestError: an option is out of range, or needs another; `param` names it.
    """
    if request.logprob_token_ids is not None:
        if logprobs is None:
            raise InvalidRequestError(
                "logprob_token_ids is set, must be absent without logprobs",
                param="logprob_token_ids",
            )
        # Their number is the engine's number of logprobs; 0 is what a request says by default.
        logprobs = logprobs or None
    given = {name: value for name in _AS_SENT if (value := getattr(request, name)) is not None}
    options = {
        **defaults.sampling_defaults(),
        **given,
        "max_tokens": max_tokens,
        "logprobs": logprobs,
        "prompt_logprobs": prompt_logprobs,
        "logit_bias": clamped_logit_bias(request.logit_bias),
        "repetition_detection": repetition_detection(request.repetition_detection),
        "structured_outputs": constraint,
        "output_kind": RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY,
    }
    return SamplingParams(**options)


def repetition_detection(sent: Repetition | None) -> RepetitionDetection | None:
    """The checked form of what was sent.

    Raises:
        InvalidRequestError: a size or the count is out of range.
    """
    if sent is None:
        return None
    return RepetitionDetection(
        max_pattern_size=sent.max_pattern_size,
        min_pattern_size=sent.min_pattern_size,
        min_count=sent.min_count,
    )
