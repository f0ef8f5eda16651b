"""Every field of SamplingParams: what it accepts, and how it refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rillm.errors import InvalidRequestError
from rillm.sampling_params import (
    RepetitionDetection,
    RequestOutputKind,
    SamplingParams,
    StructuredOutputsParams,
)

INT64_MAX = 2**63 - 1
NAN = float("nan")
INF = float("inf")

ACCEPTED: dict[str, list[Any]] = {
    "n": [1, 2, 16384],
    "presence_penalty": [-2, -2.0, 0, 2.0],
    "frequency_penalty": [-2.0, 0.5, 2],
    "repetition_penalty": [1e-6, 1, 1.5, 1e30],
    "temperature": [0, 0.0, 1e-6, 0.001, 1, 2.0],
    "top_p": [1e-9, 0.5, 1, 1.0],
    "top_k": [-1, 0, 1, 10**9],
    "min_p": [0, 0.0, 0.5, 1.0],
    "seed": [None, 0, -2, 7, -(2**63), INT64_MAX],
    "stop": [None, [], ["a"], ["a", "\n\n"]],
    "stop_token_ids": [None, [], [0, 5]],
    "ignore_eos": [True, False],
    "max_tokens": [None, 1, 16, INT64_MAX],
    "min_tokens": [0, 1, 16],
    "logprobs": [None, 0, 5, -1],
    "prompt_logprobs": [None, 0, 5, -1],
    "logprob_token_ids": [None, [], [3, 4], list(range(128))],
    "prompt_logprob_token_ids": [None, [], [[1, -1], []]],
    "prompt_logprob_start": [None, 0, 12],
    "flat_logprobs": [True, False],
    "detokenize": [True, False],
    "skip_special_tokens": [True, False],
    "spaces_between_special_tokens": [True, False],
    "include_stop_str_in_output": [True, False],
    "output_kind": list(RequestOutputKind),
    "stream_interval": [None, 1, 100],
    "logit_bias": [None, {}, {0: 1, 5: -100.0}],
    "allowed_token_ids": [None, [0], [5, 6]],
    "bad_words": [None, [], ["a", "b c"]],
    "extra_args": [None, {}, {"a": [1, {"b": None}]}],
    "skip_reading_prefix_cache": [None, True, False],
    "repetition_detection": [None, RepetitionDetection(max_pattern_size=4)],
    "structured_outputs": [None, StructuredOutputsParams(regex="a+")],
}


def test_every_field_is_in_the_table_of_accepted_values() -> None:
    assert list(ACCEPTED) == [field.name for field in msgspec.structs.fields(SamplingParams)]


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in ACCEPTED.items() for value in values]
)
def test_values_in_range_are_kept_as_they_are(name: str, value: Any) -> None:
    kept = getattr(SamplingParams(**{name: value}), name)
    assert kept == value
    assert type(kept) is type(value)


NOT_INTEGERS = ["1", 1.0, True, [1]]
NOT_NUMBERS = ["1", True, [1.0]]
NOT_SWITCHES = [0, 1, "true", None]
PENALTY_REFUSED = [
    ("must be in [-2, 2]", [-2.01, 2.01, NAN, INF, -INF, 10**400]),
    ("must be a number", [*NOT_NUMBERS, None]),
]
COUNT_REFUSED = [("must be at least -1", [-2]), ("must be an integer", ["1", 1.0, False])]
IDS_REFUSED = [
    ("must be a list of token ids", [5, "5", (5,), {5}]),
    ("must be an integer", [["5"], [5.0], [True], [None]]),
    ("must be from 0 to 9223372036854775807", [[-1], [2**63]]),
]
STRINGS_REFUSED = [
    ("must be a list of strings", [5, ("a",), [5], [None], [b"a"]]),
    ("holds an empty string", [[""], ["a", ""]]),
]
SWITCH_REFUSED = [("must be True or False", NOT_SWITCHES)]
REFUSED: dict[str, list[tuple[str, list[Any]]]] = {
    "n": [
        ("must be from 1 to 16384", [0, -1, 16385, 10**30]),
        ("must be an integer", [*NOT_INTEGERS, None]),
    ],
    "presence_penalty": PENALTY_REFUSED,
    "frequency_penalty": PENALTY_REFUSED,
    "repetition_penalty": [
        ("must be in (0, 3.4", [0, 0.0, -1, NAN, INF, 1e300, 10**400]),
        ("must be a number", [*NOT_NUMBERS, None]),
    ],
    "temperature": [
        ("must be in [0, 2]", [-0.001, 2.001, NAN, INF]),
        ("must be a number", [*NOT_NUMBERS, None]),
    ],
    "top_p": [
        ("must be in (0, 1]", [0, 0.0, -0.5, 1.001, NAN]),
        ("must be a number", [*NOT_NUMBERS, None]),
    ],
    "top_k": [
        ("must be at least -1", [-2]),
        ("must be from -1 to 9223372036854775807", [2**63]),
        ("must be an integer", [*NOT_INTEGERS, None]),
    ],
    "min_p": [
        ("must be in [0, 1]", [-0.001, 1.001, NAN]),
        ("must be a number", [*NOT_NUMBERS, None]),
    ],
    "seed": [
        ("must be from -9223372036854775808 to 9223372036854775807", [2**63, -(2**63) - 1]),
        ("must be an integer", NOT_INTEGERS),
    ],
    "stop": STRINGS_REFUSED + [("holds an empty string", [""])],
    "stop_token_ids": IDS_REFUSED,
    "ignore_eos": SWITCH_REFUSED,
    "max_tokens": [
        ("must be at least 1", [0, -1]),
        ("must be from 1 to 9223372036854775807", [2**63]),
        ("must be an integer", NOT_INTEGERS),
    ],
    "min_tokens": [
        ("must be from 0 to 16", [-1, 17, 2**63]),
        ("must be an integer", [*NOT_INTEGERS, None]),
    ],
    "logprobs": COUNT_REFUSED,
    "prompt_logprobs": COUNT_REFUSED,
    "logprob_token_ids": [*IDS_REFUSED, ("at most 128", [list(range(129))])],
    "prompt_logprob_token_ids": [
        ("must be a list", [5, "5", [5], ([5],)]),
        ("must be an integer", [[["5"]], [[True]]]),
        ("must be from -1 to", [[[-2]]]),
    ],
    "prompt_logprob_start": [
        ("must be at least 0", [-1]),
        ("must be from 0 to 9223372036854775807", [2**63]),
        ("must be an integer", NOT_INTEGERS),
    ],
    "flat_logprobs": SWITCH_REFUSED,
    "detokenize": SWITCH_REFUSED,
    "skip_special_tokens": SWITCH_REFUSED,
    "spaces_between_special_tokens": SWITCH_REFUSED,
    "include_stop_str_in_output": SWITCH_REFUSED,
    "output_kind": [("must be CUMULATIVE, DELTA or FINAL_ONLY", [3, "delta", None])],
    "stream_interval": [
        ("must be at least 1", [0, -1]),
        ("must be an integer", NOT_INTEGERS),
    ],
    "logit_bias": [
        ("must be a dict from token id to number", [[5], "5"]),
        ("must be an integer", [{"5": 1.0}]),
        ("must be from 0 to", [{-1: 1.0}]),
        ("must be a number", [{5: "1"}, {5: None}, {5: True}]),
        ("must be in [-3.4", [{5: INF}, {5: NAN}, {5: 1e300}]),
    ],
    "allowed_token_ids": [*IDS_REFUSED, ("must hold at least one token id", [[]])],
    "bad_words": [*STRINGS_REFUSED, ("must be a list of strings", ["word"])],
    "extra_args": [("must be a dict", [5, [1]]), ("cannot be carried", [{"a": 2**70}])],
    "skip_reading_prefix_cache": [("must be True, False or None", [0, "no"])],
    "repetition_detection": [("must be a RepetitionDetection", [{"max_pattern_size": 4}, 4])],
    "structured_outputs": [("must be a StructuredOutputsParams", [{"regex": "a"}, "a"])],
}


def test_every_field_is_in_the_table_of_refused_values() -> None:
    assert list(REFUSED) == list(ACCEPTED)


@pytest.mark.parametrize(
    ("name", "message", "value"),
    [
        (name, message, value)
        for name, cases in REFUSED.items()
        for message, values in cases
        for value in values
    ],
)
def test_values_out_of_range_are_refused_with_the_field_and_the_range(
    name: str, message: str, value: Any
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.param == name
    assert name in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_pattern_size": 0}, "max_pattern_size"),
        ({"max_pattern_size": 2, "min_pattern_size": 3}, "max_pattern_size"),
        ({"max_pattern_size": 2, "min_pattern_size": 0}, "min_pattern_size"),
        ({"max_pattern_size": 2, "min_count": 1}, "min_count"),
        ({"max_pattern_size": 2.0}, "max_pattern_size"),
    ],
)
def test_repetition_detection_refuses_impossible_patterns(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        RepetitionDetection(**fields)
    assert caught.value.param == f"repetition_detection.{param}"


def test_minus_one_as_a_seed_means_none() -> None:
    assert SamplingParams(seed=-1).seed is None


def test_a_single_stop_string_becomes_a_list() -> None:
    assert SamplingParams(stop="\n").stop == ["\n"]


def test_stop_ids_lose_repetitions_and_keep_their_order() -> None:
    assert SamplingParams(stop_token_ids=[5, 3, 5, 3, 9]).stop_token_ids == [5, 3, 9]


def test_logprobs_true_means_one_alternative() -> None:
    params = SamplingParams(logprobs=True, prompt_logprobs=True)
    assert (params.logprobs, params.prompt_logprobs) == (1, 1)
    assert type(params.logprobs) is int


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 0, "n": 2}, "n"),
        ({"stop": ["a"], "detokenize": False}, "stop"),
        ({"logprobs": 2, "logprob_token_ids": [1, 2, 3]}, "logprobs"),
        ({"max_tokens": 4, "min_tokens": 5}, "min_tokens"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(**fields)
    assert caught.value.param == param


def test_fields_that_only_look_contradictory_are_accepted() -> None:
    SamplingParams(temperature=0, n=1)
    SamplingParams(stop=[], detokenize=False)
    SamplingParams(logprobs=3, logprob_token_ids=[1, 2, 3])
    SamplingParams(max_tokens=None, min_tokens=1000)


@pytest.mark.parametrize("temperature", [0, 9e-6])
def test_tiny_temperatures_are_greedy(temperature: float) -> None:
    assert SamplingParams(temperature=temperature).is_greedy
    assert not SamplingParams(temperature=2e-5).is_greedy


def test_unknown_keywords_and_positions_are_type_errors() -> None:
    with pytest.raises(TypeError):
        SamplingParams(tempreature=1.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        SamplingParams(2)  # type: ignore[call-arg]


def test_a_field_assigned_later_is_checked_by_verify() -> None:
    params = SamplingParams()
    params.top_p = 7.0
    with pytest.raises(InvalidRequestError, match=r"top_p is 7.0, must be in \(0, 1\]"):
        params.verify()
