"""The mixture of kinds that the model is trained on, and that of the evaluation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import answer_kinds
import call_kinds
import realistic
from conversations import Conversation, used_words
from words import Lexicon

Maker = Callable[[Lexicon], Conversation]

TRAINING: tuple[tuple[Maker, float], ...] = (
    (call_kinds.call, 76),
    (call_kinds.call_realistic, 18),
    (call_kinds.call_after_sentence, 3),
    (call_kinds.parallel_same, 12),
    (call_kinds.parallel_two, 14),
    (answer_kinds.plain_question, 36),
    (answer_kinds.plain_with_tools, 11),
    (call_kinds.no_function, 2),
    (answer_kinds.after_response, 10),
    (answer_kinds.second_request, 3),
    (answer_kinds.elliptic_request, 1.5),
    (call_kinds.missing_value, 0.7),
    (answer_kinds.json_answer, 1),
)
"""Kinds and their weights."""

EVALUATION: tuple[tuple[Maker, int], ...] = (
    (call_kinds.call, 92),
    (call_kinds.call_after_sentence, 8),
    (call_kinds.parallel_same, 12),
    (call_kinds.parallel_two, 4),
    (answer_kinds.plain_question, 30),
    (answer_kinds.plain_with_tools, 24),
    (answer_kinds.after_response, 22),
    (answer_kinds.second_request, 8),
)
"""How many of the 200 held-out prompts are of each kind."""


def training_conversations(seed: int, count: int) -> Iterator[Conversation]:
    """Yield ``count`` conversations of the training mixture."""
    rng = random.Random(seed)
    makers, weights = zip(*TRAINING, strict=True)
    for _ in range(count):
        lexicon = Lexicon(rng, held_out=False)
        yield rng.choices(makers, weights)[0](lexicon)


def evaluation_conversations(seed: int = 20_000, scale: float = 1.0) -> list[Conversation]:
    """Draw held-out conversations: 200, or ``scale`` times as many of each kind.

    Nothing in them is named as in training: the everyday functions use ordinary words as names,
    so a conversation with one of these words is drawn anew.
    """
    lexicon = Lexicon(random.Random(seed), held_out=True)
    taken = realistic.fixed_words()
    drawn: list[Conversation] = []
    for maker, count in EVALUATION:
        goal = len(drawn) + round(count * scale)
        while len(drawn) < goal:
            conversation = maker(lexicon)
            if not used_words(conversation) & taken:
                drawn.append(conversation)
    return drawn
