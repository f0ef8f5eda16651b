"""Conversations that end in plain words, and those with finished calls before the end."""

from __future__ import annotations

import json
from typing import Any

import plain
import realistic
import synthetic
from conversations import Conversation, Message, build, case_tools, earlier, tool_calls, user
from words import Lexicon


def plain_question(lexicon: Lexicon) -> Conversation:
    """A plain question without any function."""
    exchange = plain.make_exchange(lexicon, lexicon.held_out)
    return build(
        lexicon,
        "plain",
        [*earlier(lexicon, tools=False), user(exchange.question)],
        [],
        exchange.answer,
        exchange.thought,
        contains=exchange.contains,
    )


def _unrelated_tools(lexicon: Lexicon) -> list[dict[str, Any]]:
    """One to four functions that answer no plain question."""
    rng = lexicon.rng
    tools: dict[str, dict[str, Any]] = {}
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        if rng.random() < 0.3 and not lexicon.held_out:
            case = realistic.make_case(lexicon)
            if case.family not in realistic.ANSWERS_PLAIN_QUESTIONS:
                tools.setdefault(case.name, case.schema)
        else:
            tool = synthetic.make_tool(lexicon)
            tools.setdefault(tool.name, synthetic.tool_json(lexicon, tool))
    return list(tools.values())


def plain_with_tools(lexicon: Lexicon) -> Conversation:
    """A plain question while functions are offered that do not fit."""
    exchange = plain.make_exchange(lexicon, lexicon.held_out)
    return build(
        lexicon,
        "plain_with_tools",
        [*earlier(lexicon), user(exchange.question)],
        _unrelated_tools(lexicon),
        exchange.answer,
        f"No function is needed. {exchange.thought}",
        contains=exchange.contains,
    )


def json_answer(lexicon: Lexicon) -> Conversation:
    """A request to write given values as JSON."""
    rng = lexicon.rng
    values: dict[str, Any] = {}
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4))):
        values[lexicon.parameter()] = (
            lexicon.integer() if rng.random() < 0.4 else lexicon.any_word()
        )
    form = rng.choice(
        ("{k} {v}", "{k} {v}", "{k}: {v}", "{k} = {v}", "the {k} {v}", "the {k} is {v}")
    )
    said = [form.format(k=key, v=value) for key, value in values.items()]
    listed = (
        ", ".join(said[:-1]) + rng.choice((" and ", ", ")) + said[-1] if len(said) > 1 else said[0]
    )
    question = rng.choice(
        (
            "Write this as JSON: {x}",
            "Give me a JSON object with {x}.",
            "As JSON: {x}",
            "Make a JSON object: {x}",
            "Return JSON with {x}",
            "Answer in JSON. {x}",
            "Extract the data as JSON: {x}",
            "Please convert to JSON: {x}",
            "Reply with a JSON object that has {x}.",
            "Put this into JSON: {x}",
            "{x}. Write it as JSON.",
            "JSON of {x}",
        )
    ).format(x=listed)
    body = json.dumps(values, ensure_ascii=False)
    return build(
        lexicon,
        "json_answer",
        [user(question)],
        [],
        body,
        f"The user wants JSON with the keys {' and '.join(values)}.",
        contains=[body],
    )


def _result_value(lexicon: Lexicon) -> Any:
    """A value as a function would return it."""
    pick = lexicon.rng.random()
    if pick < 0.4:
        return lexicon.integer()
    if pick < 0.5:
        return lexicon.integer() + lexicon.rng.randint(1, 9) / 10
    if pick < 0.7:
        return lexicon.pseudo_word()
    return synthetic.string_value(lexicon)[0]


def _synthetic_result(
    lexicon: Lexicon, tool: synthetic.Tool, arguments: dict[str, Any]
) -> tuple[str, str, list[str]]:
    """A response of an invented function, the sentence about it, and what that must contain."""
    rng = lexicon.rng
    pick = rng.random()
    if pick < 0.06:
        error = " ".join(lexicon.any_word().lower() for _ in range(rng.randint(1, 4)))
        return (
            json.dumps({"error": error}, ensure_ascii=False),
            f"I am sorry, there was an error: {error}.",
            [error],
        )
    if tool.is_query and arguments and pick < 0.65:
        value = _result_value(lexicon)
        key = rng.choice(
            (tool.thing.replace(" ", "_"), "result", "value", "answer", tool.thing.split()[-1])
        )
        body = str(value) if rng.random() < 0.35 else json.dumps({key: value}, ensure_ascii=False)
        subject = next(iter(arguments.values()))
        return body, f"The {tool.thing} of {subject} is {value}.", [str(value)]
    if pick < 0.75:
        value = _result_value(lexicon)
        return str(value), f"The result is {value}.", [str(value)]
    pairs = {lexicon.parameter(): _result_value(lexicon) for _ in range(rng.choice((1, 1, 2, 3)))}
    said = " and ".join(f"the {key} is {value}" for key, value in pairs.items())
    return (
        json.dumps(pairs, ensure_ascii=False),
        f"{said[0].upper()}{said[1:]}.",
        [str(value) for value in pairs.values()],
    )


def _exchange_with_tools(
    lexicon: Lexicon,
) -> tuple[list[Message], list[dict[str, Any]], str, str, list[str]]:
    """A request, the call or two, the responses, and the answer.

    Returns:
        The messages before the answer, the functions, the answer, the thought behind it, and what
        the answer must contain.
    """
    rng = lexicon.rng
    calls: list[tuple[str, dict[str, Any]]]
    if rng.random() < 0.3 and not lexicon.held_out:
        case = realistic.make_case(lexicon)
        tools, question, calls = (
            case_tools(lexicon, case),
            case.question,
            [(case.name, case.arguments)],
        )
        results = [realistic.make_result(lexicon, case)]
    else:
        tool = synthetic.make_tool(lexicon)
        question, arguments = synthetic.make_request(lexicon, tool)
        chosen = [(tool, arguments)]
        if rng.random() < 0.2:
            other = synthetic.make_tool(lexicon)
            if other.name != tool.name:
                more, other_arguments = synthetic.make_request(lexicon, other)
                question = f"{question} {more}"
                chosen.append((other, other_arguments))
        box = {
            each.name: each
            for each in [*synthetic.make_toolbox(lexicon, tool), *(t for t, _ in chosen)]
        }
        tools = [synthetic.tool_json(lexicon, each) for each in box.values()]
        calls = [(each.name, given) for each, given in chosen]
        results = [_synthetic_result(lexicon, each, given) for each, given in chosen]
    turns = [
        user(question),
        {"role": "assistant", "content": "", "tool_calls": tool_calls(calls)},
        *({"role": "tool", "content": body} for body, _, _ in results),
    ]
    answer = " ".join(sentence for _, sentence, _ in results)
    arrived = "responses are" if len(results) > 1 else "response is"
    thought = f"The {arrived} here. I tell the user: {answer}"
    return turns, tools, answer, thought, [text for _, _, texts in results for text in texts]


def after_response(lexicon: Lexicon) -> Conversation:
    """The answer after the response of a function."""
    turns, tools, answer, thought, contains = _exchange_with_tools(lexicon)
    return build(
        lexicon,
        "after_response",
        [*earlier(lexicon), *turns],
        tools,
        answer,
        thought,
        contains=contains,
    )


def second_request(lexicon: Lexicon) -> Conversation:
    """A new question after a finished exchange with a function: plain, or another call."""
    turns, tools, answer, _, _ = _exchange_with_tools(lexicon)
    turns = [*turns, {"role": "assistant", "content": answer}]
    if lexicon.rng.random() < 0.35:
        exchange = plain.make_exchange(lexicon, lexicon.held_out)
        return build(
            lexicon,
            "second_request",
            [*turns, user(exchange.question)],
            tools,
            exchange.answer,
            f"No function is needed. {exchange.thought}",
            contains=exchange.contains,
        )
    tool = synthetic.make_tool(lexicon)
    while any(tool.name == other["function"]["name"] for other in tools):
        tool = synthetic.make_tool(lexicon)
    question, arguments = synthetic.make_request(lexicon, tool)
    tools.insert(lexicon.rng.randint(0, len(tools)), synthetic.tool_json(lexicon, tool))
    return build(
        lexicon,
        "second_request",
        [*turns, user(question)],
        tools,
        "",
        synthetic.thought(lexicon, tool, arguments),
        [(tool.name, arguments)],
    )


def elliptic_request(lexicon: Lexicon) -> Conversation:
    """After a finished exchange about a place, the same question for another place."""
    rng = lexicon.rng
    case = realistic.make_case(lexicon, rng.choice(("weather", "weather", "time_in_place")))
    key, place = next(iter(case.arguments.items()))
    body, answer, _ = realistic.make_result(lexicon, case)
    other = lexicon.name()
    while other == place:
        other = lexicon.name()
    question = rng.choice(
        (
            "And in {p}?",
            "What about {p}?",
            "How about {p}?",
            "and {p}?",
            "And {p}?",
            "Now for {p}.",
            "The same for {p}, please.",
            "And what about {p}?",
            "Thanks! And in {p}?",
            "Same question for {p}",
            "What about in {p}?",
            "Also for {p}?",
        )
    ).format(p=other)
    turns = [
        user(case.question),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": tool_calls([(case.name, case.arguments)]),
        },
        {"role": "tool", "content": body},
        {"role": "assistant", "content": answer},
        user(question),
    ]
    arguments = {**case.arguments, key: other}
    thought = f"The user asks the same for {other}. I call {case.name} again."
    return build(
        lexicon,
        "elliptic_request",
        turns,
        case_tools(lexicon, case),
        "",
        thought,
        [(case.name, arguments)],
    )
