"""Functions that people really offer to a model, and how people ask for them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthetic import wrap_function
from words import Lexicon

with (Path(__file__).parent / "families.toml").open("rb") as _table:
    _TABLES: dict[str, Any] = tomllib.load(_table)


@dataclass(frozen=True)
class Slot:
    """One parameter: possible names, JSON type, possible descriptions, whether it is required.

    ``fill`` draws a value; ``choices`` makes the parameter an enumeration.
    """

    names: list[str]
    kind: str
    descriptions: list[str]
    required: bool
    fill: Callable[[Lexicon], Any] | None
    choices: list[str]


@dataclass(frozen=True)
class Family:
    """One function in its usual variants, with requests that mention slots in braces.

    ``result`` maps a key of the response to a drawing function; the answer is said from these.
    """

    names: list[str]
    descriptions: list[str]
    slots: dict[str, Slot]
    requests: list[str]
    result: dict[str, Callable[[Lexicon], Any]]


def _place(lexicon: Lexicon) -> str:
    rng = lexicon.rng
    name = rng.choice(lexicon.cities) if rng.random() < 0.55 else lexicon.pseudo_word().capitalize()
    pick = rng.random()
    if pick < 0.15:
        name = f"{rng.choice(('New', 'San', 'Port', 'Saint', 'Bad', 'Los'))} {name}"
    if pick > 0.82:
        tail = rng.choice(
            ("CA", "NY", "TX", "MA", "France", "Germany", "Italy", "Japan", "UK", "Spain")
        )
        name = f"{name}, {tail}"
    return name


def _text(lexicon: Lexicon) -> str:
    return " ".join(lexicon.any_word().lower() for _ in range(lexicon.rng.choice((1, 2, 2, 3, 4))))


def _person(lexicon: Lexicon) -> str:
    first = lexicon.rng.choice(lexicon.people)
    return first if lexicon.rng.random() < 0.7 else f"{first} {lexicon.pseudo_word().capitalize()}"


def _number(lexicon: Lexicon) -> int | float:
    if lexicon.rng.random() < 0.75:
        return lexicon.integer()
    return lexicon.integer() + lexicon.rng.randint(1, 9) / 10


def _small(lexicon: Lexicon) -> int:
    return lexicon.integer(1, 90)


def _code(lexicon: Lexicon) -> str:
    return lexicon.rng.choice(_TABLES["values"]["code"])


def _time(lexicon: Lexicon) -> str:
    rng = lexicon.rng
    return rng.choice(
        (
            _clock(lexicon),
            f"{rng.randint(1, 12)} pm",
            f"{rng.randint(1, 12)} am",
            "tomorrow",
            "noon",
            "tonight",
        )
    )


def _clock(lexicon: Lexicon) -> str:
    return f"{lexicon.rng.randint(0, 23):02d}:{lexicon.rng.randint(0, 59):02d}"


def _day(lexicon: Lexicon) -> str:
    rng = lexicon.rng
    return rng.choice(
        (
            "today",
            "tomorrow",
            "Monday",
            "Tuesday",
            "Friday",
            "Sunday",
            f"20{rng.randint(20, 39)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
        )
    )


def _email(lexicon: Lexicon) -> str:
    return f"{lexicon.rng.choice(lexicon.people).lower()}@{lexicon.pseudo_word()}.com"


def _expression(lexicon: Lexicon) -> str:
    return f"{lexicon.integer()}{lexicon.rng.choice('+-*/')}{lexicon.integer()}"


def _symbol(lexicon: Lexicon) -> str:
    return lexicon.pseudo_word().upper()[: lexicon.rng.randint(3, 5)]


def _word(lexicon: Lexicon) -> str:
    return lexicon.any_word().lower()


def _file(lexicon: Lexicon) -> str:
    return f"{lexicon.pseudo_word()}.{lexicon.rng.choice(('txt', 'md', 'py', 'json', 'csv'))}"


def _condition(lexicon: Lexicon) -> str:
    return lexicon.rng.choice(_TABLES["values"]["condition"])


def _language(lexicon: Lexicon) -> str:
    return lexicon.rng.choice(_TABLES["values"]["language"])


_FILLS: dict[str, Callable[[Lexicon], Any]] = {
    "clock": _clock,
    "code": _code,
    "condition": _condition,
    "day": _day,
    "email": _email,
    "expression": _expression,
    "file": _file,
    "integer": Lexicon.integer,
    "language": _language,
    "number": _number,
    "person": _person,
    "place": _place,
    "small": _small,
    "symbol": _symbol,
    "text": _text,
    "time": _time,
    "word": _word,
}


def _family(entry: dict[str, Any]) -> Family:
    """Read one family."""
    slots = {
        key: Slot(
            slot["names"],
            slot["type"],
            slot["descriptions"],
            slot["required"],
            _FILLS[slot["fill"]] if "fill" in slot else None,
            slot.get("choices", []),
        )
        for key, slot in entry.get("slots", {}).items()
    }
    result = {key: _FILLS[fill] for key, fill in entry["result"].items()}
    return Family(entry["names"], entry["descriptions"], slots, entry["requests"], result)


FAMILIES = {entry["id"]: _family(entry) for entry in _TABLES["family"]}
SIMILAR = [frozenset(pair) for pair in _TABLES["similar"]]
ANSWERS_PLAIN_QUESTIONS = frozenset(_TABLES["answers_plain_questions"])
MISSING: list[dict[str, Any]] = _TABLES["missing"]


@dataclass
class Case:
    """A request for one realistic function: schema, message, call and result."""

    schema: dict[str, Any]
    name: str
    question: str
    arguments: dict[str, Any]
    family: str


def make_case(lexicon: Lexicon, which: str | None = None) -> Case:
    """Draw one function (or that of family ``which``) in one variant, and a request for it."""
    rng = lexicon.rng
    if which is None:
        often = ("weather",) * 5 + ("time_in_place", "time", "add")
        which = rng.choice([*often, *FAMILIES])
    family = FAMILIES[which]
    name = rng.choice(family.names)
    request = rng.choice(family.requests)
    properties: dict[str, Any] = {}
    required: list[str] = []
    arguments: dict[str, Any] = {}
    spoken: dict[str, Any] = {}
    for key, slot in family.slots.items():
        mentioned = f"{{{key}}}" in request
        if not mentioned and not slot.required and rng.random() < 0.4:
            continue
        parameter = rng.choice(slot.names)
        schema: dict[str, Any] = {"type": slot.kind}
        choices = slot.choices
        if choices:
            schema["enum"] = choices
        description = rng.choice(slot.descriptions)
        if description:
            schema["description"] = description
        properties[parameter] = schema
        if slot.required:
            required.append(parameter)
        if mentioned:
            value = rng.choice(choices) if choices else slot.fill(lexicon) if slot.fill else ""
            arguments[parameter] = spoken[key] = value
            if choices and choices[0] == "celsius" and rng.random() < 0.4:
                spoken[key] = str(value).capitalize()
    question = request.format(**spoken)
    if rng.random() < 0.15:
        question = question.rstrip("?.")
    if rng.random() < 0.06:
        question = rng.choice(("Please: ", "Hey, ", "Hi! ", "Hello. ", "Quick: ")) + question
    description = rng.choice(family.descriptions) or None
    schema = wrap_function(lexicon, name, description, properties, required)
    return Case(schema, name, question, arguments, which)


def fixed_words() -> frozenset[str]:
    """Names of all functions and parameters here, and the choices; the evaluation avoids them."""
    words: set[str] = set()
    for family in FAMILIES.values():
        words.update(family.names)
        for slot in family.slots.values():
            words.update(slot.names)
            words.update(f'"{choice}"' for choice in slot.choices)
    return frozenset(words)


def make_result(lexicon: Lexicon, case: Case) -> tuple[str, str, list[str]]:
    """A response to ``case``, the sentence that reports it, and what that must contain."""
    rng = lexicon.rng
    values = {key: draw(lexicon) for key, draw in FAMILIES[case.family].result.items()}
    if case.family == "weather":
        return _weather_result(lexicon, next(iter(case.arguments.values())), values)
    if len(values) == 1 and rng.random() < 0.3:
        value = next(iter(values.values()))
        return str(value), f"The result is {value}.", [str(value)]
    said = " and ".join(f"the {key} is {value}" for key, value in values.items())
    body = json.dumps(values, ensure_ascii=False)
    return body, f"{said[0].upper()}{said[1:]}.", [str(value) for value in values.values()]


def _weather_result(
    lexicon: Lexicon, place: str, values: dict[str, Any]
) -> tuple[str, str, list[str]]:
    """A weather report in one of its usual forms, and the sentence about it."""
    rng = lexicon.rng
    temperature, condition = values["temperature"], values["condition"]
    pick = rng.random()
    if pick < 0.25:
        body = rng.choice(
            (
                f"{temperature} degrees and {condition}",
                f"{temperature}°C, {condition}",
                f"{condition}, {temperature}°",
                f"{condition.capitalize()}, {temperature} degrees",
                f"{temperature}°F and {condition}",
                condition,
                f"{temperature}°C",
            )
        )
        return body, f"The weather in {place}: {body}.", [body]
    report: dict[str, Any] = {}
    if rng.random() < 0.35:
        report[rng.choice(("location", "city", "place"))] = place
    said = []
    if pick < 0.9:
        report[rng.choice(("temperature", "temperature", "temp", "degrees"))] = (
            temperature if rng.random() < 0.7 else str(temperature)
        )
        said.append(f"{temperature} degrees")
        if rng.random() < 0.35:
            unit = rng.choice(("celsius", "fahrenheit", "C", "F"))
            report["unit"] = unit
            said[0] += f" {unit}"
    if pick > 0.5:
        report[rng.choice(("condition", "condition", "conditions", "forecast", "weather"))] = (
            condition
        )
        said.append(condition)
    return json.dumps(report, ensure_ascii=False), f"In {place} it is {' and '.join(said)}.", said
