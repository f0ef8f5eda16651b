"""Constrained decoding end to end: whatever the model would rather write, the answer fits."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import jsonschema
import pytest
from random_schemas import random_object, random_schema
from tiny_models import EOS_TOKEN_ID, make_checkpoint, make_tokenizer

from rillm import LLM, RequestOutput, SamplingParams, StructuredOutputsParams
from rillm.errors import EngineGenerateError, InvalidRequestError

MAX_LEN = 512


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """Random weights over bytes: without a constraint it writes garbage."""
    path = make_tokenizer(make_checkpoint("llama", tmp_path_factory.mktemp("llama")))
    return LLM(str(path), dtype="float32", max_num_seqs=16)


def constrained(seed: int = 0, **fields: Any) -> SamplingParams:
    sampling = {"temperature": 1.5, "max_tokens": MAX_LEN - 8, "seed": seed}
    given = {
        name: fields.pop(name) for name in list(fields) if name in SamplingParams.__struct_fields__
    }
    params = StructuredOutputsParams(**fields)
    return SamplingParams(**(sampling | given), structured_outputs=params)


def run(llm: LLM, *params: SamplingParams) -> list[RequestOutput]:
    return llm.generate(["abc"] * len(params), list(params), use_tqdm=False)


def test_answers_validate_against_random_schemas(llm: LLM) -> None:
    schemas = [random_schema(random.Random(seed)) for seed in range(120)]
    whitespace = [{"disable_any_whitespace": True}, {"whitespace_pattern": " ?"}]

    outputs = run(
        llm,
        *(
            constrained(i, json=schema, temperature=1 + i % 3 / 2, **whitespace[i % 2])
            for i, schema in enumerate(schemas)
        ),
    )

    for schema, output in zip(schemas, outputs, strict=True):
        (choice,) = output.outputs
        assert choice.finish_reason == "stop", (schema, choice.text)
        jsonschema.validate(json.loads(choice.text), schema)


def test_forced_tokens_are_those_that_would_be_drawn(llm: LLM) -> None:
    def params(seed: int, **sampling: Any) -> SamplingParams:
        schema = random_object(random.Random(seed))
        return constrained(seed, json=schema, disable_any_whitespace=True, n=2, **sampling)

    skipped = run(llm, *(params(seed) for seed in range(40)))
    # Whoever asks for logprobs gets each token from the sampler.
    drawn = run(llm, *(params(seed, logprobs=0) for seed in range(40)))

    for one, other in zip(skipped, drawn, strict=True):
        assert [each.token_ids for each in one.outputs] == [
            each.token_ids for each in other.outputs
        ]
        assert [each.finish_reason for each in one.outputs] == [
            each.finish_reason for each in other.outputs
        ]


@pytest.mark.parametrize(
    "regex",
    [
        r"[a-f]{3}-\d{4}",
        r"(foo|bar|ba[zr])+!",
        r"\w{2,4}\s@\w{2,4}\.(com|org)",
        r"é{2}[あ-お]{1,3}😀",
        r"(0|[1-9]\d{0,3})(\.\d{1,2})?",
        r"[^\x00-\x1f]{1,5}",
    ],
)
def test_answers_match_the_whole_expression(llm: LLM, regex: str) -> None:
    (output,) = run(llm, constrained(3, regex=regex, n=4))

    for choice in output.outputs:
        assert choice.finish_reason == "stop"
        assert re.fullmatch(regex, choice.text), choice.text


def test_answers_are_among_the_choices(llm: LLM) -> None:
    choices = ["yes", "no", "maybe not", "ja\n", '"', "\\d"]

    (output,) = run(llm, constrained(1, choice=choices, n=12))

    texts = [choice.text for choice in output.outputs]
    assert set(texts) <= set(choices)
    assert len(set(texts)) > 1


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "(" root ")" | [0-9]',
        'start: "(" start ")" | /[0-9]/',
        '?start: e\ne: "(" e ")" | DIGIT\nDIGIT: /[0-9]/',
    ],
)
def test_answers_fit_a_recursive_grammar(llm: LLM, grammar: str) -> None:
    (output,) = run(llm, constrained(2, grammar=grammar, n=4))

    for choice in output.outputs:
        depth = choice.text.count("(")
        if choice.finish_reason == "stop":
            assert re.fullmatch(rf"\({{{depth}}}\d\){{{depth}}}", choice.text)
        else:
            assert choice.finish_reason == "length"


def test_any_json_object_is_an_object(llm: LLM) -> None:
    outputs = run(llm, *(constrained(i, json_object=True) for i in range(6)))

    for output in outputs:
        if output.outputs[0].finish_reason == "stop":
            assert isinstance(json.loads(output.outputs[0].text), dict)
        assert output.outputs[0].text.startswith("{")


def test_a_mask_that_admits_everything_changes_no_token(llm: LLM) -> None:
    tokenizer = llm.get_tokenizer()
    plain = [i for i in range(256) if tokenizer.token_bytes(i)[0] < 128]
    common: dict[str, Any] = {"temperature": 1.0, "seed": 5, "max_tokens": 60, "n": 3}

    free, masked = run(
        llm,
        SamplingParams(**common, allowed_token_ids=[*plain, EOS_TOKEN_ID]),
        constrained(**common, grammar=r"start: /(?s:[\x00-\x7f])*/"),
    )

    assert [c.token_ids for c in masked.outputs] == [c.token_ids for c in free.outputs]
    assert [c.finish_reason for c in masked.outputs] == [c.finish_reason for c in free.outputs]


def test_rows_do_not_depend_on_each_other(llm: LLM) -> None:
    rng = random.Random(7)
    params = [
        constrained(1, json=random_object(rng), disable_any_whitespace=True, n=2),
        SamplingParams(seed=2, max_tokens=80, temperature=1.0, ignore_eos=True),
        constrained(3, regex="[ab]{30}x", temperature=0),
        constrained(4, regex="[a-z]{90}", repetition_penalty=1.3, top_k=9, logprobs=2),
        SamplingParams(temperature=0, max_tokens=40),
        constrained(5, choice=["yes", "no"]),
    ]

    together = run(llm, *params)

    for one, output in zip(params, together, strict=True):
        (alone,) = run(llm, one)
        assert [c.token_ids for c in alone.outputs] == [c.token_ids for c in output.outputs]


def test_a_preempted_answer_goes_on_where_it_was(tmp_path: Any) -> None:
    path = make_tokenizer(make_checkpoint("llama", tmp_path, max_position_embeddings=128))
    params = [constrained(i, regex=r"(\d{3}-){20}x", max_tokens=100) for i in range(6)]
    roomy = run(LLM(str(path), dtype="float32"), *params)
    tight = LLM(str(path), dtype="float32", num_gpu_blocks_override=12)

    outputs = run(tight, *params)

    assert any(output.metrics and output.metrics.num_preemptions for output in outputs)
    assert [o.outputs[0].token_ids for o in outputs] == [o.outputs[0].token_ids for o in roomy]
    for output in outputs:
        assert re.fullmatch(r"(\d{3}-){20}x", output.outputs[0].text)


def test_the_end_token_ends_the_answer_and_is_no_text(llm: LLM) -> None:
    (output,) = run(llm, constrained(regex="ab"))
    (choice,) = output.outputs

    assert choice.text == "ab"
    assert choice.token_ids[-1] == EOS_TOKEN_ID
    assert (choice.finish_reason, choice.stop_reason) == ("stop", None)


@pytest.mark.parametrize("options", [{"ignore_eos": True}, {"min_tokens": 30}])
def test_a_complete_answer_ends_whatever_else_was_asked(llm: LLM, options: dict[str, Any]) -> None:
    (output,) = run(llm, constrained(regex="ab", **options))

    assert (output.outputs[0].text, output.outputs[0].finish_reason) == ("ab", "stop")


def test_stop_strings_cut_an_answer(llm: LLM) -> None:
    (output,) = run(llm, constrained(regex="abcdef", stop=["d"]))

    assert (output.outputs[0].text, output.outputs[0].stop_reason) == ("abc", "d")


def test_options_that_leave_nothing_fail_the_request(llm: LLM) -> None:
    with pytest.raises(EngineGenerateError, match="no token fits both the grammar"):
        run(llm, constrained(regex="ab", allowed_token_ids=[EOS_TOKEN_ID, 200]))

    assert run(llm, constrained(regex="ab"))[0].outputs[0].text == "ab"


def test_a_grammar_that_grows_too_complex_fails_its_request_only(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llguidance import LLParserLimits

    monkeypatch.setattr("rillm.engine.grammars.LIMITS", LLParserLimits(max_lexer_states=100))
    regex = r"([ab]*a[ab]{14}c){9}"

    with pytest.raises(EngineGenerateError, match="cannot be followed"):
        run(llm, constrained(regex=regex))

    assert run(llm, constrained(regex="ab"))[0].outputs[0].text == "ab"


def test_bad_constraints_are_refused_before_anything_runs(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run(llm, SamplingParams(), constrained(regex="("))

    assert caught.value.param == "structured_outputs.regex"


def test_a_model_without_a_tokenizer_refuses(tmp_path: Any) -> None:
    path = make_checkpoint("llama", tmp_path)
    llm = LLM(str(path), dtype="float32", skip_tokenizer_init=True)

    with pytest.raises(InvalidRequestError, match="needs the model's tokenizer"):
        llm.generate([[1, 2]], constrained(regex="a"), use_tqdm=False)


def test_an_engine_for_token_ids_uses_the_tokenizer_that_is_there(tmp_path: Any) -> None:
    path = make_tokenizer(make_checkpoint("llama", tmp_path))
    llm = LLM(str(path), dtype="float32", skip_tokenizer_init=True)

    (output,) = llm.generate([[1, 2]], constrained(regex="AB"), use_tqdm=False)

    assert output.outputs[0].token_ids[-1] == EOS_TOKEN_ID
    assert len(output.outputs[0].token_ids) == 3
