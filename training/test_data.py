"""Checks of the training text: the partition of words, the rendering, the tokenizer."""

from __future__ import annotations

import pytest
from conversations import used_words
from data import BUNDLED, Renderer
from mixture import evaluation_conversations, training_conversations
from tokenizers import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The bundled tokenizer."""
    return Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))


def test_held_out_names_and_values_do_not_occur_in_training() -> None:
    """No function, parameter or value of the evaluation is one of training."""
    held_out = set().union(*map(used_words, evaluation_conversations()))
    trained = set().union(*map(used_words, training_conversations(1, 5000)))
    assert len(held_out) > 500
    assert not held_out & trained


def test_same_seed_gives_same_text() -> None:
    """The generator depends on the seed alone."""
    assert list(training_conversations(3, 50)) == list(training_conversations(3, 50))


def test_answer_follows_the_prompt() -> None:
    """Prompt and answer together are the template's rendering, up to the empty reasoning."""
    renderer = Renderer()
    for conversation in training_conversations(2, 300):
        prompt, answer = renderer.parts(conversation)
        assert answer.endswith("<|im_end|>")
        assert prompt.endswith("</think>\n\n") != conversation["enable_thinking"]
        assert answer.startswith("<think>\n") == conversation["enable_thinking"]


def test_a_word_has_the_same_tokens_wherever_it_stands(tokenizer: Tokenizer) -> None:
    """Copying a name is exact matching of tokens."""
    alone = tokenizer.encode("zorvanic").ids
    for text in (" zorvanic.", '{"name": "zorvanic"}', "the zorvanic_of", "(zorvanic)"):
        ids = tokenizer.encode(text).ids
        assert any(ids[k : k + len(alone)] == alone for k in range(len(ids)))


@pytest.mark.parametrize("text", ["日本 🌊 é ß", "\x00\t\n\r", '{"a": [1, -2.5]}', "<tool_call>x"])
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    """All bytes are in the vocabulary."""
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True) == text
