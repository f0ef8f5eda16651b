"""Conversations that end in a call, or that come close to one."""

from __future__ import annotations

import json

import realistic
import synthetic
from conversations import Conversation, build, case_tools, earlier, system_prompt, user
from words import Lexicon


def _synthetic_single(lexicon: Lexicon, preface: bool) -> Conversation:
    """One call among invented functions."""
    tool = synthetic.make_tool(lexicon)
    box = synthetic.make_toolbox(lexicon, tool)
    question, arguments = synthetic.make_request(lexicon, tool)
    opening = []
    if preface:
        usual = system_prompt(lexicon)
        wish = lexicon.rng.choice(synthetic.FORMS["preface_prompts"])
        content = f"{usual} {wish}".strip()
        opening = [{"role": "system", "content": content}]
    return build(
        lexicon,
        "call_after_sentence" if preface else "call",
        [*opening, *earlier(lexicon), user(question)],
        [synthetic.tool_json(lexicon, each) for each in box],
        f"I call {tool.name}." if preface else "",
        synthetic.thought(lexicon, tool, arguments),
        [(tool.name, arguments)],
    )


def call(lexicon: Lexicon) -> Conversation:
    """One call to an invented function."""
    return _synthetic_single(lexicon, preface=False)


def call_after_sentence(lexicon: Lexicon) -> Conversation:
    """A system prompt asks for a sentence before the call."""
    return _synthetic_single(lexicon, preface=True)


def _thought_of_case(lexicon: Lexicon, case: realistic.Case) -> str:
    """Reasoning for a call to a realistic function."""
    if not case.arguments:
        return f"The function {case.name} fits. I call it without arguments."
    pairs = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in case.arguments.items()
    ]
    return f"The function {case.name} fits. I call it with {' and '.join(pairs)}."


def call_realistic(lexicon: Lexicon) -> Conversation:
    """One call to a function of everyday use."""
    case = realistic.make_case(lexicon)
    return build(
        lexicon,
        "call_realistic",
        [*earlier(lexicon), user(case.question)],
        case_tools(lexicon, case),
        "",
        _thought_of_case(lexicon, case),
        [(case.name, case.arguments)],
    )


def parallel_same(lexicon: Lexicon) -> Conversation:
    """Two or three calls to one function with different values."""
    rng = lexicon.rng
    values = list(dict.fromkeys(lexicon.name() for _ in range(rng.choice((2, 2, 2, 3)))))
    link = rng.choice((" and ", " and ", " and in ", " and for ", ", and "))
    if rng.random() < 0.45 and not lexicon.held_out:
        place = realistic.make_case(lexicon, rng.choice(("weather", "weather", "time_in_place")))
        name, key = place.name, next(iter(place.arguments))
        rest = {other: value for other, value in place.arguments.items() if other != key}
        joined = ", ".join(values[:-1]) + link + values[-1] if len(values) > 1 else values[0]
        question = place.question.replace(str(place.arguments[key]), joined)
        calls = [(name, {key: value, **rest}) for value in values]
        tools = case_tools(lexicon, place)
    else:
        query = rng.random() < 0.6
        tool = synthetic.make_tool(lexicon, query)
        tool.parameters = [synthetic.make_parameter(lexicon, "string"), *tool.parameters[1:2]]
        tool.parameters[0].required = True
        for other in tool.parameters[1:]:
            other.required = False
            other.name = f"{other.name}_{lexicon.pseudo_word()}"
        key, label = tool.parameters[0].name, tool.parameters[0].label
        joined = ", ".join(values[:-1]) + link + values[-1] if len(values) > 1 else values[0]
        if query:
            question = rng.choice(synthetic.FORMS["query_requests"]).format(n=tool.thing, v=joined)
        else:
            action = synthetic.action_phrase(lexicon, tool)
            said = [f"{label} {value}" for value in values]
            detail = rng.choice(
                (
                    " " + joined,
                    " for " + joined,
                    " with " + " and with ".join(said),
                    f" with {label} " + joined,
                    ", once with " + " and once with ".join(said),
                    ": first " + ", then ".join(values),
                )
            )
            question = synthetic.finish(
                lexicon, rng.choice(synthetic.FORMS["action_requests"]).format(a=action + detail)
            )
        calls = [(tool.name, {key: value}) for value in values]
        tools = [
            synthetic.tool_json(lexicon, each) for each in synthetic.make_toolbox(lexicon, tool)
        ]
    pairs = " and ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for value in values)
    thought = f"I call {calls[0][0]} {len(calls)} times, with {pairs}."
    return build(
        lexicon, "parallel_same", [*earlier(lexicon), user(question)], tools, "", thought, calls
    )


def parallel_two(lexicon: Lexicon) -> Conversation:
    """Two requests in one message, for two different functions."""
    rng = lexicon.rng
    while True:
        first, second = synthetic.make_tool(lexicon), synthetic.make_tool(lexicon)
        if first.name != second.name and first.thing != second.thing:
            break
    questions, calls, thoughts = [], [], []
    for tool in (first, second):
        question, arguments = synthetic.make_request(lexicon, tool)
        questions.append(question)
        calls.append((tool.name, arguments))
        thoughts.append(synthetic.thought(lexicon, tool, arguments))
    box = [first, second]
    if rng.random() < 0.4:
        third = synthetic.make_tool(lexicon)
        if third.name not in (first.name, second.name):
            box.append(third)
    rng.shuffle(box)
    start = questions[0] if questions[0].endswith((".", "?", "!", ")")) else questions[0] + "."
    glue = "\n" if "\n" in start else " "
    second_question = questions[1]
    if rng.random() < 0.6:
        connector = rng.choice(synthetic.FORMS["connectors"])
        second_question = f"{connector} {second_question[0].lower()}{second_question[1:]}"
    return build(
        lexicon,
        "parallel_two",
        [*earlier(lexicon), user(start + glue + second_question)],
        [synthetic.tool_json(lexicon, tool) for tool in box],
        "",
        " ".join(thoughts),
        calls,
    )


def no_function(lexicon: Lexicon) -> Conversation:
    """A request for something that none of the functions does."""
    tool = synthetic.make_tool(lexicon, query=False)
    question, _ = synthetic.make_request(lexicon, tool)
    tools = [synthetic.make_tool(lexicon) for _ in range(lexicon.rng.choice((1, 1, 2, 3)))]
    box = {
        other.name: other
        for other in tools
        if not {other.verb, *other.thing.split()} & {tool.verb, *tool.thing.split()}
    }
    return build(
        lexicon,
        "no_function",
        [user(question)],
        [synthetic.tool_json(lexicon, other) for other in box.values()],
        "I am sorry, I have no function for that.",
        "No function fits this request.",
        contains=["no function"],
    )


def missing_value(lexicon: Lexicon) -> Conversation:
    """A request that lacks the one value which the function needs."""
    missing = lexicon.rng.choice(realistic.MISSING)
    case = realistic.make_case(lexicon, missing["family"])
    tools = case_tools(lexicon, case)
    question = lexicon.rng.choice(missing["requests"])
    return build(
        lexicon,
        "missing_value",
        [user(question)],
        tools,
        missing["answer"],
        "A value is missing, so I ask for it.",
        contains=[missing["answer"]],
    )
