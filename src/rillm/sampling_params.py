"""SamplingParams: what one request asks of the sampler and of the text it gets back.

Names, defaults and ranges are those of vLLM's `SamplingParams`, so that programs move over
by changing an import. Checks against a model (vocabulary size, `max_logprobs`) are the
engine client's; what can be checked alone is checked on construction and again, because the
fields may be assigned to, when a request is made.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from rillm.errors import InvalidRequestError
from rillm.structured_outputs import StructuredOutputsParams as StructuredOutputsParams

MAX_SEQUENCES = 16384
MAX_STOP_STRINGS = 128
MAX_BAD_WORDS = 128
MAX_STRING_CHARACTERS = 4096
"""Longest stop string or bad word."""
MAX_LOGPROB_TOKEN_IDS = 128
GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy."""
MIN_TEMPERATURE = 1e-2
"""Temperatures between GREEDY_BELOW and this are raised to it: smaller ones overflow."""
_INT64_MAX = 2**63 - 1
_FLOAT32_MAX = 3.4028234663852886e38
"""The sampler counts in float32: what is larger would be infinite there."""
_FLAGS = (
    "ignore_eos",
    "flat_logprobs",
    "detokenize",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "include_stop_str_in_output",
)


class RequestOutputKind(enum.IntEnum):
    """What each output of a stream holds."""

    CUMULATIVE = 0
    """Everything so far."""
    DELTA = 1
    """What is new since the output before."""
    FINAL_ONLY = 2
    """One output, when all choices are done."""


class RepetitionDetection(msgspec.Struct, kw_only=True, frozen=True):
    """End a sequence whose tail repeats: a pattern of tokens, `min_count` times in a row."""

    max_pattern_size: int
    """Longest pattern looked for, in tokens; at least 1."""
    min_pattern_size: int = 1
    """Shortest pattern looked for, in tokens; at least 1."""
    min_count: int = 3
    """Times the pattern must occur, at least 2."""

    def __post_init__(self) -> None:
        _check_int("repetition_detection.min_pattern_size", self.min_pattern_size, 1)
        _check_int(
            "repetition_detection.max_pattern_size", self.max_pattern_size, self.min_pattern_size
        )
        _check_int("repetition_detection.min_count", self.min_count, 2)


class SamplingParams(msgspec.Struct, kw_only=True):
    """One request's sampling options.

    Raises:
        InvalidRequestError: a field is out of range; `param` names it.
    """

    n: int = 1
    """Sequences to generate, 1 to 16384; greedy sampling admits only 1."""
    presence_penalty: float = 0.0
    """Subtracted once from the logit of a token already generated. Range [-2, 2]."""
    frequency_penalty: float = 0.0
    """Subtracted for each time a token was generated. Range [-2, 2]."""
    repetition_penalty: float = 1.0
    """Divides positive (multiplies negative) logits of tokens of prompt and output; above 0."""
    temperature: float = 1.0
    """Divides the logits; below 1e-5 means greedy. Range [0, 2]."""
    top_p: float = 1.0
    """Keeps the smallest set of tokens with this much probability. Range (0, 1]."""
    top_k: int = 0
    """Keeps the most probable tokens; 0 or -1 keeps all."""
    min_p: float = 0.0
    """Drops tokens less probable than this share of the most probable one. Range [0, 1]."""
    seed: int | None = None
    """The source of randomness: same seed, same tokens. None or -1: the engine draws one."""
    stop: str | list[str] | None = None
    """Strings that end the output."""
    stop_token_ids: list[int] | None = None
    """Token ids that end the output."""
    ignore_eos: bool = False
    """Go on after the end-of-sequence token."""
    max_tokens: int | None = 16
    """Most tokens to generate, at least 1; None: what is left of the context."""
    min_tokens: int = 0
    """Tokens to generate before any stop token or stop string counts."""
    logprobs: int | None = None
    """Alternatives to report for each generated token; 0: the token itself, -1: all."""
    prompt_logprobs: int | None = None
    """Alternatives to report for each prompt token; 0: the token itself, -1: all."""
    logprob_token_ids: list[int] | None = None
    """Report the logprobs of exactly these ids (at most 128) instead of the best ones."""
    prompt_logprob_token_ids: list[list[int]] | None = None
    """Ids whose logprobs to report at each prompt position from `prompt_logprob_start` + 1 on."""
    prompt_logprob_start: int | None = None
    """First prompt position that `prompt_logprob_token_ids` scores from; 0 or more."""
    flat_logprobs: bool = False
    """Return logprobs in a container of flat lists instead of one dict for each token."""
    detokenize: bool = True
    """False: outputs hold token ids and no text."""
    skip_special_tokens: bool = True
    """Leave special tokens out of the text."""
    spaces_between_special_tokens: bool = True
    """Accepted for compatibility: byte-exact detokenization never adds such spaces."""
    include_stop_str_in_output: bool = False
    """Keep the stop string (or the stop token's text) at the end of the text."""
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    """What each output of a stream holds."""
    stream_interval: int | None = None
    """Emit every so many tokens, at least 1; the first and the last come at once."""
    logit_bias: dict[int, float] | None = None
    """Added to the logits of these token ids."""
    allowed_token_ids: list[int] | None = None
    """Only these token ids can be generated."""
    bad_words: list[str] | None = None
    """Strings whose token sequences are never generated; at most 128 sequences."""
    extra_args: dict[str, Any] | None = None
    """Carried along, not looked at."""
    skip_reading_prefix_cache: bool | None = None
    """Compute the whole prompt; None: only when prompt logprobs need it."""
    repetition_detection: RepetitionDetection | None = None
    """End a sequence whose tail repeats."""
    structured_outputs: StructuredOutputsParams | None = None
    """A schema, an expression or a grammar that the output fits."""

    def __post_init__(self) -> None:
        if self.seed == -1:
            self.seed = None
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is True:
                setattr(self, name, 1)
        if self.stop_token_ids is not None:
            _check_ids("stop_token_ids", self.stop_token_ids)
            self.stop_token_ids = list(dict.fromkeys(self.stop_token_ids))
        self.verify()

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature < GREEDY_BELOW

    def verify(self) -> None:
        """Check every field that can be checked without a model.

        Raises:
            InvalidRequestError: the first field out of range, in declared order.
        """
        _check_int("n", self.n, 1, MAX_SEQUENCES)
        if self.extra_args is not None:
            _check_extra_args(self.extra_args)
        self._verify_numbers()
        self._verify_logprobs()
        self._verify_tokens_and_text()
        self._verify_switches()
        if self.is_greedy and self.n > 1:
            raise InvalidRequestError(
                f"n is {self.n}, must be 1 with greedy sampling (temperature 0)", param="n"
            )

    def _verify_numbers(self) -> None:
        _check_float("presence_penalty", self.presence_penalty, -2, 2)
        _check_float("frequency_penalty", self.frequency_penalty, -2, 2)
        _check_float("repetition_penalty", self.repetition_penalty, 0, _FLOAT32_MAX, above=True)
        _check_float("temperature", self.temperature, 0, 2)
        _check_float("top_p", self.top_p, 0, 1, above=True)
        _check_int("top_k", self.top_k, -1)
        _check_float("min_p", self.min_p, 0, 1)
        if self.seed is not None:
            _check_int("seed", self.seed, -_INT64_MAX - 1, _INT64_MAX)
        if self.max_tokens is not None:
            _check_int("max_tokens", self.max_tokens, 1)
        _check_int("min_tokens", self.min_tokens, 0, self.max_tokens)
        if self.stream_interval is not None:
            _check_int("stream_interval", self.stream_interval, 1)

    def _verify_logprobs(self) -> None:
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if count is not None:
                _check_int(name, count, -1)
        if self.logprob_token_ids is not None:
            _check_ids("logprob_token_ids", self.logprob_token_ids, MAX_LOGPROB_TOKEN_IDS)
            if self.logprobs is not None and self.logprobs != len(self.logprob_token_ids):
                raise InvalidRequestError(
                    f"logprobs is {self.logprobs}, must be the length of logprob_token_ids "
                    f"({len(self.logprob_token_ids)}) when both are given",
                    param="logprobs",
                )
        if self.prompt_logprob_start is not None:
            _check_int("prompt_logprob_start", self.prompt_logprob_start, 0)
        if self.prompt_logprob_token_ids is not None:
            if not isinstance(self.prompt_logprob_token_ids, list):
                raise _wrong_type("prompt_logprob_token_ids", "a list of lists of token ids")
            for row in self.prompt_logprob_token_ids:
                _check_ids("prompt_logprob_token_ids", row, minimum=-1)

    def _verify_tokens_and_text(self) -> None:
        if self.stop_token_ids is not None:
            _check_ids("stop_token_ids", self.stop_token_ids)
        if self.stop is not None:
            _check_strings("stop", self.stop, MAX_STOP_STRINGS)
            if self.stop and not self.detokenize:
                raise InvalidRequestError(
                    "stop needs detokenize=True: stop strings are found in text", param="stop"
                )
        if self.bad_words is not None:
            _check_strings("bad_words", self.bad_words, MAX_BAD_WORDS)
        if self.allowed_token_ids is not None:
            _check_ids("allowed_token_ids", self.allowed_token_ids)
            if not self.allowed_token_ids:
                raise InvalidRequestError(
                    "allowed_token_ids is empty, must hold at least one token id",
                    param="allowed_token_ids",
                )
        if self.logit_bias is not None:
            if not isinstance(self.logit_bias, dict):
                raise _wrong_type("logit_bias", "a dict from token id to number")
            _check_ids("logit_bias", list(self.logit_bias))
            for bias in self.logit_bias.values():
                _check_float("logit_bias", bias, -_FLOAT32_MAX, _FLOAT32_MAX)
        try:
            self.output_kind = RequestOutputKind(self.output_kind)
        except ValueError:
            raise InvalidRequestError(
                f"output_kind is {self.output_kind!r}, must be CUMULATIVE, DELTA or FINAL_ONLY",
                param="output_kind",
            ) from None

    def _verify_switches(self) -> None:
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise _wrong_type(name, "True or False")
        if not isinstance(self.skip_reading_prefix_cache, bool | None):
            raise _wrong_type("skip_reading_prefix_cache", "True, False or None")
        if not isinstance(self.repetition_detection, RepetitionDetection | None):
            raise _wrong_type("repetition_detection", "a RepetitionDetection")
        if not isinstance(self.structured_outputs, StructuredOutputsParams | None):
            raise _wrong_type("structured_outputs", "a StructuredOutputsParams")
        if self.structured_outputs is not None:
            self.structured_outputs.verify()


def _wrong_type(name: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name} must be {expected}", param=name)


def _check_int(name: str, value: object, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequestError(f"{name} is {value!r}, must be an integer", param=name)
    highest = _INT64_MAX if high is None else high
    if not low <= value <= highest:
        is_plain = high is None and value < low
        limit = f"at least {low}" if is_plain else f"from {low} to {highest}"
        raise InvalidRequestError(f"{name} is {value}, must be {limit}", param=name)


def _check_float(name: str, value: object, low: float, high: float, above: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{name} is {value!r}, must be a number", param=name)
    if not ((value > low if above else value >= low) and value <= high):
        opening = "(" if above else "["
        raise InvalidRequestError(
            f"{name} is {value}, must be in {opening}{low}, {high}]", param=name
        )


def _check_ids(name: str, ids: object, most: int | None = None, minimum: int = 0) -> None:
    if not isinstance(ids, list):
        raise _wrong_type(name, "a list of token ids")
    if most is not None and len(ids) > most:
        raise InvalidRequestError(f"{name} has {len(ids)} ids, at most {most}", param=name)
    for token_id in ids:
        _check_int(name, token_id, minimum, _INT64_MAX)


def _check_strings(name: str, strings: object, most: int) -> None:
    if not isinstance(strings, list):
        raise _wrong_type(name, "a list of strings")
    if len(strings) > most:
        raise InvalidRequestError(
            f"{name} has {len(strings)} strings, must have at most {most}", param=name
        )
    for string in strings:
        if not isinstance(string, str):
            raise _wrong_type(name, "a list of strings")
        if not string:
            raise InvalidRequestError(f"{name} holds an empty string", param=name)
        if len(string) > MAX_STRING_CHARACTERS:
            raise InvalidRequestError(
                f"{name} holds a string of {len(string)} characters, must be at most "
                f"{MAX_STRING_CHARACTERS}",
                param=name,
            )


def _check_extra_args(extra_args: object) -> None:
    if not isinstance(extra_args, dict):
        raise _wrong_type("extra_args", "a dict")
    try:
        msgspec.msgpack.encode(extra_args)
    except (OverflowError, TypeError) as error:
        raise InvalidRequestError(
            f"extra_args cannot be carried: {error}", param="extra_args"
        ) from (error)
