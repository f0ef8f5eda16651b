"""What all kinds of conversations share: their form, system prompts, earlier exchanges."""

from __future__ import annotations

import json
from typing import Any

import plain
import realistic
import synthetic
from words import Lexicon

Message = dict[str, Any]
Conversation = dict[str, Any]
"""Messages and functions as in the OpenAI chat API, and what the model should answer.

Keys: ``messages`` (the last one is the answer), ``tools``, ``enable_thinking``, ``kind`` and
``expected`` (``calls`` and ``contains``: what an answer must call and must say).
"""


def system_prompt(lexicon: Lexicon) -> str:
    """A system prompt, or nothing."""
    if lexicon.rng.random() < 0.4:
        return ""
    return lexicon.rng.choice(synthetic.FORMS["system_prompts"]).format(
        w=lexicon.pseudo_word().capitalize(),
        c=lexicon.rng.choice(lexicon.cities),
        p=lexicon.rng.choice(lexicon.people),
    )


def tool_calls(calls: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Tool calls in the form of an assistant message."""
    return [
        {"type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in calls
    ]


def user(text: str) -> Message:
    """A message of the user."""
    return {"role": "user", "content": text}


def build(
    lexicon: Lexicon,
    kind: str,
    turns: list[Message],
    tools: list[dict[str, Any]],
    answer: str,
    thought: str,
    calls: list[tuple[str, dict[str, Any]]] | None = None,
    contains: list[str] | None = None,
) -> Conversation:
    """Put a conversation together; a third of them think.

    Args:
        lexicon: where words and chances come from.
        kind: name of the kind.
        turns: messages before the answer; a system prompt is put first if they bring none.
        tools: functions offered.
        answer: content of the answer.
        thought: its reasoning.
        calls: its calls, names and arguments.
        contains: what the content must contain.
    """
    thinking = lexicon.rng.random() < 0.34
    final: Message = {"role": "assistant", "content": answer}
    if thinking:
        final["reasoning_content"] = thought
    if calls:
        final["tool_calls"] = tool_calls(calls)
    system = "" if turns[0]["role"] == "system" else system_prompt(lexicon)
    opening = [{"role": "system", "content": system}] if system else []
    return {
        "messages": [*opening, *turns, final],
        "tools": tools,
        "enable_thinking": thinking,
        "kind": kind,
        "expected": {
            "calls": [{"name": name, "arguments": arguments} for name, arguments in calls or []],
            "contains": contains or [],
        },
    }


def earlier(lexicon: Lexicon, tools: bool = True) -> list[Message]:
    """Sometimes an earlier plain exchange; with ``tools`` it is rarer, prompts are long enough."""
    turns: list[Message] = []
    while lexicon.rng.random() < (0.06 if tools else 0.2):
        exchange = plain.make_exchange(lexicon, lexicon.held_out)
        turns += [user(exchange.question), {"role": "assistant", "content": exchange.answer}]
    return turns


def case_tools(lexicon: Lexicon, case: realistic.Case) -> list[dict[str, Any]]:
    """The function of ``case`` among others, half of them realistic."""
    tools = {case.name: case.schema}
    family_words = set(case.name.lower().replace("_", " ").split())
    for _ in range(lexicon.rng.choice((0, 0, 1, 1, 2, 3))):
        if lexicon.rng.random() < 0.5:
            other = realistic.make_case(lexicon)
            if family_words & set(other.name.lower().replace("_", " ").split()) - {"get", "search"}:
                continue
            if other.family != case.family and {other.family, case.family} not in realistic.SIMILAR:
                tools.setdefault(other.name, other.schema)
        else:
            tool = synthetic.make_tool(lexicon)
            tools.setdefault(tool.name, synthetic.tool_json(lexicon, tool))
    shuffled = list(tools.values())
    lexicon.rng.shuffle(shuffled)
    return shuffled


def used_words(conversation: Conversation) -> set[str]:
    """Names of functions and parameters and all values that the expected calls contain."""
    found: set[str] = set()
    for tool in conversation["tools"]:
        function = tool["function"]
        found.add(function["name"])
        found.update(function["parameters"]["properties"])
    for call in conversation["expected"]["calls"]:
        for value in call["arguments"].values():
            items: list[Any] = value if isinstance(value, list) else [value]
            found.update(json.dumps(item) for item in items if not isinstance(item, bool))
    return found
