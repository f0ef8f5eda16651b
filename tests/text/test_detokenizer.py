from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import (
    CORPUS,
    byte_fallback,
    byte_fallback_and_metaspace,
    byte_level,
    save,
    unigram,
    word_piece,
)
from tokenizers import Tokenizer as Backend

from rillm.text.candidates import decode_candidate
from rillm.text.tokenizer import Tokenizer

FAMILIES = {
    "byte-level": byte_level,
    "byte-fallback": byte_fallback,
    "byte-fallback, first space kept": lambda: byte_fallback(strips_first_space=False),
    "bytes and metaspace": byte_fallback_and_metaspace,
    "unigram": unigram,
    "word-piece": word_piece,
}
BYTE_FAMILIES = [name for name in FAMILIES if name.startswith("byte-")]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Backend, Tokenizer]]:
    built = {}
    for name, build in FAMILIES.items():
        backend = build()
        folder = save(backend, tmp_path_factory.mktemp("tokenizer"))
        built[name] = (backend, Tokenizer.from_directory(folder))
    return built


texts = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(" ".join(CORPUS).split(" ")), max_size=12).map(" ".join),
)
id_lists = st.lists(st.integers(0, 700), max_size=30)
cut_lists = st.lists(st.integers(0, 60), max_size=12)


def stream(tokenizer: Tokenizer, ids: list[int], cuts: list[int], skip: bool = True) -> list[str]:
    detokenizer = tokenizer.detokenizer(skip_special_tokens=skip)
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    pieces = [detokenizer.push(ids[start:end]) for start, end in pairwise(edges)]
    return [*pieces, detokenizer.finish()]


@pytest.mark.parametrize("family", FAMILIES)
@given(text=texts, cuts=cut_lists, skip=st.booleans())
def test_any_cut_of_encoded_text_streams_the_text_that_tokenizers_decodes(
    families: dict[str, tuple[Backend, Tokenizer]],
    family: str,
    text: str,
    cuts: list[int],
    skip: bool,
) -> None:
    backend, tokenizer = families[family]
    ids = backend.encode(text).ids
    expected = backend.decode(ids, skip_special_tokens=skip)
    assert "".join(stream(tokenizer, ids, cuts, skip)) == expected
    assert tokenizer.decode(ids, skip_special_tokens=skip) == expected


@pytest.mark.parametrize("family", ["byte-level", "unigram", "word-piece"])
@given(ids=id_lists, cuts=cut_lists, skip=st.booleans())
@settings(max_examples=200)
def test_any_ids_even_invalid_utf8_and_unknown_ones_stream_what_tokenizers_decodes(
    families: dict[str, tuple[Backend, Tokenizer]],
    family: str,
    ids: list[int],
    cuts: list[int],
    skip: bool,
) -> None:
    backend, tokenizer = families[family]
    expected = backend.decode(ids, skip_special_tokens=skip)
    assert "".join(stream(tokenizer, ids, cuts, skip)) == expected


@pytest.mark.parametrize("family", [name for name in BYTE_FAMILIES if "fallback" in name])
@given(ids=id_lists, cuts=cut_lists)
@settings(max_examples=200)
def test_byte_tokens_that_are_no_utf8_become_what_python_makes_of_the_whole(
    families: dict[str, tuple[Backend, Tokenizer]], family: str, ids: list[int], cuts: list[int]
) -> None:
    backend, tokenizer = families[family]
    data = b""
    for token_id in ids:
        token = backend.id_to_token(token_id) or ""
        is_byte = token.startswith("<0x")
        data += bytes([int(token[3:5], 16)]) if is_byte else token.replace("▁", " ").encode()
    text = data.decode("utf-8", "replace")
    expected = text if "kept" in family else text.removeprefix(" ")
    assert "".join(stream(tokenizer, ids, cuts, skip=False)) == expected


@pytest.mark.parametrize("family", BYTE_FAMILIES)
@given(text=texts)
def test_only_an_incomplete_character_is_held_back(
    families: dict[str, tuple[Backend, Tokenizer]], family: str, text: str
) -> None:
    backend, tokenizer = families[family]
    ids = backend.encode(text).ids
    detokenizer = tokenizer.detokenizer()
    received = ""
    for count, token_id in enumerate(ids, start=1):
        received += detokenizer.push([token_id])
        so_far = b"".join(tokenizer.token_bytes(i) for i in ids[:count])
        if family == "byte-fallback":
            so_far = so_far.removeprefix(b" ")
        assert received.encode() == so_far.decode("utf-8", "ignore").encode()
        assert "\ufffd" not in received or "\ufffd" in text


@pytest.mark.parametrize("family", [*BYTE_FAMILIES, "unigram", "word-piece"])
@given(text=texts, cut=st.integers(0, 40))
def test_a_continuation_is_the_rest_of_the_whole_text(
    families: dict[str, tuple[Backend, Tokenizer]], family: str, text: str, cut: int
) -> None:
    backend, tokenizer = families[family]
    ids = backend.encode(text).ids
    prompt, output = ids[:cut], ids[cut:]
    first = tokenizer.detokenizer()
    start = first.push(prompt)
    second = tokenizer.detokenizer(prompt_token_ids=prompt)
    assert start + second.push(output) + second.finish() == tokenizer.decode(ids)


def test_a_prompt_of_special_tokens_only_does_not_keep_the_first_space(
    families: dict[str, tuple[Backend, Tokenizer]],
) -> None:
    backend, tokenizer = families["byte-fallback"]
    start, word = backend.token_to_id("<s>"), backend.token_to_id("▁hello")
    after_start = tokenizer.detokenizer(prompt_token_ids=[start])
    after_word = tokenizer.detokenizer(prompt_token_ids=[start, word])
    assert after_start.push([word]) == "hello"
    assert after_word.push([word]) == " hello"


def test_ids_that_no_vocabulary_has_add_no_text(
    families: dict[str, tuple[Backend, Tokenizer]],
) -> None:
    for backend, tokenizer in families.values():
        ids = backend.encode("hello world").ids
        strange = [-1, 10_000, ids[0], 2**40, *ids[1:], -(2**40)]
        assert "".join(stream(tokenizer, strange, [1, 3])) == backend.decode(ids)


def test_an_incomplete_character_at_the_end_becomes_one_replacement_character(
    families: dict[str, tuple[Backend, Tokenizer]],
) -> None:
    backend, tokenizer = families["byte-fallback"]
    ids = [backend.token_to_id(f"<0x{byte:02X}>") for byte in "語".encode()]
    assert stream(tokenizer, ids[:2], [1]) == ["", "", "\ufffd"]
    assert stream(tokenizer, ids, [1, 2]) == ["", "", "語", ""]


def test_a_decoder_without_a_table_gives_up_what_it_holds_at_the_end_as_well(
    families: dict[str, tuple[Backend, Tokenizer]],
) -> None:
    backend, tokenizer = families["bytes and metaspace"]
    ids = [backend.token_to_id(f"<0x{byte:02X}>") for byte in "語".encode()]
    assert stream(tokenizer, ids[:2], [1]) == ["", "", backend.decode(ids[:2])]
    assert stream(tokenizer, ids, [1, 2]) == ["", "", "語", ""]


def test_an_added_token_outside_the_byte_alphabet_is_its_own_text(
    families: dict[str, tuple[Backend, Tokenizer]],
) -> None:
    backend, tokenizer = families["byte-level"]
    ids = backend.encode("a<｜工具 call｜>é").ids
    assert backend.token_to_id("<｜工具 call｜>") in ids
    assert tokenizer.decode(ids) == backend.decode(ids) == "a<｜工具 call｜>é"


def test_a_stream_goes_on_after_invalid_bytes(
    families: dict[str, tuple[Backend, Tokenizer]],
) -> None:
    backend, tokenizer = families["byte-level"]
    lead = backend.token_to_id("ð")
    ids = [lead, lead, *backend.encode("ok 語").ids]
    assert "".join(stream(tokenizer, ids, [1, 2, 3])) == "\ufffd\ufffdok 語"


def test_a_candidate_that_completes_a_character_has_its_text_and_others_have_none(
    families: dict[str, tuple[Backend, Tokenizer]],
) -> None:
    backend, tokenizer = families["byte-fallback"]
    hello, *byte_ids = (
        backend.token_to_id(token) for token in ("▁hello", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>")
    )
    previous = [hello]
    decoded = []
    for token_id in byte_ids:
        decoded.append(decode_candidate(tokenizer, previous, token_id))
        previous.append(token_id)
    assert decoded == ["", "", "", "😀"]
    assert decode_candidate(tokenizer, [], byte_ids[-1]) == "\ufffd"
    assert decode_candidate(tokenizer, previous, hello) == " hello"
    assert decode_candidate(tokenizer, [], backend.token_to_id("</s>")) == "</s>"
    assert decode_candidate(tokenizer, [], 99_999) == ""


@given(text=texts)
def test_token_bytes_of_a_byte_level_text_add_up_to_its_utf8(
    families: dict[str, tuple[Backend, Tokenizer]], text: str
) -> None:
    _, tokenizer = families["byte-level"]
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(text))) == text.encode()


@pytest.mark.parametrize("family", FAMILIES)
@given(ids=id_lists, marked=st.sets(st.integers(0, 700), max_size=4), cuts=cut_lists)
def test_tokens_with_stand_ins_part_the_text_wherever_it_is_cut(
    families: dict[str, tuple[Backend, Tokenizer]],
    family: str,
    ids: list[int],
    marked: set[int],
    cuts: list[int],
) -> None:
    _, tokenizer = families[family]
    stand_ins = dict.fromkeys(marked, "\udc00")
    parts: list[list[int]] = [[]]
    for token_id in ids:
        if token_id in marked:
            parts.append([])
        else:
            parts[-1].append(token_id)

    def streamed(edges: list[int]) -> str:
        detokenizer = tokenizer.detokenizer(stand_ins=stand_ins)
        pieces = [detokenizer.push(ids[start:end]) for start, end in pairwise(edges)]
        return "".join([*pieces, detokenizer.finish()])

    whole = streamed([0, len(ids)])
    assert whole == streamed([0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)])
    assert whole.count("\udc00") == len(parts) - 1
    if family == "byte-level":
        assert whole.split("\udc00") == [tokenizer.decode(part) for part in parts]


def test_a_stand_in_is_shown_for_a_special_token_that_is_skipped(
    families: dict[str, tuple[Backend, Tokenizer]],
) -> None:
    backend, tokenizer = families["byte-fallback"]
    special = backend.token_to_id("<s>")
    word = backend.token_to_id("▁hello")
    detokenizer = tokenizer.detokenizer(stand_ins={special: "\udc01"}, prompt_token_ids=[word])

    assert detokenizer.push([word, special, word]) == " hello\udc01 hello"
