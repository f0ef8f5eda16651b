"""A vocabulary as llguidance sees it: the bytes of every token, and which tokens are markers.

A marker is a token that stands for itself and not for its text: `<|im_end|>`, `<tool_call>`. It
fits a grammar only where the grammar names it, as `<tool_call>` or `<[17]>`, so a JSON string that
holds these characters is written with ordinary tokens and read back as what it is.

Source: the protocol of `llguidance.TokenizerWrapper`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import tokenizers
from llguidance import LLParserLimits, LLTokenizer
from tokenizers import AddedToken

from rillm.constraints.limits import MAX_LEXER_STATES
from rillm.errors import ConfigError
from rillm.text.pieces import ByteRule, find_byte_rule
from rillm.text.tokenizer_files import markers_of, read_tokenizer_files

LIMITS: Final = LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
"""Most work and memory of one grammar: about 100 MB of states, 15 ms for a token."""
_NUM_BYTES: Final = 256


class _Tokens:
    """What llguidance asks of a tokenizer."""

    is_tokenizer_wrapper: Final = True
    bos_token_id: Final = None

    def __init__(
        self,
        tokens: Sequence[bytes],
        markers: Sequence[int],
        eos_token_id: int,
        encode: Callable[[str], list[int]],
    ) -> None:
        self.tokens = tokens
        self.special_token_ids = markers
        self.eos_token_id = eos_token_id
        self._encode = encode

    def __call__(self, text: str) -> list[int]:
        """Encode text that a grammar forces, without markers."""
        return self._encode(text)


def read_vocabulary(
    directory: Path, vocab_size: int, eos_token_ids: Sequence[int]
) -> tuple[LLTokenizer, frozenset[int]]:
    """Read the vocabulary of a checkpoint. Takes 0.6 s for 150,000 tokens.

    Args:
        directory: with tokenizer.json.
        vocab_size: the model's; tokens that the tokenizer does not have fit no grammar.
        eos_token_ids: more tokens that end an output, besides the tokenizer's own.

    Returns:
        The vocabulary, and all tokens that end an output.

    Raises:
        ConfigError: there is no tokenizer, or a token's bytes depend on its neighbours, or nothing
            ends an output.
    """
    files = read_tokenizer_files(directory)
    backend = files.backend
    decoder = backend.decoder
    rule = find_byte_rule(None if decoder is None else msgspec.json.decode(decoder.__getstate__()))
    if rule is None:
        raise ConfigError("this model's tokenizer cannot be used with grammars: not byte by byte")
    own = backend.token_to_id(files.named_tokens.get("eos_token", ""))
    ends = [i for i in dict.fromkeys([own, *eos_token_ids]) if i is not None and i < vocab_size]
    if not ends:
        raise ConfigError("this model cannot be used with grammars: no token ends its output")
    markers = markers_of(backend)
    tokens = [_bytes_of(backend, rule, i) for i in range(vocab_size)]
    inside = [i for i in markers if i < vocab_size]
    return vocabulary_of(tokens, inside, ends, _plain(backend)), frozenset(ends)


def checking_vocabulary(markers: Mapping[int, str], vocab_size: int) -> LLTokenizer:
    """A vocabulary to try grammars on: the markers of a real one, and the 256 bytes.

    Args:
        markers: ids and texts.
        vocab_size: the model's; ids from there on are the bytes and the end of an output.
    """
    tokens = [b""] * vocab_size + [bytes([i]) for i in range(_NUM_BYTES)] + [b"<|end|>"]
    for token_id, text in markers.items():
        tokens[token_id] = text.encode()
    end = len(tokens) - 1

    def encode(text: str) -> list[int]:
        return [vocab_size + byte for byte in text.encode()]

    return vocabulary_of(tokens, [*markers, end], [end], encode)


def vocabulary_of(
    tokens: Sequence[bytes],
    markers: Sequence[int],
    ends: Sequence[int],
    encode: Callable[[str], list[int]],
) -> LLTokenizer:
    """A vocabulary of these tokens.

    Args:
        tokens: the bytes of each; none for an id that no grammar has.
        markers: ids of those that stand for themselves.
        ends: ids of those that end an output, among the markers.
        encode: text to ids, without markers.
    """
    wrapper = _Tokens(tokens, markers, ends[0], encode)
    return LLTokenizer(wrapper, eos_token=list(ends))  # type: ignore[arg-type]


def _bytes_of(backend: tokenizers.Tokenizer, rule: ByteRule, token_id: int) -> bytes:
    token = backend.id_to_token(token_id)
    return b"" if token is None else rule.to_bytes(token)


def _plain(backend: tokenizers.Tokenizer) -> Callable[[str], list[int]]:
    """Encoding that finds no markers in a text."""
    plain = tokenizers.Tokenizer.from_str(backend.to_str())
    added = plain.get_added_tokens_decoder().values()
    plain.add_special_tokens(
        [
            AddedToken(token.content, normalized=token.normalized, special=True)
            for token in added
            if token.content.strip()
        ]
    )
    plain.encode_special_tokens = True

    def encode(text: str) -> list[int]:
        ids: list[int] = plain.encode(text, add_special_tokens=False).ids
        return ids

    return encode
