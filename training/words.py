"""Word material of the training text, and its partition into training and held-out words.

Every word belongs to exactly one side: :func:`is_held_out` decides from a checksum of its
lower-case form, so tools, parameters and values of the evaluation cannot occur in training.
"""

from __future__ import annotations

import random
import tomllib
import zlib
from pathlib import Path

with (Path(__file__).parent / "words.toml").open("rb") as _file:
    _WORDS: dict[str, list[str]] = tomllib.load(_file)

HELD_OUT_SHARE = 6
"""One word in this many is held out."""


def is_held_out(word: str) -> bool:
    """Tell whether ``word`` belongs to the evaluation rather than to training."""
    return zlib.crc32(word.lower().encode()) % HELD_OUT_SHARE == 0


class Lexicon:
    """Draws words of one side of the partition, reproducibly."""

    def __init__(self, rng: random.Random, held_out: bool) -> None:
        """Draw with ``rng`` from the held-out words or from the training words."""
        self.rng = rng
        self.held_out = held_out
        self.nouns = self._side(_WORDS["nouns"])
        self.verbs = _WORDS["verbs"]
        self.adjectives = self._side(_WORDS["adjectives"])
        self.parameters = self._side(_WORDS["parameter_words"])
        self.people = self._side(_WORDS["people"])
        self.cities = self._side(_WORDS["cities"])

    def _side(self, words: list[str]) -> list[str]:
        """Keep the words of this lexicon's side."""
        return [word for word in words if is_held_out(word) == self.held_out]

    def pseudo_word(self) -> str:
        """Invent a word of one to three syllables that nobody has seen."""
        while True:
            word = "".join(
                self.rng.choice(_WORDS["onsets"])
                + self.rng.choice(_WORDS["nuclei"])
                + self.rng.choice(_WORDS["codas"])
                for _ in range(self.rng.choice((1, 1, 2, 2)))
            )
            if len(word) > 2 and is_held_out(word) == self.held_out:
                return word

    def noun(self) -> str:
        """A noun, in training every other one and in the evaluation each one invented."""
        return self._mostly(self.nouns, 0.5)

    def verb(self) -> str:
        """A verb; verbs are shared by both sides, what they are combined with is not."""
        return self.rng.choice(self.verbs)

    def parameter(self) -> str:
        """A word for a parameter's name."""
        return self._mostly(self.parameters, 0.5)

    def _mostly(self, words: list[str], invented: float) -> str:
        """One of ``words``, or with probability ``invented`` a pseudo-word.

        The evaluation uses pseudo-words only. Their pieces are those of training, so that a
        failure to copy one is the model's and not the tokenizer's.
        """
        if self.held_out or self.rng.random() < invented:
            return self.pseudo_word()
        return self.rng.choice(words)

    def any_word(self) -> str:
        """A word of any kind, as a value might contain it."""
        return self._mostly([*self.nouns, *self.adjectives, *self.people, *self.cities], 0.6)

    def name(self) -> str:
        """A person, a city or an invented proper name, capitalised."""
        name = self._mostly([*self.people, *self.cities], 0.5)
        return name[0].upper() + name[1:]

    def integer(self, low: int = 1, high: int = 9999) -> int:
        """An integer of this side; small ones are as likely as large ones."""
        while True:
            top = self.rng.choice((12, 60, 100, 1000, high))
            number = self.rng.randint(low, max(low, min(top, high)))
            if is_held_out(str(number)) == self.held_out:
                return number
