"""Vocabularies: a grammar's text is the detokenizer's text, token by token."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from llguidance import LLMatcher, LLTokenizer
from tiny_tokenizers import byte_fallback, byte_level, save, word_piece

from rillm.constraints.vocabulary import read_vocabulary
from rillm.engine_args import EngineArgs
from rillm.errors import ConfigError
from rillm.text.tokenizer import Tokenizer

BUNDLED = EngineArgs().model_directory()


def allowed(vocabulary: LLTokenizer, grammar: str, *consumed: int) -> set[int]:
    matcher = LLMatcher(vocabulary, grammar, log_level=0)
    assert matcher.consume_tokens(list(consumed))
    bits = int.from_bytes(matcher.compute_bitmask(), "little")
    return {i for i in range(bits.bit_length()) if bits >> i & 1}


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_tokens_that_fit_are_those_whose_text_fits(make: object, tmp_path: Path) -> None:
    backend: tokenizers.Tokenizer = make()  # type: ignore[operator]
    path = save(backend, tmp_path / "t")
    tokenizer = Tokenizer.from_directory(path)
    vocabulary, _ = read_vocabulary(path, tokenizer.vocab_size + 5, [0])

    fitting = allowed(vocabulary, LLMatcher.grammar_from_regex("[a-z ]{1,40}"))

    for token_id in range(tokenizer.vocab_size + 5):
        piece = tokenizer.token_bytes(token_id)
        fits = (
            bool(piece)
            and token_id not in tokenizer.markers
            and all(chr(byte) in "abcdefghijklmnopqrstuvwxyz " for byte in piece)
        )
        assert (token_id in fitting) == fits, piece


def test_markers_fit_where_they_are_named_and_nowhere_else() -> None:
    vocabulary, ends = read_vocabulary(BUNDLED, 2048, [])
    tokenizer = Tokenizer.from_directory(BUNDLED)
    marker = tokenizer.added_tokens["<tool_call>"]

    anything = allowed(vocabulary, LLMatcher.grammar_from_lark("start: /(?s:.*)/"))

    assert anything & tokenizer.markers.keys() == ends
    for name in ("<tool_call>", f"<[{marker}]>"):
        assert allowed(vocabulary, LLMatcher.grammar_from_lark(f"start: {name}")) == {marker}
    assert marker not in allowed(vocabulary, LLMatcher.grammar_from_lark('start: "<tool_call>"'))


def test_text_of_a_marker_is_written_with_ordinary_tokens() -> None:
    vocabulary, _ = read_vocabulary(BUNDLED, 2048, [])
    tokenizer = Tokenizer.from_directory(BUNDLED)
    matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_regex("<think>x</think>"), log_level=0)
    written = []

    while not matcher.is_stopped():
        bits = int.from_bytes(matcher.compute_bitmask(), "little")
        written.append(bits.bit_length() - 1)
        matcher.consume_token(written[-1])

    assert not matcher.is_error()
    assert tokenizer.markers.keys().isdisjoint(written)
    assert tokenizer.decode(written) == "<think>x</think>"


def test_vocabularies_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="byte by byte"):
        read_vocabulary(save(word_piece(), tmp_path / "word"), 50, [0])
    with pytest.raises(ConfigError, match="ends its output"):
        read_vocabulary(save(byte_level(), tmp_path / "endless"), 300, [])
    with pytest.raises(ConfigError, match="missing"):
        read_vocabulary(tmp_path, 300, [0])
