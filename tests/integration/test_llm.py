"""LLM: batches in the caller's thread, and the bundled model's chat."""

from __future__ import annotations

import pytest
from tiny_models import make_checkpoint, make_tokenizer

from rillm import LLM, SamplingParams
from rillm.errors import ConfigError, EngineGenerateError, InvalidRequestError


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    path = make_tokenizer(make_checkpoint("llama", tmp_path_factory.mktemp("llama")))
    return LLM(str(path), dtype="float32", max_num_seqs=4)


@pytest.fixture(scope="module")
def bundled() -> LLM:
    return LLM()


def texts(llm: LLM, prompts: object, params: object) -> list[str]:
    outputs = llm.generate(prompts, params, use_tqdm=False)  # type: ignore[arg-type]
    return [output.outputs[0].text for output in outputs]


def test_outputs_come_in_the_order_of_the_prompts(llm: LLM) -> None:
    prompts = ["a", "bcd", "efghijk", "l", "mn", "opqrst"]
    params = [SamplingParams(seed=i, max_tokens=20 - 3 * i) for i in range(6)]

    together = texts(llm, prompts, params)

    assert together == [texts(llm, p, q)[0] for p, q in zip(prompts, params, strict=True)]


def test_all_forms_of_a_prompt_mean_the_same(llm: LLM) -> None:
    ids = llm.get_tokenizer().encode("abc")
    params = SamplingParams(temperature=0, max_tokens=8)

    forms = ["abc", ids, {"prompt": "abc"}, {"prompt_token_ids": ids}]

    assert len({texts(llm, [form], params)[0] for form in forms}) == 1
    assert texts(llm, ids, params) == texts(llm, "abc", params)


def test_stop_strings_and_choices_work_offline(llm: LLM) -> None:
    params = SamplingParams(n=3, seed=4, max_tokens=40, ignore_eos=True)
    (whole,) = llm.generate("abc", params, use_tqdm=False)
    stop = whole.outputs[2].text[10:13]

    params.stop = [stop]
    (stopped,) = llm.generate("abc", params, use_tqdm=False)

    assert [choice.text for choice in stopped.outputs] == [
        choice.text.split(stop)[0] for choice in whole.outputs
    ]
    assert stopped.outputs[2].stop_reason == stop


def test_progress_bar_counts_prompts(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.generate(["a", "b"], SamplingParams(max_tokens=2))

    assert "2/2" in capsys.readouterr().err


def test_one_bad_prompt_refuses_the_batch_and_leaves_nothing_behind(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError):
        llm.generate(["fine", ""], SamplingParams(max_tokens=4), use_tqdm=False)

    assert len(texts(llm, "fine", SamplingParams(max_tokens=4))) == 1


def test_number_of_params_must_fit_the_prompts(llm: LLM) -> None:
    with pytest.raises(InvalidRequestError, match="2 sampling_params for 1 prompts"):
        llm.generate("a", [SamplingParams(), SamplingParams()])


def test_request_that_excludes_every_token_fails_alone(llm: LLM) -> None:
    only = llm.get_tokenizer().encode("&")
    params = SamplingParams(allowed_token_ids=only, bad_words=["&"], max_tokens=3)
    with pytest.raises(EngineGenerateError, match="no token can be sampled"):
        llm.generate("a", params, use_tqdm=False)

    assert len(texts(llm, "a", SamplingParams(max_tokens=4))) == 1


def test_unknown_setting_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="no_such_setting"):
        LLM(no_such_setting=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "./no/such/directory"}, "no/such/directory"),
        ({"dtype": "int3"}, "dtype is 'int3'"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"max_model_len": 10**9}, "max_model_len"),
        ({"max_num_batched_tokens": 3, "max_num_seqs": 4}, "max_num_batched_tokens"),
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size"),
        ({"enable_chunked_prefill": False}, "enable_chunked_prefill"),
    ],
)
def test_bad_settings_are_config_errors(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LLM(**settings)  # type: ignore[arg-type]


def test_bundled_model_chats(bundled: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=60)
    questions = ["What is the capital of France?", "What is a rill?"]

    outputs = bundled.chat(
        [[{"role": "user", "content": question}] for question in questions], params, use_tqdm=False
    )

    answers = [output.outputs[0].text for output in outputs]
    assert "Paris" in answers[0]
    assert "stream" in answers[1]
    assert all(output.outputs[0].finish_reason == "stop" for output in outputs)


def test_bundled_model_calls_a_function(bundled: LLM) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    (output,) = bundled.chat(
        [{"role": "user", "content": "What is the weather in Rome?"}],
        SamplingParams(temperature=0, max_tokens=60),
        tools=[tool],
        use_tqdm=False,
    )

    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert call in output.outputs[0].text


def test_bundled_model_thinks_when_told_to(bundled: LLM) -> None:
    (output,) = bundled.chat(
        [{"role": "user", "content": "What is the capital of France?"}],
        SamplingParams(temperature=0, max_tokens=120),
        chat_template_kwargs={"enable_thinking": True},
        use_tqdm=False,
    )

    reasoning, answer = output.outputs[0].text.split("</think>")
    assert reasoning.startswith("<think>")
    assert "Paris" in answer
