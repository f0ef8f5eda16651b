"""Parsed output of the token endpoint: what chat would say, beside the tokens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import BUNDLED_TOKENIZER, ScriptedEngine, SpeakingEngine, call, delta

from rillm.formats.registry import combine
from rillm.output_formats import OutputFormats
from rillm.outputs import RequestOutput

GENERATE = "/inference/v1/generate"
CHAT = "/v1/chat/completions"
FORMATS = OutputFormats(combine("hermes", "qwen3"), BUNDLED_TOKENIZER)
MESSAGES = [{"role": "user", "content": "Hi"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "tide",
            "parameters": {"type": "object", "properties": {"port": {"type": "string"}}},
        },
    }
]
PROMPT = BUNDLED_TOKENIZER.encode_chat(MESSAGES, tools=TOOLS)
TIDE = '<tool_call>\n{"name": "tide", "arguments": {"port": "Brést"}}\n</tool_call>'
THOUGHT = "<think>\nlet me see\n</think>\n\n"
CONTEXT: dict[str, Any] = {"tools": TOOLS, "tool_choice": "auto"}
TEXTS = [
    "Hello.",
    THOUGHT + "Hello, é.",
    THOUGHT + "Look:\n" + TIDE,
    TIDE + "\n" + TIDE,
    THOUGHT,
    "<tool_call>\n{not a call}",
    "",
]


def request(context: Any = CONTEXT, n: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "token_ids": PROMPT,
        "sampling_params": {"n": n},
        "output_mode": "derender",
        "parse_context": context,
    } | fields


async def ask(*texts: str, finish: str = "stop", path: str = GENERATE, **body: Any) -> Any:
    engine = SpeakingEngine(*texts, finish=finish, formats=FORMATS)
    answer = await call(engine, path, body)
    assert answer.status == 200, answer.body
    return answer.events() if body.get("stream") else answer.json()


def choices_of(events: list[Any], index: int = 0) -> list[Any]:
    chunks = [event for event in events if event != "[DONE]"]
    return [each for chunk in chunks for each in chunk["choices"] if each["index"] == index]


def without_ids(value: Any) -> Any:
    """Ids of calls are random: each becomes a constant."""
    if isinstance(value, dict):
        return {key: "id" if key == "id" else without_ids(each) for key, each in value.items()}
    return [without_ids(each) for each in value] if isinstance(value, list) else value


def fold(choices: list[Any]) -> dict[str, Any]:
    """A message, from the deltas of its choice."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    for choice in choices:
        for call_delta in choice["delta"].get("tool_calls", ()):
            if "id" in call_delta:
                message["tool_calls"].append({**call_delta["function"]})
            else:
                call_ = message["tool_calls"][call_delta["index"]]
                call_["arguments"] += call_delta["function"]["arguments"]
        for name in ("content", "reasoning_content"):
            message[name] += choice["delta"].get(name, "")
    return message


@pytest.mark.parametrize("text", TEXTS)
async def test_streamed_is_whole(text: str) -> None:
    events = await ask(text, **request(stream=True))
    [whole] = (await ask(text, **request()))["choices"]

    choices = choices_of(events)
    message = whole["message"]
    assert fold(choices) == {
        "content": message["content"] or "",
        "reasoning_content": message["reasoning_content"] or "",
        "tool_calls": [each["function"] for each in message.get("tool_calls", [])],
    }
    assert sum((each["token_ids"] for each in choices), []) == whole["token_ids"]
    assert whole["token_ids"] == BUNDLED_TOKENIZER.encode(text)
    finishes = [each["finish_reason"] for each in choices]
    assert finishes == [None] * (len(choices) - 1) + [whole["finish_reason"]]
    assert list(whole)[-2:] == ["message", "logprobs"]
    assert list(choices[0])[-2:] == ["delta", "logprobs"]


@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("text", TEXTS)
async def test_deltas_and_messages_are_those_of_chat(text: str, finish: str) -> None:
    chat = {"messages": MESSAGES, "tools": TOOLS}
    chat_events = await ask(text, finish=finish, path=CHAT, stream=True, **chat)
    chat_whole = await ask(text, finish=finish, path=CHAT, **chat)

    events = await ask(text, finish=finish, **request(stream=True))
    whole = await ask(text, finish=finish, **request())

    said = [[each["delta"], each["finish_reason"]] for each in choices_of(events)]
    told = [[each["delta"], each["finish_reason"]] for each in choices_of(chat_events)]
    role, *rest = said
    assert role[0].pop("role") == "assistant"
    # A chunk of tokens that make nothing certain yet is no chunk of chat.
    spoken = [each for each in (role, *rest) if each[0] or each[1]]
    assert without_ids(spoken) == without_ids(told[1:])
    assert without_ids(whole["choices"][0]["message"]) == without_ids(
        chat_whole["choices"][0]["message"]
    )
    assert whole["choices"][0]["finish_reason"] == chat_whole["choices"][0]["finish_reason"]


@given(st.lists(st.sampled_from(TEXTS), min_size=2, max_size=3))
async def test_choices_stay_apart(texts: list[str]) -> None:
    events = await ask(*texts, **request(n=len(texts), stream=True))

    for index, text in enumerate(texts):
        alone = choices_of(await ask(text, **request(stream=True)))
        beside = [each | {"index": 0} for each in choices_of(events, index)]
        assert without_ids(beside) == without_ids(alone)


async def test_one_output_of_several_events_tells_its_tokens_once() -> None:
    class HastyEngine(SpeakingEngine):
        """Says everything in one output."""

        async def generate(self, *args: Any, **options: Any) -> AsyncGenerator[RequestOutput, None]:
            outputs = [each async for each in super().generate(*args, **options)]
            for later in outputs[1:]:
                outputs[0].add(later, aggregate=True)
            yield outputs[0]

    text = THOUGHT + "Hello." + TIDE
    engine = HastyEngine(text, formats=FORMATS)

    events = (await call(engine, GENERATE, request(stream=True))).events()

    choices = choices_of(events)
    told = [each["token_ids"] for each in choices]
    assert told == [BUNDLED_TOKENIZER.encode(text)] + [[]] * (len(choices) - 1)
    assert len(choices) > 4
    assert [("role" in each["delta"]) for each in choices] == [True] + [False] * (len(choices) - 1)
    assert choices[-1]["delta"] == {}
    assert choices[-1]["finish_reason"] == "tool_calls"


async def test_usage_counts_reasoning() -> None:
    options = {"include_usage": True}
    events = await ask(THOUGHT + "Hi", **request(stream=True, stream_options=options))
    whole = await ask(THOUGHT + "Hi", **request())

    assert events[-2]["choices"] == []
    details = events[-2]["usage"]["completion_tokens_details"]
    assert 0 < details["reasoning_tokens"] < events[-2]["usage"]["completion_tokens"]
    assert whole["usage"] == events[-2]["usage"] | {
        "prompt_tokens_details": None,
        "completion_tokens_details": details,
    }


async def test_reasoning_that_is_not_included_leaves_no_trace() -> None:
    context = CONTEXT | {"include_reasoning": False}
    body = request(context, sampling_params={"logprobs": 1})

    events = await ask(THOUGHT + "Hello.", **body, stream=True)
    [whole] = (await ask(THOUGHT + "Hello.", **body))["choices"]

    choices = choices_of(events)
    assert {(each["token_ids"], each["logprobs"]) for each in choices} == {(None, None)}
    assert fold(choices) == {"content": "Hello.", "reasoning_content": "", "tool_calls": []}
    assert all(each["delta"] or each["finish_reason"] for each in choices)
    assert (whole["token_ids"], whole["logprobs"]) == (None, None)
    assert whole["message"]["content"] == "Hello."
    assert "reasoning_content" not in whole["message"]


async def test_calls_are_text_where_no_tools_were_offered() -> None:
    [choice] = (await ask(TIDE, **request({})))["choices"]

    assert choice["message"]["content"] == TIDE
    assert choice["finish_reason"] == "stop"


async def test_model_of_no_format_says_content_only() -> None:
    engine = ScriptedEngine([delta(0, "<think>", [1])], [delta(0, "", [], "stop")])

    events = (await call(engine, GENERATE, request(None, stream=True))).events()

    assert [each["delta"] for each in choices_of(events)] == [
        {"role": "assistant", "content": "<think>"},
        {},
    ]


@pytest.mark.parametrize(
    ("context", "kind", "param", "phrase"),
    [
        (None, "BadRequestError", "parse_context", "parse_context"),
        ({"invented": 1}, "Bad Request", "parse_context", "invented"),
        ({"tools": 3}, "Bad Request", "parse_context.tools", "array"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "BadRequestError",
            "tool_choice",
            "tide",
        ),
        ({"tools": [{"type": "function"}]}, "BadRequestError", "tools[0].function", "object"),
        ({"tool_choice": "required"}, "BadRequestError", "tool_choice", "without"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_context_that_cannot_be_read_is_refused(
    context: Any, kind: str, param: str, phrase: str, is_stream: bool
) -> None:
    engine = SpeakingEngine("Hi", formats=FORMATS)

    answer = await call(engine, GENERATE, request(context, stream=is_stream))

    error = answer.json()["error"]
    assert (answer.status, error["type"], error["param"]) == (400, kind, param)
    assert phrase in error["message"]


async def test_context_is_looked_at_in_this_mode_only() -> None:
    answer = await ask("Hi", **request({"invented": 1}, output_mode="tokens"))

    assert "message" not in answer["choices"][0]
