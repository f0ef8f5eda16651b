"""Trains the tokenizer of the bundled model and writes ``tokenizer.json``.

Words are split from everything around them before merging, so a name has the same tokens wherever
it stands (in a schema, in a sentence, in a call) and copying it is exact matching of tokens.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from data import BUNDLED, Renderer
from mixture import training_conversations
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = (
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)
VOCABULARY = 2048
WORDS_DIGITS_REST = r"\p{L}+|\p{N}|[^\p{L}\p{N}]+"


def _texts(count: int) -> Iterator[str]:
    """Rendered conversations of a seed of their own, without the marks that never merge."""
    renderer = Renderer()
    for conversation in training_conversations(7, count):
        text = "".join(renderer.parts(conversation))
        for mark in (*SPECIAL, *MARKS):
            text = text.replace(mark, "\x00")
        yield from text.split("\x00")


def main() -> None:
    """Train and write the tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUNDLED / "tokenizer.json")
    parser.add_argument("--conversations", type=int, default=12_000)
    options = parser.parse_args()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS_DIGITS_REST), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(MARKS),
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
    )
    tokenizer.train_from_iterator(_texts(options.conversations), trainer)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the vocabulary has {tokenizer.get_vocab_size()} entries")
    tokenizer.save(str(options.out))


if __name__ == "__main__":
    main()
