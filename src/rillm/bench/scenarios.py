"""The scenarios: conversations in which servers differ.

Every run asks something else, so that no prefix cache answers for the model. Sampling is greedy
where a request has one choice, so that the whole answer can be compared with the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from rillm.bench.answer import Kind
from rillm.errors import ConfigError

Body = dict[str, Any]

_WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
_CITIES: Final = ("Oslo", "Lima", "Paris", "Cairo", "Quito", "Tokyo", "Rome", "Delhi", "Accra")
_THINGS: Final = ("river", "mountain", "lake", "forest", "storm", "island", "valley", "ocean")
_RULES: Final = (
    "be kind to every visitor",
    "say where the path begins",
    "name the bridge and the mill",
    "speak of rain before snow",
    "keep each answer short",
    "never promise good weather",
)
_PREFIX_RULES: Final = 24
_SHORT, _LONG, _SAMPLED = 256, 1500, 128
"""Most tokens of an answer."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked, and what a reader waits for."""

    name: str
    title: str
    expects: Kind
    """Output that the question is made for. A model that brings none is noted, not faulted."""
    ask: Callable[[int, Random], dict[str, Body]]
    """Bodies of one run by the row of the table that each belongs to, in the order to send
    them, made of the run's number and a source of what has never been asked before."""


def _chat(question: str, max_tokens: int, *, system: str | None = None, **fields: Any) -> Body:
    messages = [{"role": "user", "content": question}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages, "max_tokens": max_tokens, "temperature": 0, "seed": 0} | fields


def _city(run: int) -> str:
    return _CITIES[run % len(_CITIES)]


def _thing(run: int) -> str:
    return _THINGS[run % len(_THINGS)]


def _tool_call(run: int, random: Random) -> dict[str, Body]:
    question = f"What is the weather in {_city(run)}?"
    return {"tool call": _chat(question, _SHORT, tools=[_WEATHER])}


def _plain_short(run: int, random: Random) -> dict[str, Body]:
    question = f"What is a {_thing(run)}? Answer in plain text. Do not call a function."
    return {"short text, tools offered": _chat(question, _SHORT, tools=[_WEATHER])}


def _plain_long(run: int, random: Random) -> dict[str, Body]:
    question = f"Tell me a long story about a {_thing(run)}."
    return {"long text, tools offered": _chat(question, _LONG, tools=[_WEATHER])}


def _reasoning_tool(run: int, random: Random) -> dict[str, Body]:
    question = f"What is the weather in {_city(run)}?"
    thinking = {"enable_thinking": True, "thinking": True}
    body = _chat(question, _LONG, tools=[_WEATHER], chat_template_kwargs=thinking)
    return {"reasoning, then a tool": body}


def _four_choices(run: int, random: Random) -> dict[str, Body]:
    question = f"Tell me a story about a {_thing(run)}."
    return {"n = 4": _chat(question, _SAMPLED, n=4, temperature=0.8, seed=run)}


def _shared_prefix(run: int, random: Random) -> dict[str, Body]:
    rules = (
        f"Rule {random.randrange(1000)}: {random.choice(_RULES)}." for _ in range(_PREFIX_RULES)
    )
    system = "You are the guide of a valley. " + " ".join(rules)
    first, again = f"What is a {_thing(run)}?", f"What is a {_thing(run + 1)}?"
    return {
        "prefix, first time": _chat(first, _SHORT, system=system),
        "prefix, again": _chat(again, _SHORT, system=system),
    }


SCENARIOS: Final[dict[str, Scenario]] = {
    each.name: each
    for each in (
        Scenario("tool_call", "a function is offered and wanted", "name", _tool_call),
        Scenario(
            "plain_short", "a function is offered, a sentence wanted", "content", _plain_short
        ),
        Scenario("plain_long", "a function is offered, a story wanted", "content", _plain_long),
        Scenario("reasoning_tool", "the model reasons, then calls", "name", _reasoning_tool),
        Scenario("n4", "four choices of one prompt", "content", _four_choices),
        Scenario("shared_prefix", "two questions after one long prefix", "content", _shared_prefix),
    )
}


def find_scenarios(names: Sequence[str]) -> list[Scenario]:
    """Scenarios by name; `all` stands for all of them.

    Raises:
        ConfigError: no scenario has the name.
    """
    if "all" in names:
        return list(SCENARIOS.values())
    for name in names:
        if name not in SCENARIOS:
            raise ConfigError(f"scenario is {name!r}, must be all or one of {', '.join(SCENARIOS)}")
    return [SCENARIOS[name] for name in dict.fromkeys(names)]
