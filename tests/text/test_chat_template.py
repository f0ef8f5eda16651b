import copy
from pathlib import Path
from typing import Any

import pytest
from chat_templates import TEMPLATES
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_level, save
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from rillm.errors import InvalidRequestError
from rillm.text.chat_template import ChatTemplate
from rillm.text.tokenizer import Tokenizer

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Wetter für <Ort> & Tag",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"id": "abc123def", "type": "function", "function": {"name": "get_weather"}}
PLAIN = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Wie heißt <b>das</b>?\n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nKöln 🎉 "},
    {"role": "user", "content": "And 'now'?"},
]
REASONED = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello", "reasoning": "a greeting", "tool_calls": None},
]
WITH_TOOLS = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {**CALL, "function": {"name": "get_weather", "arguments": {"city": "Zürich", "n": 1.5}}}
        ],
    },
    {"role": "tool", "tool_call_id": "abc123def", "content": '{"t": 20}'},
    {"role": "user", "content": "Thanks"},
]
CONVERSATIONS = [(PLAIN, None), (REASONED, None), (WITH_TOOLS, [TOOL, TOOL])]


def reference(template: str, messages: list[dict[str, Any]], **options: Any) -> str:
    """Render with transformers, which drops null keys before it renders."""
    messages = [{k: v for k, v in message.items() if v is not None} for message in messages]
    rendered, _ = render_jinja_template([messages], chat_template=template, **options)
    return str(rendered[0])


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(("messages", "tools"), CONVERSATIONS)
@pytest.mark.parametrize("prompted", [True, False])
def test_realistic_templates_render_as_in_transformers(
    name: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, prompted: bool
) -> None:
    variables = SPECIAL | {"enable_thinking": False, "date_string": "1 Jan 2026"}
    template = TEMPLATES[name]
    expected = reference(
        template, messages, tools=tools, add_generation_prompt=prompted, **variables
    )
    rendered = ChatTemplate(template).render(
        messages, tools=tools, add_generation_prompt=prompted, variables=variables
    )
    assert rendered == expected


@pytest.mark.parametrize("name", TEMPLATES)
@given(
    turns=st.lists(
        st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=20)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=30)
def test_any_plain_conversation_renders_as_in_transformers(
    name: str, turns: list[tuple[str, str]]
) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    rendered = ChatTemplate(TEMPLATES[name]).render(messages, variables=SPECIAL)
    assert rendered == reference(TEMPLATES[name], messages, add_generation_prompt=True, **SPECIAL)


@pytest.mark.parametrize("name", ["chatml", "qwen3", "llama3", "parts"])
@pytest.mark.parametrize("ending", ["Once upon", "Once upon ", "<think>\nso\n</think>\n\nOnce  "])
def test_a_final_message_is_continued_as_in_transformers(name: str, ending: str) -> None:
    messages = [{"role": "user", "content": "Story"}, {"role": "assistant", "content": ending}]
    rendered = ChatTemplate(TEMPLATES[name]).render(
        messages, add_generation_prompt=False, continue_final_message=True, variables=SPECIAL
    )
    assert rendered == reference(TEMPLATES[name], messages, continue_final_message=True, **SPECIAL)


def test_the_text_of_a_part_is_continued_too() -> None:
    parts = [{"type": "text", "text": "Once"}, {"type": "text", "text": " upon"}]
    messages = [{"role": "assistant", "content": parts}]
    rendered = ChatTemplate(TEMPLATES["parts"]).render(
        messages, add_generation_prompt=False, continue_final_message=True, variables=SPECIAL
    )
    assert rendered.endswith("Onceupon")


def test_continuing_and_prompting_exclude_each_other() -> None:
    with pytest.raises(InvalidRequestError, match="excludes") as caught:
        ChatTemplate(TEMPLATES["chatml"]).render(PLAIN, continue_final_message=True)
    assert caught.value.param == "continue_final_message"


def test_continuing_a_message_the_template_drops_is_refused() -> None:
    template = ChatTemplate("{{ messages[0].content }}")
    with pytest.raises(InvalidRequestError, match="does not write out the final message"):
        template.render(PLAIN, add_generation_prompt=False, continue_final_message=True)


def test_arguments_as_json_text_render_like_arguments_as_an_object() -> None:
    as_text = copy.deepcopy(WITH_TOOLS)
    as_text[1]["tool_calls"][0]["function"]["arguments"] = '{"city": "Zürich", "n": 1.5}'
    before = copy.deepcopy(as_text)
    for name in ("qwen3", "llama3", "mistral"):
        template = ChatTemplate(TEMPLATES[name])
        assert template.render(as_text, tools=[TOOL], variables=SPECIAL) == template.render(
            WITH_TOOLS, tools=[TOOL], variables=SPECIAL
        )
    assert as_text == before


@pytest.mark.parametrize(
    ("arguments", "expected"), [("", "{}"), ('{"a": ', '"{\\"a\\": "'), ("[1]", '"[1]"')]
)
def test_arguments_that_are_no_json_object_stay_text(arguments: str, expected: str) -> None:
    template = ChatTemplate("{{ messages[0].tool_calls[0].function.arguments | tojson }}")
    call = {"function": {"name": "f", "arguments": arguments}}
    assert template.render([{"role": "assistant", "tool_calls": [call]}]) == expected


def test_text_parts_are_joined_for_templates_that_expect_a_string() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    template = ChatTemplate(TEMPLATES["chatml"])
    as_parts = template.render([{"role": "user", "content": parts}])
    assert as_parts == template.render([{"role": "user", "content": "one\ntwo"}])


def test_text_parts_stay_parts_for_templates_that_loop_over_them() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": " one "}, "two"]}]
    rendered = ChatTemplate(TEMPLATES["parts"]).render(messages, variables=SPECIAL)
    assert "user\nonetwo<end_of_turn>" in rendered


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": [{"text": "hi"}]}], "messages[0].content[0]"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages[0].content[0].type",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user"}, {"role": "assistant", "tool_calls": {}}], "messages[1].tool_calls"),
        ([{"role": "assistant", "tool_calls": [1]}], "messages[0].tool_calls[0]"),
        (
            [{"role": "assistant", "tool_calls": [{"function": 1}]}],
            "messages[0].tool_calls[0].function",
        ),
        ([{"role": "user", "content": "x", "extra": object()}], "messages[0]"),
    ],
)
def test_a_malformed_message_is_refused_by_its_path(messages: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ChatTemplate(TEMPLATES["chatml"]).render(messages)
    assert caught.value.param == param


def test_what_a_template_raises_is_the_message_of_the_error() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ChatTemplate(TEMPLATES["mistral"]).render(
            [{"role": "judge", "content": "x"}], variables=SPECIAL
        )
    assert str(caught.value) == "Only user and assistant roles are supported!"
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(999999999) %}x{% endfor %}",
        "{% for i in range(900) %}{% for j in range(9000) %}{% endfor %}{% endfor %}",
        "{% for i in range(2000) %}{{ 'x' * 100000 }}{% endfor %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ messages[0].content / 0 }}",
        "{{ 1 / 0 }}",
        "{{ missing.field }}",
        "{{ missing | tojson }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages[9].content.x }}",
    ],
)
def test_a_template_that_runs_away_or_fails_is_an_error_of_the_request(source: str) -> None:
    with pytest.raises(InvalidRequestError, match="the chat template cannot render") as caught:
        ChatTemplate(source).render([{"role": "user", "content": "x"}])
    assert caught.value.param == "messages"


def test_a_name_with_a_field_of_its_own_cannot_come_as_a_variable() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        ChatTemplate("{{ tools }}").render(PLAIN, variables={"tools": []})
    assert caught.value.param == "chat_template_kwargs"


def test_the_date_is_that_of_transformers() -> None:
    source = "{{ strftime_now('%d %B %Y') }}"
    assert ChatTemplate(source).render(PLAIN) == reference(source, PLAIN)


def test_a_tokenizer_renders_and_encodes_what_transformers_does(tmp_path: Path) -> None:
    folder = save(
        byte_level(),
        tmp_path,
        chat_template=TEMPLATES["qwen3"],
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
    )
    peer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer = Tokenizer.from_directory(folder)
    for messages, tools in CONVERSATIONS:
        options = {"tools": tools, "add_generation_prompt": True, "enable_thinking": False}
        assert tokenizer.apply_chat_template(messages, **options) == peer.apply_chat_template(
            messages, tokenize=False, **options
        )
        assert tokenizer.encode_chat(messages, **options) == peer.apply_chat_template(
            messages, return_dict=False, **options
        )
