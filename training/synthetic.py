"""Invented functions, requests for them, and what the model should answer.

Names, parameters and values are combined from words that are nearly never repeated, so the only
way to get such an exchange right is to read the functions in the prompt and copy from it.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from words import Lexicon

with (Path(__file__).parent / "requests.toml").open("rb") as _file:
    FORMS: dict[str, list[str]] = tomllib.load(_file)

NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


@dataclass
class Parameter:
    """One parameter of an invented function; ``label`` is how a user would call it."""

    name: str
    label: str
    kind: str
    description: str | None
    required: bool
    choices: list[str] = field(default_factory=list)

    def schema(self) -> dict[str, Any]:
        """The parameter's JSON schema."""
        if self.kind == "enum":
            schema: dict[str, Any] = {"type": "string", "enum": self.choices}
        else:
            schema = {"type": self.kind}
        if self.description:
            schema["description"] = self.description
        return schema


@dataclass
class Tool:
    """One invented function; ``verb`` and ``thing`` say what it does."""

    name: str
    verb: str
    thing: str
    is_query: bool
    description: str | None
    parameters: list[Parameter]


def wrap_function(
    lexicon: Lexicon,
    name: str,
    description: str | None,
    properties: dict[str, Any],
    required: list[str],
) -> dict[str, Any]:
    """Wrap a function as clients send it, with the small differences that clients have."""
    rng = lexicon.rng
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required or rng.random() < 0.3:
        schema["required"] = required
    if rng.random() < 0.1:
        schema["additionalProperties"] = False
    function: dict[str, Any] = {"name": name}
    if description:
        function["description"] = description
    function["parameters"] = schema
    if rng.random() < 0.05:
        function["strict"] = True
    return {"type": "function", "function": function}


def tool_json(lexicon: Lexicon, tool: Tool) -> dict[str, Any]:
    """The tool as it stands in a request."""
    return wrap_function(
        lexicon,
        tool.name,
        tool.description,
        {parameter.name: parameter.schema() for parameter in tool.parameters},
        [parameter.name for parameter in tool.parameters if parameter.required],
    )


def make_parameter(lexicon: Lexicon, kind: str | None = None) -> Parameter:
    """Invent one parameter."""
    rng = lexicon.rng
    words = [lexicon.parameter()]
    if rng.random() < 0.08:
        words.insert(0, lexicon.noun())
    label = " ".join(words)
    name = "_".join(words)
    description = None
    if rng.random() < 0.45:
        description = rng.choice(
            ("The {l}", "The {l} of it", "the {l} to use", "{l}", "Which {l} to use", "The {l}.")
        ).format(l=label)
    if kind is None:
        kind = rng.choice(("string",) * 6 + ("integer",) * 3 + ("number", "boolean", "enum"))
    choices = []
    if kind == "enum":
        choices = list(dict.fromkeys(lexicon.any_word().lower() for _ in range(rng.randint(2, 4))))
    return Parameter(name, label, kind, description, rng.random() < 0.6, choices)


def make_tool(
    lexicon: Lexicon, query: bool | None = None, verb: str | None = None, noun: str | None = None
) -> Tool:
    """Invent one function, optionally of a given form or with given words."""
    rng = lexicon.rng
    query = rng.random() < 0.5 if query is None else query
    noun = noun or lexicon.noun()
    thing = f"{lexicon.noun()} {noun}" if rng.random() < 0.08 else noun
    verb = verb or ("get" if query else lexicon.verb())
    parts = [verb, *thing.split()]
    name = "_".join(parts)
    if rng.random() < 0.06:
        name = parts[0] + "".join(part.capitalize() for part in parts[1:])
    description = None
    if rng.random() < 0.95:
        description = rng.choice(
            (
                "{V} a {t}.",
                "{V} the {t}.",
                "{V} a {t}",
                "Use this to {v} a {t}.",
                "{V} the {t} for the user.",
                "{V} one {t} and return the result.",
                "Lets you {v} any {t}.",
                "{V} {t}.",
            )
            if not query
            else (
                "{V} the {t}.",
                "{V} the {t} of something.",
                "Returns the {t}.",
                "Get the {t}.",
                "{V} the {t} for a name.",
                "Looks up the {t}.",
                "The {t} of an item.",
            )
        ).format(V=verb.capitalize(), v=verb, t=thing)
    count = rng.choice((1, 1, 1, 2) if query else (0, 1, 1, 1, 1, 2, 2))
    parameters: dict[str, Parameter] = {}
    while len(parameters) < count:
        parameter = make_parameter(lexicon, "string" if query and not parameters else None)
        if query and not parameters:
            parameter.required = True
        if parameter.label not in thing and parameter.name != verb:
            parameters[parameter.name] = parameter
    return Tool(name, verb, thing, query, description, list(parameters.values()))


def make_toolbox(lexicon: Lexicon, target: Tool) -> list[Tool]:
    """Put ``target`` among up to three other functions, some of them similar to it."""
    rng = lexicon.rng
    tools = {target.name: target}
    for _ in range(rng.choice((0, 1, 1, 2))):
        pick = rng.random()
        if pick < 0.1:
            other = make_tool(lexicon, target.is_query, verb=target.verb)
        elif pick < 0.2 and not target.is_query:
            other = make_tool(lexicon, False, noun=target.thing.split()[-1])
            if other.verb == target.verb:
                continue
        else:
            other = make_tool(lexicon)
        if other.thing != target.thing or other.verb != target.verb:
            tools.setdefault(other.name, other)
    shuffled = list(tools.values())
    rng.shuffle(shuffled)
    return shuffled


def string_value(lexicon: Lexicon) -> tuple[str, bool]:
    """A string as a user would give it, and whether it has several words."""
    rng = lexicon.rng
    pick = rng.random()
    if pick < 0.4:
        return lexicon.any_word(), False
    if pick < 0.78:
        return lexicon.name(), False
    if pick < 0.93:
        # No prepositions: where such a value ends would be anybody's guess.
        return " ".join(lexicon.any_word() for _ in range(rng.choice((2, 2, 3)))), True
    word = lexicon.pseudo_word()
    number = lexicon.integer()
    return rng.choice(
        (
            f"{word}@{lexicon.pseudo_word()}.com",
            f"{word}-{number}",
            f"{word}.txt",
            f"/{word}/{number}",
            f"20{rng.randint(10, 40)}-{rng.randint(10, 12)}-{rng.randint(10, 28)}-{word}",
            f"{word.upper()}{number}",
            f"https://{word}.org",
            f"{word}_{number}",
            f"#{word}",
        )
    ), False


def make_value(lexicon: Lexicon, parameter: Parameter) -> tuple[Any, str, bool]:
    """Draw a value.

    Returns:
        The JSON value, its spelling in the user's message, and whether that needs a clear end
        (several words).
    """
    rng = lexicon.rng
    value: Any
    wide = False
    if parameter.kind == "integer":
        value = lexicon.integer()
        said = str(value)
        if value < len(NUMBER_WORDS) and rng.random() < 0.3:
            said = NUMBER_WORDS[value]
    elif parameter.kind == "number":
        whole = lexicon.integer()
        part = rng.choice((rng.randint(1, 99) / 100, rng.randint(1, 9) / 10))
        value = round(whole + part, 2)
        said = str(value)
    elif parameter.kind == "boolean":
        value, said = rng.random() < 0.5, ""
    elif parameter.kind == "enum":
        value = said = rng.choice(parameter.choices)
    else:
        value, wide = string_value(lexicon)
        said = value
        if rng.random() < (0.4 if wide else 0.12):
            said = rng.choice(('"{}"', "'{}'", "“{}”", '"{}"')).format(value)
            wide = False
    return value, said, wide


def clause(
    lexicon: Lexicon, parameter: Parameter, value: Any, text: str, wide: bool, sentence: bool
) -> str:
    """Say one parameter, as a short phrase or as a sentence without its full stop."""
    rng = lexicon.rng
    if parameter.kind == "boolean":
        forms = (
            (FORMS["true_sentences"] if value else FORMS["false_sentences"])
            if sentence
            else (FORMS["true_inline"] if value else FORMS["false_inline"])
        )
    elif sentence:
        forms = FORMS["sentences"] if wide else FORMS["sentences"] + FORMS["sentences_first"]
    else:
        forms = FORMS["inline"] if wide else FORMS["inline"] + FORMS["inline_first"]
    said = rng.choice(forms).format(l=parameter.label, v=text)
    return said[0].upper() + said[1:] if sentence and said.startswith(parameter.label) else said


def action_phrase(lexicon: Lexicon, tool: Tool) -> str:
    """The action of a function as a user would name it, without values."""
    determiner = lexicon.rng.choice(("the ", "the ", "a ", "my ", "our ", "this ", "", "one "))
    return f"{tool.verb} {determiner}{tool.thing}"


def make_request(lexicon: Lexicon, tool: Tool) -> tuple[str, dict[str, Any]]:
    """Ask for ``tool`` with values of the user's choice.

    Returns:
        The user's message and the arguments the call must have, in the order of the schema.
    """
    rng = lexicon.rng
    mentioned = [p for p in tool.parameters if p.required or rng.random() < 0.5]
    values = {p.name: make_value(lexicon, p) for p in mentioned}
    arguments = {p.name: values[p.name][0] for p in mentioned}
    rest = list(mentioned)
    rng.shuffle(rest)
    direct = next((p for p in mentioned if p.kind == "string"), None)
    if tool.is_query and direct is not None and direct is tool.parameters[0]:
        rest.remove(direct)
        start = rng.choice(FORMS["query_requests"]).format(n=tool.thing, v=values[direct.name][1])
    else:
        action = action_phrase(lexicon, tool)
        if rng.random() < 0.04:
            action = rng.choice(("call {}", "use {}", "run {}", "use the tool {}")).format(
                tool.name
            )
        if direct is not None and (len(mentioned) == 1 or rng.random() < 0.15):
            link = rng.choice(
                (" ", " ", " for ", " to ", " in ", " from ", " called ", ": ", " with ", " on ")
            )
            action += link + values[direct.name][1]
            rest.remove(direct)
        start = rng.choice(FORMS["action_requests"]).format(a=action)
    if not rest:
        return finish(lexicon, start), arguments
    style = rng.random()
    if style < 0.35:
        says = [clause(lexicon, p, *values[p.name], sentence=True) for p in rest]
        start = finish(lexicon, start)
        stop = "" if start.endswith(("?", ".", "!")) else "."
        return f"{start}{stop} {'. '.join(says)}.", arguments
    says = [clause(lexicon, p, *values[p.name], sentence=False) for p in rest]
    body = start.rstrip("?.")
    if style < 0.75:
        joined = ", ".join(says[:-1]) + rng.choice((" and ", ", ", ", and ")) + says[-1]
        joined = joined if len(says) > 1 else says[0]
        link = rng.choice((" with ", " with ", " using ", ", ", " - ", ", with ", " at "))
        return finish(lexicon, body + link + joined), arguments
    if style < 0.85:
        return f"{body} ({', '.join(says)})", arguments
    mark = rng.choice(("", "- ", "* "))
    return f"{body}:\n" + "\n".join(mark + said for said in says), arguments


def finish(lexicon: Lexicon, text: str) -> str:
    """End a request the way people do: with the right sign, another one or none."""
    if text.endswith(("?", ".", "!")):
        return text
    asks = text.startswith(("Can", "Could", "Would", "Are", "Hello"))
    return text + lexicon.rng.choice(
        ("?", "?", "", " please?") if asks else (".", ".", "", "!", ", please.")
    )


def thought(lexicon: Lexicon, tool: Tool, arguments: dict[str, Any]) -> str:
    """Short reasoning that settles the function and each argument."""
    opening = lexicon.rng.choice(
        (
            "The user wants to {v} the {t}. I call {f}",
            "This is about the {t}, so I call {f}",
            "The function {f} fits. I call it",
            "I should {v} the {t} by calling {f}",
        )
    ).format(v=tool.verb, t=tool.thing, f=tool.name)
    if not arguments:
        return f"{opening} without arguments."
    pairs = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items()
    ]
    return f"{opening} with {' and '.join(pairs)}."
