"""Figures against another computation of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillm.bench.answer import Answer
from rillm.bench.exchange import Exchange
from rillm.bench.gates import Fault
from rillm.bench.metrics import Spread, measure, meets, parse_goodput, percentile, summarize
from rillm.bench.schema import violations
from rillm.bench.wire import decode_chunk
from rillm.errors import ConfigError

FLOATS = st.floats(0, 1e6, allow_subnormal=False)


@given(st.lists(FLOATS, min_size=1, max_size=50), st.floats(0, 1))
def test_percentile_is_that_of_numpy(values: list[float], share: float) -> None:
    expected = float(np.percentile(values, share * 100))

    assert percentile(sorted(values), share) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.lists(FLOATS, min_size=1, max_size=50))
def test_spread_is_that_of_numpy(values: list[float]) -> None:
    spread = Spread.of(values)

    assert spread is not None
    found = (spread.mean, spread.std, spread.min, spread.p50, spread.p90, spread.p99, spread.max)
    array = np.array(values)
    quantiles = np.percentile(array, [0, 50, 90, 99, 100])
    assert found == pytest.approx((array.mean(), array.std(), *quantiles), rel=1e-6, abs=1e-6)


def delta(index: int, json: str) -> bytes:
    return b'{"choices": [{"index": %d, "delta": %s}]}' % (index, json.encode())


def answer(*chunks: tuple[float, bytes], first_byte_s: float = 0.01, end_s: float = 1.0) -> Answer:
    made = Answer(first_byte_s=first_byte_s, end_s=end_s)
    for at_s, chunk in chunks:
        made.add(decode_chunk(chunk), at_s)
    return made


def usage(num_tokens: int, cached: int = 0) -> bytes:
    return (
        b'{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": %d, '
        b'"prompt_tokens_details": {"cached_tokens": %d}}}' % (num_tokens, cached)
    )


def call_part(function: str) -> bytes:
    return delta(0, f'{{"tool_calls": [{{"index": 0, "function": {function}}}]}}')


def test_times_of_an_answer_that_reasons_and_calls() -> None:
    made = answer(
        (0.02, delta(0, '{"role": "assistant", "content": ""}')),
        (0.10, delta(0, '{"reasoning_content": "hm", "reasoning": "hm"}')),
        (0.15, delta(0, '{"reasoning_content": "m"}')),
        (0.30, delta(0, '{"content": "Well."}')),
        (0.40, call_part('{"name": "f", "arguments": ""}')),
        (0.45, call_part('{"arguments": "{\\"a\\": "}')),
        (0.65, call_part('{"arguments": "1}"}')),
        (0.66, call_part('{"arguments": " "}')),
        (0.70, b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}'),
        (0.71, usage(15)),
    )

    found = measure(made)

    gaps = [50, 150, 100, 50, 200, 10]
    expected = {
        "ttfb": [10], "ttft": [100], "reasoning": [100], "content": [300], "tool_name": [400],
        "tool_args": [450], "tool_call": [650], "e2el": [1000], "itl": gaps, "longest_gap": [200],
        "tpot": [(660 - 100) / 14], "jitter": [(100 + 50 + 50 + 150 + 190) / 5],
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values), name
    assert [choice["reasoning"] for choice in made.told()] == ["hmm"]
    assert sum(piece.size for piece in made.pieces) == len('hmmWell.f{"a": 1} ')


def test_gaps_are_those_of_one_choice_and_tokens_are_shared_by_all() -> None:
    made = answer(
        (0.1, delta(0, '{"content": "a"}')),
        (0.1, delta(1, '{"content": "b"}')),
        (0.3, delta(0, '{"content": "c"}')),
        (0.4, delta(1, '{"content": "d"}')),
        (0.4, usage(8)),
    )

    found = measure(made)

    assert found["itl"] == pytest.approx([200, 300])
    assert found["tpot"] == pytest.approx([(400 - 100) / (8 / 2 - 1)])


def test_empty_answer_has_no_times_of_output() -> None:
    assert measure(answer((0.5, usage(0)))).keys() == {"ttfb", "e2el"}


def test_summary_counts_what_is_complete() -> None:
    text = [(0.1 * i, delta(0, '{"content": "four"}')) for i in (1, 2, 3)]
    counted = Exchange({}, answer(*text, (0.4, usage(6, cached=4))))
    uncounted = Exchange({}, answer(*text))
    broken = Exchange({}, answer(*text), [Fault("stall", "x"), Fault("stall", "y")])

    summary = summarize([counted, uncounted, broken], 2.0, parse_goodput(["ttft:100", "e2el:2000"]))

    assert (summary.num_completed, summary.num_failed, summary.num_good) == (2, 1, 2)
    assert (summary.output_tokens, summary.num_uncounted) == (6 + 3, 1)
    assert (summary.input_tokens, summary.cached_tokens) == (7, 4)
    assert (summary.num_chunks, summary.chars_per_chunk, summary.tokens_per_chunk) == (6, 4, 1.5)
    assert (summary.request_throughput, summary.output_throughput) == (1.0, 4.5)
    assert summary.request_goodput == 1.0
    assert summary.faults == {"stall": 1}


def test_objective_holds_the_mean_of_many_values_and_every_single_one() -> None:
    found = {"ttft": [100.0], "itl": [10.0, 30.0]}

    assert meets(found, parse_goodput(["ttft:100", "itl:20"]))
    assert not meets(found, parse_goodput(["ttft:99"]))
    assert not meets(found, parse_goodput(["ttft:100", "itl:19"]))


@pytest.mark.parametrize("word", ["ttft", "ttft:", "ttft:x", "ttft:0", "ttft:nan", "speed:5", ":5"])
def test_wrong_objective_is_named(word: str) -> None:
    with pytest.raises(ConfigError, match="goodput is"):
        parse_goodput([word])


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("value", "schema", "named"),
    [
        ({"city": "Oslo"}, CITY, None),
        ({"city": "Oslo", "unit": 1}, CITY, None),
        ({}, CITY, r"\$.city is missing"),
        ({"city": 1}, CITY, r"\$.city is 1, must be of type string"),
        ({"city": "x", "u": 1}, CITY | {"additionalProperties": False}, r"\$.u is not declared"),
        ({"city": "x", "u": 1}, CITY | {"additionalProperties": {"type": "null"}}, r"\$.u is 1"),
        ([1, True], {"type": "array", "items": {"type": "integer"}}, r"\$\[1\] is True"),
        (2.0, {"type": "integer"}, None),
        (2.5, {"type": ["integer", "null"]}, "must be of type integer or null"),
        ("c", {"enum": ["a", "b"]}, "must be one of"),
        ("c", {"const": "a"}, "must be 'a'"),
        ("c", {}, None),
    ],
)
def test_schema(value: object, schema: dict[str, object], named: str | None) -> None:
    found = list(violations(value, schema))

    if named is None:
        assert found == []
    else:
        with pytest.raises(ConfigError, match=named):
            raise ConfigError("; ".join(found))
