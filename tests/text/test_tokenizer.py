import json
from pathlib import Path

import pytest
from chat_templates import TEMPLATES
from hypothesis import given
from hypothesis import strategies as st
from tiny_tokenizers import (
    CORPUS,
    byte_fallback,
    byte_level,
    byte_level_with_bos,
    save,
    unigram,
    word_piece,
)
from transformers import PreTrainedTokenizerFast

from rillm.errors import ConfigError, InvalidRequestError
from rillm.text.tokenizer import Tokenizer

FAMILIES = {
    "byte-level": byte_level,
    "byte-level with bos": byte_level_with_bos,
    "byte-fallback": byte_fallback,
    "unigram": unigram,
    "word-piece": word_piece,
}
USER = {"role": "user"}
SPECIALS = ["<|im_end|>", "<|im_start|>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def pairs(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[PreTrainedTokenizerFast, Tokenizer]]:
    built = {}
    for name, build in FAMILIES.items():
        folder = save(build(), tmp_path_factory.mktemp("tokenizer"))
        peer = PreTrainedTokenizerFast.from_pretrained(folder)
        built[name] = (peer, Tokenizer.from_directory(folder))
    return built


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("chat")
    return Tokenizer.from_directory(save(byte_level(), folder, chat_template=TEMPLATES["chatml"]))


@pytest.mark.parametrize("family", FAMILIES)
@given(
    text=st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from([*SPECIALS, "<think>", "</s>", *CORPUS[0].split(" ")]), max_size=8
        ).map(" ".join),
    ),
    special=st.booleans(),
)
def test_encode_gives_the_ids_of_transformers(
    pairs: dict[str, tuple[PreTrainedTokenizerFast, Tokenizer]],
    family: str,
    text: str,
    special: bool,
) -> None:
    peer, tokenizer = pairs[family]
    expected = peer.encode(text, add_special_tokens=special)
    assert tokenizer.encode(text, add_special_tokens=special) == expected
    assert tokenizer.encode_batch([text, text], add_special_tokens=special) == [expected] * 2


def test_vocabulary_facts_are_those_of_transformers(
    pairs: dict[str, tuple[PreTrainedTokenizerFast, Tokenizer]],
) -> None:
    for peer, tokenizer in pairs.values():
        assert tokenizer.vocab_size == len(peer)
        names = [tokenizer.token_text(i) for i in range(len(peer))]
        assert names == peer.convert_ids_to_tokens(range(len(peer)))
        assert [tokenizer.token_id(name) for name in names] == list(range(len(peer)))
        assert tokenizer.token_text(len(peer)) == tokenizer.token_text(-1) == ""
        assert tokenizer.token_id("no such token") is None


@pytest.mark.parametrize(
    "config",
    [
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True}},
        {"bos_token": "<new bos>", "eos_token": "</think>"},
        {"additional_special_tokens": ["<extra>", "</think>"], "image_token": "<image>"},
        {"extra_special_tokens": {"audio_token": "<audio>"}, "image_token": "<think>"},
        {
            "added_tokens_decoder": {
                "700": {"content": "<b>", "special": False},
                "699": {"content": "<a>", "special": True},
            }
        },
        {"add_bos_token": True, "bos_token": "<|endoftext|>"},
    ],
)
def test_tokens_of_tokenizer_config_act_as_in_transformers(
    tmp_path: Path, config: dict[str, object]
) -> None:
    folder = save(byte_level(), tmp_path, **config)
    peer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer = Tokenizer.from_directory(folder)
    for name in ("bos_token", "eos_token", "pad_token", "bos_token_id", "eos_token_id"):
        assert getattr(tokenizer, name) == getattr(peer, name)
    special = {i for i, token in peer.added_tokens_decoder.items() if token.special}
    assert tokenizer.special_token_ids == special
    text = "a <b>x<a> </think> <extra><image><audio><new bos><|im_end|>"
    ids = peer.encode(text)
    assert tokenizer.encode(text) == ids
    assert tokenizer.decode(ids) == peer.decode(ids, skip_special_tokens=True)


def test_special_tokens_map_serves_where_tokenizer_config_declares_no_tokens(
    tmp_path: Path,
) -> None:
    folder = save(byte_level(), tmp_path)
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    peer = PreTrainedTokenizerFast.from_pretrained(folder)
    assert Tokenizer.from_directory(folder).eos_token_id == peer.eos_token_id
    assert peer.eos_token == "<|im_end|>"


def test_truncation_and_padding_of_the_file_do_not_apply(tmp_path: Path) -> None:
    backend = byte_level()
    backend.enable_truncation(max_length=4)
    backend.enable_padding(length=8)
    tokenizer = Tokenizer.from_directory(save(backend, tmp_path))
    assert tokenizer.decode(tokenizer.encode("hello " * 50)) == "hello " * 50
    assert len(tokenizer.encode("h")) == 1


def write_templates(folder: Path, files: dict[str, str]) -> Path:
    (folder / "additional_chat_templates").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("tools", [None, [{"type": "function"}]])
@pytest.mark.parametrize(
    ("config", "files"),
    [
        ({"chat_template": "config"}, {}),
        ({"chat_template": "config"}, {"chat_template.jinja": "file"}),
        (
            {
                "chat_template": [
                    {"name": "default", "template": "d"},
                    {"name": "tool_use", "template": "t"},
                ]
            },
            {},
        ),
        (
            {"chat_template": "config"},
            {"chat_template.jinja": "file", "additional_chat_templates/tool_use.jinja": "tools"},
        ),
    ],
)
def test_the_template_is_found_where_transformers_finds_it(
    tmp_path: Path,
    config: dict[str, object],
    files: dict[str, str],
    tools: list[dict[str, object]] | None,
) -> None:
    folder = write_templates(save(byte_level(), tmp_path, **config), files)
    peer = PreTrainedTokenizerFast.from_pretrained(folder)
    expected = peer.apply_chat_template([USER], tools=tools, tokenize=False)
    assert Tokenizer.from_directory(folder).apply_chat_template([USER], tools=tools) == expected


def test_the_older_template_file_serves_when_there_is_no_other(tmp_path: Path) -> None:
    files = {"chat_template.json": json.dumps({"chat_template": "older"})}
    folder = write_templates(save(byte_level(), tmp_path), files)
    assert Tokenizer.from_directory(folder).apply_chat_template([USER]) == "older"


def test_a_request_may_name_a_template_or_bring_one(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "d"}, {"name": "rag", "template": "r"}]
    tokenizer = Tokenizer.from_directory(save(byte_level(), tmp_path, chat_template=named))
    assert tokenizer.apply_chat_template([USER], chat_template="rag") == "r"
    assert tokenizer.apply_chat_template([USER], chat_template="{{ 1 + 1 }}") == "2"


def test_a_model_without_a_template_says_so(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(save(byte_level(), tmp_path))
    with pytest.raises(InvalidRequestError, match="no chat template") as caught:
        tokenizer.encode_chat([USER])
    assert caught.value.param == "chat_template"


@pytest.mark.parametrize("source", ["{% if %}", "{{ x | no_filter }}", "{% break %}"])
def test_a_request_template_that_does_not_compile_is_refused(chat: Tokenizer, source: str) -> None:
    with pytest.raises(InvalidRequestError, match="does not compile") as caught:
        chat.apply_chat_template([USER], chat_template=source)
    assert caught.value.param == "chat_template"


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"tokenizer.json": None}, "tokenizer.json is missing"),
        ({"tokenizer.json": "{}"}, "tokenizer.json is not a tokenizer"),
        ({"tokenizer_config.json": "{"}, "tokenizer_config.json cannot be read"),
        ({"tokenizer_config.json": "[]"}, "tokenizer_config.json cannot be read"),
        ({"tokenizer_config.json": '{"chat_template": 3}'}, "chat_template"),
        ({"tokenizer_config.json": '{"chat_template": [{"name": "a"}]}'}, "chat_template"),
        (
            {"tokenizer_config.json": '{"added_tokens_decoder": {"x": {"content": "a"}}}'},
            "added_tokens_decoder",
        ),
        ({"special_tokens_map.json": "?"}, "special_tokens_map.json cannot be read"),
        ({"chat_template.jinja": "{% if %}"}, "'default' does not compile"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, files: dict[str, str | None], named: str) -> None:
    folder = save(byte_level(), tmp_path)
    for name, text in files.items():
        (folder / name).unlink(missing_ok=True)
        if text is not None:
            (folder / name).write_text(text)
    with pytest.raises(ConfigError, match=named):
        Tokenizer.from_directory(folder)


def test_text_that_is_not_unicode_is_refused(chat: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError, match="surrogates"):
        chat.encode("\ud800")
    with pytest.raises(InvalidRequestError, match="surrogates"):
        chat.encode_chat([{"role": "user", "content": "\ud800"}])


@given(text=st.lists(st.sampled_from([*SPECIALS, "<|im_", "end|>", "a ", "\n", "<"])).map("".join))
def test_special_tokens_in_a_message_become_text_when_escaped(chat: Tokenizer, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    ids = chat.encode_chat(messages, escape_special_tokens=True)
    template_only = chat.encode_chat([{"role": "user", "content": "a"}])
    assert [i for i in ids if i in chat.special_token_ids] == [
        i for i in template_only if i in chat.special_token_ids
    ]
    rendered = chat.apply_chat_template(messages)
    assert chat.decode(ids, skip_special_tokens=False) == rendered


@given(text=st.text(max_size=30))
def test_escaping_changes_nothing_where_no_special_token_is_written(
    chat: Tokenizer, text: str
) -> None:
    messages = [{"role": "user", "content": text}]
    assert chat.encode_chat(messages, escape_special_tokens=True) == chat.encode_chat(messages)


def test_escaping_keeps_the_spaces_of_sentencepiece_tokenizers(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(save(byte_fallback(), tmp_path))
    source = "{{ messages[0].content }}</s>"
    text = "a</s>b </s> c"
    ids = tokenizer.encode_chat(
        [{"role": "user", "content": text}], chat_template=source, escape_special_tokens=True
    )
    assert tokenizer.decode(ids) == text
    assert [i for i in ids if i in tokenizer.special_token_ids] == [tokenizer.token_id("</s>")]


def test_marks_forged_around_a_token_of_the_template_do_not_disarm_it(chat: Tokenizer) -> None:
    messages = [
        {"role": "user", "content": "a\U000ff002"},
        {"role": "user", "content": "\U000ff003b"},
    ]
    ids = chat.encode_chat(
        messages,
        chat_template="{{ messages[0].content }}<|im_end|>{{ messages[1].content }}",
        escape_special_tokens=True,
    )
    assert chat.decode(ids, skip_special_tokens=False) == "a<|im_end|>b"
    assert chat.token_id("<|im_end|>") in ids


def test_special_tokens_in_tools_and_variables_are_escaped_too(chat: Tokenizer) -> None:
    tools = [{"type": "function", "function": {"<|im_end|>": ["<|im_start|>"]}}]
    ids = chat.encode_chat(
        [USER],
        tools=tools,
        topic="<|endoftext|>",
        chat_template="{{ tools | tojson }}{{ topic }}<|im_end|>",
        escape_special_tokens=True,
    )
    assert [i for i in ids if i in chat.special_token_ids] == [chat.token_id("<|im_end|>")]


def test_a_special_token_that_has_no_other_spelling_is_refused(tmp_path: Path) -> None:
    backend = byte_level()
    backend.add_special_tokens(["§"])
    tokenizer = Tokenizer.from_directory(save(backend, tmp_path, chat_template=TEMPLATES["chatml"]))
    with pytest.raises(InvalidRequestError, match="cannot be encoded as text") as caught:
        tokenizer.encode_chat([{"role": "user", "content": "§"}], escape_special_tokens=True)
    assert caught.value.param == "messages"
