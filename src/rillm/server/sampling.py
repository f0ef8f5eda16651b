"""Request fields to SamplingParams: the request, then the model's defaults, then built-in ones."""

from __future__ import annotations

from typing import Any, Protocol

from rillm.errors import InvalidRequestError
from rillm.sampling_params import RequestOutputKind, SamplingParams
from rillm.server.protocol import GenerationRequest

MAX_LOGIT_BIAS = 100.0
"""Larger ones are clamped, as the OpenAI API does."""

_DEFAULTED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_AS_SENT = (
    "n",
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
)


class SamplingDefaults(Protocol):
    """What a model's generation_config.json says; None where it says nothing."""

    @property
    def temperature(self) -> float | None:
        """Divides the logits."""

    @property
    def top_p(self) -> float | None:
        """Nucleus size."""

    @property
    def top_k(self) -> int | None:
        """Tokens kept."""

    @property
    def min_p(self) -> float | None:
        """Share of the most probable token."""

    @property
    def repetition_penalty(self) -> float | None:
        """Above 1 discourages repetition."""

    @property
    def max_new_tokens(self) -> int | None:
        """Most tokens to generate."""


def sampling_params(
    request: GenerationRequest,
    defaults: SamplingDefaults,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
) -> SamplingParams:
    """Make the sampling options of a request.

    Args:
        request: the decoded body.
        defaults: the model's own.
        max_tokens: most tokens to generate; None is what is left of the context.
        logprobs: alternatives for each generated token, or None.
        prompt_logprobs: alternatives for each prompt token, or None.

    Raises:
        InvalidRequestError: an option is out of range; `param` names it.
    """
    options: dict[str, Any] = {}
    for name in _DEFAULTED:
        value = getattr(request, name)
        options[name] = getattr(defaults, name) if value is None else value
    for name in _AS_SENT:
        options[name] = getattr(request, name)
    given = {name: value for name, value in options.items() if value is not None}
    return SamplingParams(
        max_tokens=max_tokens,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        logit_bias=clamped_logit_bias(request.logit_bias),
        output_kind=RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY,
        **given,
    )


def clamped_logit_bias(biases: dict[str, float] | None) -> dict[int, float] | None:
    """Biases by token id, none larger than `MAX_LOGIT_BIAS`.

    Raises:
        InvalidRequestError: a key is not a token id.
    """
    if biases is None:
        return None
    by_id: dict[int, float] = {}
    for key, bias in biases.items():
        if not (key.isascii() and key.isdecimal()):
            raise InvalidRequestError(
                f"logit_bias has the key {key!r}, must be a token id such as '17'",
                param="logit_bias",
            )
        by_id[int(key)] = max(-MAX_LOGIT_BIAS, min(MAX_LOGIT_BIAS, bias))
    return by_id
