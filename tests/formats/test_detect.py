"""Which format a model's own files speak for."""

from __future__ import annotations

import pytest

from rillm.model_formats.detect import ModelTraits, architectures_of, detect

THINK = "{{ '<think>' }} {% if '</think>' in content %}"


@pytest.mark.parametrize(
    ("traits", "tool", "reasoning"),
    [
        (ModelTraits(), None, None),
        (ModelTraits(template="{{ messages }}"), None, None),
        (ModelTraits(template="<tool_call> {name, arguments}"), "hermes", None),
        (ModelTraits(template="<tool_call>" + THINK, name="Qwen3-0.6B"), "hermes", "qwen3"),
        (ModelTraits(template="<tool_call><function=a><parameter=b>"), "qwen3_coder", None),
        (
            ModelTraits(
                template="<tool_call>{name}<arg_key>a</arg_key><arg_value>" + THINK,
                architectures=("Glm4MoeForCausalLM", "glm4_moe"),
                name="GLM-4.6",
            ),
            "glm45",
            "glm45",
        ),
        (
            ModelTraits(
                template="<|channel|>analysis<|message|>",
                tokens=frozenset({"<|channel|>", "<|constrain|>", "<|message|>"}),
                architectures=("GptOssForCausalLM", "gpt_oss"),
            ),
            "openai",
            "openai_gptoss",
        ),
        (ModelTraits(template="[TOOL_CALLS]", tokens=frozenset({"[TOOL_CALLS]"})), "mistral", None),
        (
            ModelTraits(template="<|tool_calls_section_begin|>", name="Kimi-K2"),
            "kimi_k2",
            "kimi_k2",
        ),
        (ModelTraits(declares_format=True, template="<tool_call>"), "hf", "hf"),
    ],
)
def test_detected(traits: ModelTraits, tool: str | None, reasoning: str | None) -> None:
    found = detect(traits)

    assert (found.tool and found.tool.format.names[0]) == tool
    if reasoning is not None:
        assert found.reasoning is not None
        assert reasoning in found.reasoning.format.reasoning_names


def test_a_match_says_why() -> None:
    match = detect(ModelTraits(template="<tool_call>", name="some/Qwen2.5-7B")).tool

    assert match is not None
    assert match.reasons == ("chat template: '<tool_call>'", "name: 'qwen2.5'")


def test_the_template_counts_more_than_the_name() -> None:
    match = detect(ModelTraits(template="<tool_call><function=", name="llama-3.1-clone")).tool

    assert match is not None
    assert match.format.names[0] == "qwen3_coder"


def test_architectures_of_a_config() -> None:
    config = {"architectures": ["A"], "model_type": "b"}

    assert architectures_of(config) == ("A", "b")
    assert architectures_of({"architectures": None}) == ()
