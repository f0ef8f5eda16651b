"""What a prompt and its options become for the engine, and every way they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import EOS_TOKEN_ID, VOCAB_SIZE, make_checkpoint, make_tokenizer

from rillm.engine.messages import EngineRequest, TokenSamplingParams
from rillm.errors import ContextLengthError, InvalidRequestError
from rillm.input_processor import InputProcessor, Limits
from rillm.models.config import GenerationConfig, ModelConfig
from rillm.sampling_params import RepetitionDetection, SamplingParams
from rillm.text.tokenizer import Tokenizer

LIMITS = Limits(max_model_len=20, max_num_seqs=8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokenizer(make_checkpoint("llama", tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Tokenizer:
    return Tokenizer.from_directory(checkpoint)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> ModelConfig:
    return ModelConfig.from_directory(checkpoint)


@pytest.fixture(scope="module")
def inputs(model: ModelConfig, tokenizer: Tokenizer) -> InputProcessor:
    return InputProcessor(model, GenerationConfig(), tokenizer, max_logprobs=5, seed=0)


def processed(inputs: InputProcessor, prompt: Any = (1, 2, 3), **params: Any) -> EngineRequest:
    prompt = list(prompt) if isinstance(prompt, tuple) else prompt
    return inputs.process(7, prompt, SamplingParams(**params), LIMITS).request


def token_params(inputs: InputProcessor, **params: Any) -> TokenSamplingParams:
    return processed(inputs, **params).params


# ---- prompts -----------------------------------------------------------------------------------


def test_every_form_of_a_prompt_gives_the_same_tokens(
    inputs: InputProcessor, tokenizer: Tokenizer
) -> None:
    ids = tokenizer.encode("hello")
    forms: list[tuple[Any, str | None]] = [
        ("hello", "hello"),
        (ids, None),
        ({"prompt": "hello"}, "hello"),
        ({"prompt_token_ids": ids}, None),
        ({"prompt_token_ids": ids, "prompt": "shown"}, "shown"),
    ]
    for prompt, text in forms:
        result = inputs.process(7, prompt, SamplingParams(), LIMITS)
        assert (result.request.prompt_token_ids, result.prompt) == (ids, text)
        assert (result.request.request_id, result.request.cache_salt) == (7, None)


@pytest.mark.parametrize(
    ("prompt", "param", "message"),
    [
        ("", "prompt_token_ids", "prompt is empty"),
        ([], "prompt_token_ids", "prompt is empty"),
        ({"prompt_token_ids": []}, "prompt_token_ids", "prompt is empty"),
        ({"prompt_token_ids": None}, "prompt_token_ids", "must be a list of token ids"),
        ({"prompt_token_ids": "12"}, "prompt_token_ids", "must be a list of token ids"),
        ([1, True], "prompt_token_ids", "must be a list of integers"),
        ([1, 2.0], "prompt_token_ids", "must be a list of integers"),
        ([1, "2"], "prompt_token_ids", "must be a list of integers"),
        ([[1, 2]], "prompt_token_ids", "must be a list of integers"),
        ([1, VOCAB_SIZE], "prompt_token_ids", f"token id {VOCAB_SIZE}, which is out of vocabulary"),
        ([-1, 2], "prompt_token_ids", "token id -1, which is out of vocabulary"),
        ([2**80], "prompt_token_ids", f"must be from 0 to {VOCAB_SIZE - 1}"),
        (5, "prompt", "must be a string, a list of token ids, or a dict"),
        (None, "prompt", "must be a string, a list of token ids, or a dict"),
        (b"hello", "prompt", "must be a string, a list of token ids, or a dict"),
        ((1, 2), "prompt", "must be a string, a list of token ids, or a dict"),
        ({}, "prompt", "neither `prompt` nor `prompt_token_ids`"),
        ({"prompt": None}, "prompt", "neither `prompt` nor `prompt_token_ids`"),
        ({"prompt": 5}, "prompt", "prompt must be a string"),
        ({"prompt": [1, 2]}, "prompt", "prompt must be a string"),
        ("\ud800", "prompt", "valid Unicode"),
        ({"prompt": "a", "cache_salt": ""}, "cache_salt", "not empty"),
        ({"prompt": "a", "cache_salt": 5}, "cache_salt", "must be a string"),
        ({"prompt": "a", "cache_salt": "\ud800"}, "cache_salt", "valid Unicode"),
    ],
)
def test_a_malformed_prompt_is_refused_with_the_field_at_fault(
    inputs: InputProcessor, prompt: Any, param: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        inputs.process(7, prompt, SamplingParams(), LIMITS)
    assert caught.value.param == param


@pytest.mark.parametrize("length", [20, 21, 1000])
def test_a_prompt_that_leaves_no_room_for_a_token_is_a_context_length_error(
    inputs: InputProcessor, length: int
) -> None:
    with pytest.raises(
        ContextLengthError, match=rf"{length} tokens.*maximum.* 20 tokens"
    ) as caught:
        processed(inputs, [1] * length)
    assert caught.value.param == "input_tokens"
    assert processed(inputs, [1] * 19, max_tokens=None).params.max_tokens == 1


def test_text_needs_a_tokenizer_and_token_ids_do_not(model: ModelConfig) -> None:
    inputs = InputProcessor(model, GenerationConfig(), None, max_logprobs=5, seed=0)
    assert processed(inputs, [1, 2]).prompt_token_ids == [1, 2]
    for prompt, fields, param in [
        ("hello", {}, "prompt"),
        ([1], {"bad_words": ["a"]}, "bad_words"),
    ]:
        with pytest.raises(InvalidRequestError, match="tokenizer") as caught:
            processed(inputs, prompt, **fields)
        assert caught.value.param == param


def test_the_callers_prompt_and_params_may_change_afterwards(inputs: InputProcessor) -> None:
    prompt, params = [1, 2, 3], SamplingParams(n=2)
    result = inputs.process(7, prompt, params, LIMITS)
    prompt.append(4)
    params.n = 3
    assert result.request.prompt_token_ids == [1, 2, 3]
    assert (result.request.n, result.params.n) == (2, 2)


# ---- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "param", "message"),
    [
        ({"n": 9}, "n", r"must be at most max_num_seqs \(8\)"),
        ({"logprobs": 6}, "logprobs", r"must be at most 5 \(max_logprobs\)"),
        ({"logprobs": -1}, "logprobs", f"logprobs is {VOCAB_SIZE}, must be at most 5"),
        ({"prompt_logprobs": 6}, "prompt_logprobs", "must be at most 5"),
        ({"prompt_logprobs": 6, "logprob_token_ids": [1]}, "prompt_logprobs", "at most 5"),
        ({"logit_bias": {VOCAB_SIZE: 1.0}}, "logit_bias", "out of vocabulary"),
        ({"stop_token_ids": [VOCAB_SIZE]}, "stop_token_ids", "out of vocabulary"),
        ({"allowed_token_ids": [0, VOCAB_SIZE]}, "allowed_token_ids", "out of vocabulary"),
        ({"logprob_token_ids": [VOCAB_SIZE]}, "logprob_token_ids", "out of vocabulary"),
        ({"prompt_logprob_token_ids": [[1]]}, "prompt_logprob_token_ids", "must have 2"),
        (
            {"prompt_logprob_token_ids": [[1]], "prompt_logprob_start": 9},
            "prompt_logprob_token_ids",
            "must have -7",
        ),
        ({"prompt_logprob_token_ids": [[1] * 6, []]}, "prompt_logprob_token_ids", "at most 5"),
        (
            {"prompt_logprob_token_ids": [[VOCAB_SIZE], []]},
            "prompt_logprob_token_ids",
            "out of vocabulary",
        ),
        ({"bad_words": [chr(65 + i) for i in range(65)]}, "bad_words", "130 token sequences"),
    ],
)
def test_options_the_model_cannot_serve_are_refused(
    inputs: InputProcessor, params: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        processed(inputs, **params)
    assert caught.value.param == param


@pytest.mark.parametrize("params", [None, {"temperature": 0}])
def test_sampling_params_have_to_be_sampling_params(inputs: InputProcessor, params: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        inputs.process(7, "a", params, LIMITS)
    assert caught.value.param == "sampling_params"


def test_a_field_assigned_after_construction_is_checked_too(inputs: InputProcessor) -> None:
    params = SamplingParams()
    params.temperature = 3.0
    with pytest.raises(InvalidRequestError, match="temperature is 3.0"):
        inputs.process(7, "a", params, LIMITS)


@pytest.mark.parametrize("priority", ["1", 1.0, True, None, 2**63])
def test_a_priority_that_cannot_be_ordered_is_refused(
    inputs: InputProcessor, priority: Any
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        inputs.process(7, "a", SamplingParams(), LIMITS, priority)
    assert caught.value.param == "priority"
    assert inputs.process(7, "a", SamplingParams(), LIMITS, -3).request.priority == -3


@pytest.mark.parametrize(("max_logprobs", "most"), [(-1, VOCAB_SIZE), (10**6, VOCAB_SIZE), (0, 0)])
def test_no_more_logprobs_are_served_than_the_vocabulary_has(
    model: ModelConfig, max_logprobs: int, most: int
) -> None:
    inputs = InputProcessor(model, GenerationConfig(), None, max_logprobs=max_logprobs, seed=0)
    assert token_params(inputs, logprobs=most, prompt_logprobs=most).num_logprobs == most
    with pytest.raises(InvalidRequestError, match="logprobs"):
        processed(inputs, logprobs=most + 1)
    with pytest.raises(InvalidRequestError, match="prompt_logprobs"):
        processed(inputs, prompt_logprobs=most + 1)


def test_minus_one_logprobs_are_the_whole_vocabulary(model: ModelConfig) -> None:
    inputs = InputProcessor(model, GenerationConfig(), None, max_logprobs=-1, seed=0)
    params = token_params(inputs, logprobs=-1, prompt_logprobs=-1)
    assert (params.num_logprobs, params.num_prompt_logprobs) == (VOCAB_SIZE, VOCAB_SIZE)


def test_chosen_ids_may_be_more_than_max_logprobs(inputs: InputProcessor) -> None:
    ids = list(range(100))
    assert token_params(inputs, logprob_token_ids=ids).logprob_token_ids == ids
    assert token_params(inputs, logprob_token_ids=ids, logprobs=100).logprob_token_ids == ids


@pytest.mark.parametrize(
    ("asked", "given"), [(None, 17), (1, 1), (16, 16), (17, 17), (18, 17), (2**63 - 1, 17)]
)
def test_max_tokens_are_what_was_asked_or_what_is_left_of_the_context(
    inputs: InputProcessor, asked: int | None, given: int
) -> None:
    assert token_params(inputs, max_tokens=asked).max_tokens == given


@pytest.mark.parametrize(
    ("asked", "given"), [(0, 0.0), (9e-6, 0.0), (2e-5, 0.01), (0.01, 0.01), (1.5, 1.5)]
)
def test_temperatures_are_greedy_or_large_enough_to_divide_by(
    inputs: InputProcessor, asked: float, given: float
) -> None:
    assert token_params(inputs, temperature=asked).temperature == given


def test_numbers_of_numpy_become_plain_ones(inputs: InputProcessor) -> None:
    half = np.float64(0.5)
    params = token_params(
        inputs,
        temperature=half,
        top_p=half,
        min_p=half,
        presence_penalty=half,
        frequency_penalty=half,
        repetition_penalty=half,
        logit_bias={1: half},
    )
    values = [getattr(params, name) for name in ("temperature", "top_p", "min_p")]
    values += [params.presence_penalty, params.frequency_penalty, params.repetition_penalty]
    values += list((params.logit_bias or {}).values())
    assert {type(value) for value in values} == {float}
    assert set(values) == {0.5}


def test_minus_one_and_zero_both_switch_top_k_off(inputs: InputProcessor) -> None:
    assert [token_params(inputs, top_k=k).top_k for k in (-1, 0, 40)] == [0, 0, 40]


def test_repetition_detection_crosses_as_three_numbers(inputs: InputProcessor) -> None:
    wanted = RepetitionDetection(max_pattern_size=9, min_pattern_size=2, min_count=4)
    params = token_params(inputs, repetition_detection=wanted)
    assert params.repetition_detection == (2, 9, 4)
    assert token_params(inputs).repetition_detection is None


def test_bad_words_are_encoded_alone_and_after_a_space(
    inputs: InputProcessor, tokenizer: Tokenizer
) -> None:
    params = token_params(inputs, bad_words=["ab", " ab", "c"])
    texts = ["ab", " ab", "c", " c"]
    assert params.bad_words == [tokenizer.encode(text) for text in texts]
    assert token_params(inputs, bad_words=[]).bad_words is None


# ---- end tokens --------------------------------------------------------------------------------


def test_end_tokens_of_tokenizer_and_configurations_all_count(
    model: ModelConfig, tokenizer: Tokenizer
) -> None:
    generation = GenerationConfig(eos_token_ids=(300, EOS_TOKEN_ID, 301))
    inputs = InputProcessor(model, generation, tokenizer, max_logprobs=5, seed=0)
    params = token_params(inputs, stop_token_ids=[9])
    assert params.eos_token_id == EOS_TOKEN_ID
    assert params.stop_token_ids == [9, 300, 301]
    ignoring = token_params(inputs, stop_token_ids=[9], ignore_eos=True)
    assert (ignoring.eos_token_id, ignoring.stop_token_ids) == (None, [9])


def test_without_a_tokenizer_the_first_configured_end_token_is_the_one(model: ModelConfig) -> None:
    generation = GenerationConfig(eos_token_ids=(300, 301))
    inputs = InputProcessor(model, generation, None, max_logprobs=5, seed=0)
    params = token_params(inputs)
    assert params.eos_token_id == 300
    assert params.stop_token_ids == [301, *model.eos_token_ids]


# ---- seeds and the prefix cache ----------------------------------------------------------------


def test_seeds_are_the_requests_own_or_drawn_from_the_engines(model: ModelConfig) -> None:
    def seeds(engine_seed: int | None) -> list[int]:
        inputs = InputProcessor(model, GenerationConfig(), None, max_logprobs=5, seed=engine_seed)
        return [token_params(inputs, seed=seed).seed for seed in (None, 7, -1, None)]

    first, own, minus_one, last = seeds(3)
    assert own == 7
    assert len({first, minus_one, last}) == 3
    assert seeds(3) == [first, own, minus_one, last]
    assert seeds(4)[0] != first
    assert seeds(None)[0] != seeds(None)[0]
    assert all(-(2**63) <= seed < 2**63 for seed in [first, minus_one, last])


@pytest.mark.parametrize(
    ("params", "reads"),
    [
        ({}, True),
        ({"logprobs": 1}, True),
        ({"prompt_logprobs": 0}, False),
        ({"prompt_logprob_token_ids": [[1], [2]]}, False),
        ({"skip_reading_prefix_cache": True}, False),
        ({"skip_reading_prefix_cache": False, "prompt_logprobs": 0}, True),
    ],
)
def test_the_prefix_cache_is_read_unless_the_whole_prompt_must_be_computed(
    inputs: InputProcessor, params: dict[str, Any], reads: bool
) -> None:
    assert processed(inputs, **params).read_prefix_cache == reads


def test_a_salt_crosses_to_the_engine(inputs: InputProcessor) -> None:
    assert processed(inputs, {"prompt": "a", "cache_salt": "ü"}).cache_salt == "ü"
