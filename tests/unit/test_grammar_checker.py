"""GrammarChecker: what is good passes, and what is bad harms nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from rillm import SamplingParams, StructuredOutputsParams
from rillm.constraints.checker import GrammarChecker, read_markers
from rillm.engine_args import EngineArgs
from rillm.errors import ConfigError, InvalidRequestError

SLOW = {"json": {"type": "integer", "multipleOf": 99_999_989}}


@pytest.fixture(scope="module")
def checker() -> Iterator[GrammarChecker]:
    checker = GrammarChecker(lambda: read_markers(EngineArgs().model_directory()), 2048)
    yield checker
    checker.close()


def params(**fields: Any) -> SamplingParams:
    return SamplingParams(structured_outputs=StructuredOutputsParams(**fields))


def test_a_request_without_a_constraint_has_no_grammar_and_needs_no_process() -> None:
    checker = GrammarChecker(lambda: pytest.fail("asked for markers"), 2048)

    assert checker.check_now(SamplingParams()) is None
    assert asyncio.run(checker.check(SamplingParams())) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"json": {}},
        {"json": {"type": "object", "properties": {"a": {"$ref": "#"}}}},
        {"json": '{"enum": ["a", 1, null]}'},
        {"json_object": True, "disable_any_whitespace": True},
        {"json": {}, "whitespace_pattern": "[ ]{0,2}"},
        {"regex": r"\p{L}+|[^a]\d{2,}"},
        {"choice": ['"', "\\", "\n", "é😀", "/", "a"]},
        {"grammar": 'start: "a" b*\nb: /[0-9]/'},
        {"grammar": 'root ::= "a" [0-9]* | "b"'},
        {"grammar": "start: <tool_call> /[^<]*/ <[2043]>"},
        {"grammar": "start: <|im_start|>"},
    ],
)
def test_good_constraints_pass(checker: GrammarChecker, fields: dict[str, Any]) -> None:
    assert checker.check_now(params(**fields))


def test_what_takes_too_long_ends_in_a_refusal_and_the_next_one_is_served(
    checker: GrammarChecker,
) -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="too much time") as caught:
            checker.check_now(params(**SLOW))
        assert caught.value.param == "structured_outputs.json"

    assert checker.check_now(params(regex="after [a-z]"))


def test_a_model_without_a_tokenizer_says_so() -> None:
    def no_markers() -> dict[int, str]:
        raise ConfigError("tokenizer.json is missing")

    checker = GrammarChecker(no_markers, 10)

    with pytest.raises(InvalidRequestError, match="needs the model's tokenizer"):
        checker.check_now(params(regex="a"))
