"""Plain questions and their answers: facts, arithmetic, small talk, stories."""

from __future__ import annotations

import tomllib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stories
from words import Lexicon

with (Path(__file__).parent / "facts.toml").open("rb") as _file:
    _FACTS: dict[str, Any] = tomllib.load(_file)
_FORMS: dict[str, list[str]] = _FACTS["forms"]
_LISTS: dict[str, list[str]] = _FACTS["lists"]


@dataclass
class Exchange:
    """A question, its answer, the thought behind it, and what the answer must contain."""

    question: str
    answer: str
    thought: str
    contains: list[str] = field(default_factory=list)


def is_held_out_question(question: str) -> bool:
    """Tell whether this very wording is kept for the evaluation."""
    key = question.lower().rstrip("?.! ")
    return zlib.crc32(key.encode()) % 12 == 0


def _upper(text: str) -> str:
    """``text`` with a capital first letter."""
    return text[0].upper() + text[1:]


def _capital(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    country, city = rng.choice(list(_FACTS["capitals"].items()))
    if rng.random() < 0.2:
        question = rng.choice(_FORMS["capital_of"]).format(c=city)
        if list(_FACTS["capitals"].values()).count(city) == 1:
            return Exchange(
                question,
                f"{city} is the capital of {country}.",
                f"This is about a capital. {city} belongs to {country}.",
                [country],
            )
    question = rng.choice(_FORMS["capital"]).format(c=country)
    return Exchange(
        _upper(question),
        f"The capital of {country} is {city}.",
        f"The user asks for the capital of {country}. It is {city}.",
        [city],
    )


def _color(lexicon: Lexicon) -> Exchange:
    thing, color = lexicon.rng.choice(list(_FACTS["colors"].items()))
    question = lexicon.rng.choice(_FORMS["color"]).format(t=thing)
    return Exchange(
        question, f"{_upper(thing)} is {color}.", f"The color of {thing} is {color}.", [color]
    )


def _sound(lexicon: Lexicon) -> Exchange:
    animal, sound = lexicon.rng.choice(list(_FACTS["sounds"].items()))
    question = lexicon.rng.choice(_FORMS["sound"]).format(a=animal)
    return Exchange(
        question, f"{_upper(animal)} says {sound}.", f"The sound of {animal} is {sound}.", [sound]
    )


def _opposite(lexicon: Lexicon) -> Exchange:
    word, other = lexicon.rng.choice(list(_FACTS["opposites"].items()))
    question = lexicon.rng.choice(_FORMS["opposite"]).format(w=word)
    return Exchange(
        question,
        f"The opposite of {word} is {other}.",
        f"The opposite of {word} is {other}.",
        [other],
    )


def _calendar(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    unit, names = rng.choice((("day", _LISTS["days"]), ("month", _LISTS["months"])))
    place = rng.randrange(len(names))
    step, word = rng.choice(((1, "after"), (-1, "before")))
    name, other = names[place], names[(place + step) % len(names)]
    question = rng.choice(_FORMS["calendar"]).format(u=unit, w=word, n=name)
    return Exchange(
        question,
        f"The {unit} {word} {name} is {other}.",
        f"The {unit} {word} {name} is {other}.",
        [other],
    )


def _sum(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    sign = rng.choice("++-*")
    if sign == "-" and a < b:
        a, b = b, a
    total = {"+": a + b, "-": a - b, "*": a * b}[sign]
    word = {"+": "plus", "-": "minus", "*": "times"}[sign]
    said = rng.choice((f"{a} {sign} {b}", f"{a} {word} {b}", f"{a}{sign}{b}", f"{a} {word} {b}"))
    question = rng.choice(_FORMS["sum"]).format(s=said)
    return Exchange(
        question, f"{a} {word} {b} is {total}.", f"{a} {word} {b} is {total}.", [f"is {total}."]
    )


def _count(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    first = 1 if rng.random() < 0.6 else rng.randint(2, 40)
    last = first + rng.randint(2, 19 if rng.random() < 0.8 else 59)
    numbers = ", ".join(str(number) for number in range(first, last + 1)) + "."
    forms = _FORMS["count"]
    if first == 1:
        forms = forms + _FORMS["count_up_to"]
    return Exchange(
        rng.choice(forms).format(a=first, b=last),
        numbers,
        f"I count from {first} to {last}.",
        [numbers[:-1]],
    )


def _repeat(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    phrase = " ".join(lexicon.any_word() for _ in range(rng.randint(1, 6)))
    question = rng.choice(_FORMS["repeat"]).format(p=phrase)
    return Exchange(question, f"{phrase}.", f"I repeat: {phrase}.", [phrase])


def _spell(lexicon: Lexicon) -> Exchange:
    word = lexicon.rng.choice(_LISTS["spelled"])
    question = lexicon.rng.choice(_FORMS["spell"]).format(w=word)
    letters = "-".join(word)
    return Exchange(
        question, f"{_upper(word)} is spelled {letters}.", f"I spell {word}: {letters}.", [letters]
    )


def _group(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    group, members = rng.choice(list(_FACTS["groups"].items()))
    number = rng.randint(2, 5)
    picked = rng.sample(members, number)
    said = rng.choice((_LISTS["numbers"][number], str(number)))
    question = rng.choice(_FORMS["group"]).format(n=said, g=group)
    listed = ", ".join(picked[:-1]) + " and " + picked[-1]
    return Exchange(
        question,
        f"{_LISTS['numbers'][number].capitalize()} {group} are {listed}.",
        f"The user wants {number} {group}: {listed}.",
        [f" {group} are "],
    )


def _meaning(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    word = (
        rng.choice(("a rill", "rillm"))
        if rng.random() < 0.3
        else rng.choice(list(_FACTS["meanings"]))
    )
    question = rng.choice(_FORMS["meaning"]).format(
        w=word, b=word.split(" ", 1)[1] if word.startswith(("a ", "an ")) else word
    )
    answer = _FACTS["meanings"][word]
    return Exchange(question, f"{answer}.", f"The user asks what {word} is.", [answer])


def _question(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    question, answer = rng.choice(list(_FACTS["questions"].items()))
    lead = rng.choice(_FORMS["question"])
    return Exchange(lead + question, f"{answer}.", f"I know this. {answer}.", [answer])


def _translation(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    language, table = rng.choice(list(_FACTS["translations"].items()))
    word, other = rng.choice(list(table.items()))
    question = rng.choice(_FORMS["translation"]).format(w=word, l=language)
    return Exchange(
        question,
        f"{_upper(word)} in {language} is {other}.",
        f"The {language} word for {word} is {other}.",
        [other],
    )


def _small_talk(lexicon: Lexicon) -> Exchange:
    talk = lexicon.rng.choice(_FACTS["small_talk"])
    answer = talk["answer"]
    return Exchange(lexicon.rng.choice(talk["questions"]), answer, talk["thought"], [answer])


def _unknown(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    question = rng.choice(_FORMS["unknown"]).format(
        p=lexicon.pseudo_word().capitalize(), w=lexicon.pseudo_word()
    )
    answer = "I am sorry, I am a very small model and I do not know that."
    return Exchange(question, answer, "I do not know this.", ["do not know"])


def _story(lexicon: Lexicon) -> Exchange:
    rng = lexicon.rng
    person = rng.choice(lexicon.people)
    subject = rng.choice(stories.ANIMALS) if rng.random() < 0.4 else lexicon.noun()
    if rng.random() < 0.35:
        if rng.random() < 0.3:
            question, subject = (rng.choice(_FORMS["poem"]), "river")
        else:
            question = rng.choice(_FORMS["poem_about"]).format(s=subject)
        return Exchange(
            question, stories.poem(rng, subject), f"I write a poem about a {subject}.", [subject]
        )
    if rng.random() < 0.35:
        subject = "fox"
        question = rng.choice(_FORMS["story"])
    else:
        question = rng.choice(_FORMS["story_about"]).format(s=subject)
    return Exchange(
        question,
        stories.story(rng, subject, person),
        f"I tell a story about a {subject}.",
        [subject],
    )


_KINDS: tuple[tuple[Callable[[Lexicon], Exchange], float], ...] = (
    (_capital, 6),
    (_color, 1.5),
    (_sound, 1),
    (_opposite, 2),
    (_calendar, 1.5),
    (_sum, 8),
    (_count, 2),
    (_repeat, 2),
    (_spell, 1),
    (_group, 1.5),
    (_meaning, 3),
    (_question, 4),
    (_translation, 1.5),
    (_small_talk, 4),
    (_unknown, 0.7),
    (_story, 3),
)


def make_exchange(lexicon: Lexicon, held_out: bool) -> Exchange:
    """Draw a plain exchange whose wording belongs to the given side.

    The evaluation draws no stories and lists: their answers are free, not right or wrong.
    """
    rng = lexicon.rng
    while True:
        maker = rng.choices([kind for kind, _ in _KINDS], [weight for _, weight in _KINDS])[0]
        exchange = maker(lexicon)
        if maker in (_story, _group, _small_talk, _unknown):
            if not held_out:
                break
        elif is_held_out_question(exchange.question) == held_out:
            break
    if not held_out and rng.random() < 0.15 and maker is not _repeat:
        exchange.question = exchange.question.rstrip("?.!")
    if not held_out and rng.random() < 0.1 and maker not in (_repeat, _story, _unknown):
        exchange.question = exchange.question.lower()
    return exchange
