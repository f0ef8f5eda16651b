"""Tool calls and reasoning of the bundled model, through the official client."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from running_server import RunningServer

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Name of the city."}},
                "required": ["city"],
            },
        },
    }
]
MESSAGES: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
REQUEST: dict[str, Any] = {
    "model": "bundled",
    "messages": MESSAGES,
    "tools": TOOLS,
    "temperature": 0,
    "max_tokens": 200,
}
THINK = {"chat_template_kwargs": {"enable_thinking": True}}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


def fold(chunks: Iterable[Any]) -> dict[int, dict[str, Any]]:
    """Fold a stream as clients do, by the index of choice and call."""
    choices: dict[int, dict[str, Any]] = defaultdict(
        lambda: {"content": "", "reasoning": "", "calls": {}, "finish": None}
    )
    for chunk in chunks:
        for choice in chunk.choices:
            state = choices[choice.index]
            assert state["finish"] is None
            state["content"] += choice.delta.content or ""
            state["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or []:
                if call.id is not None:
                    state["calls"][call.index] = {"name": call.function.name, "arguments": ""}
                state["calls"][call.index]["arguments"] += call.function.arguments
            state["finish"] = choice.finish_reason
    return choices


def test_a_streamed_call_is_the_whole_call(client: OpenAI) -> None:
    whole = client.chat.completions.create(**REQUEST).choices[0]
    streamed = fold(client.chat.completions.create(**REQUEST, stream=True))[0]

    assert whole.finish_reason == streamed["finish"] == "tool_calls"
    assert whole.message.content is None
    [call] = whole.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    expected = {"name": "get_weather", "arguments": call.function.arguments}
    assert streamed["calls"] == {0: expected}
    assert streamed["content"] == ""


def test_reasoning_goes_before_a_call(client: OpenAI) -> None:
    stream = client.chat.completions.create(**REQUEST, stream=True, extra_body=THINK)
    streamed = fold(stream)[0]

    assert streamed["reasoning"]
    assert "think>" not in streamed["reasoning"] + streamed["content"]
    assert streamed["finish"] == "tool_calls"
    assert json.loads(streamed["calls"][0]["arguments"]) == {"city": "Oslo"}


def test_reasoning_is_counted_alike_streamed_and_whole(client: OpenAI) -> None:
    options: dict[str, Any] = {**REQUEST, "extra_body": THINK}
    whole = client.chat.completions.create(**options).usage
    stream = client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    )
    streamed = list(stream)[-1].usage

    assert whole is not None
    assert streamed is not None
    details = (whole.completion_tokens_details, streamed.completion_tokens_details)
    counts = [each.reasoning_tokens for each in details if each is not None]
    assert counts[0] == counts[1]
    assert 0 < (counts[0] or 0) < whole.completion_tokens


def test_four_choices_keep_their_calls_apart(client: OpenAI) -> None:
    options = REQUEST | {"temperature": 1, "seed": 5, "n": 4}

    whole = client.chat.completions.create(**options, extra_body=THINK)
    streamed = fold(client.chat.completions.create(**options, extra_body=THINK, stream=True))

    assert sorted(streamed) == [0, 1, 2, 3]
    for choice in whole.choices:
        state = streamed[choice.index]
        assert state["content"] == (choice.message.content or "")
        assert state["reasoning"] == (choice.message.model_extra or {})["reasoning_content"]
        assert state["finish"] == choice.finish_reason
        calls = {
            i: {"name": call.function.name, "arguments": call.function.arguments}
            for i, call in enumerate(choice.message.tool_calls or [])
            if call.type == "function"
        }
        assert state["calls"] == calls
    assert any(choice.message.tool_calls for choice in whole.choices)


def test_an_answer_can_go_back_as_history(client: OpenAI) -> None:
    message = client.chat.completions.create(**REQUEST).choices[0].message
    [call] = message.tool_calls or []
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "rain"}'}

    history = [*MESSAGES, message.model_dump(exclude_none=True), result]
    answer = client.chat.completions.create(**(REQUEST | {"messages": history})).choices[0]

    assert answer.finish_reason == "stop"
    assert answer.message.content


def test_tool_choice_none_calls_nothing(client: OpenAI) -> None:
    answer = client.chat.completions.create(**REQUEST, tool_choice="none").choices[0]

    assert answer.message.tool_calls is None
    assert "<tool_call>" not in (answer.message.content or "")
    assert answer.finish_reason == "stop"


def test_a_call_cut_off_says_length(client: OpenAI) -> None:
    answer = client.chat.completions.create(**(REQUEST | {"max_tokens": 14})).choices[0]

    assert answer.finish_reason == "length"


def test_a_tool_choice_that_names_nothing_offered_is_refused(client: OpenAI) -> None:
    choice: Any = {"type": "function", "function": {"name": "other"}}
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**REQUEST, tool_choice=choice)

    assert error.value.param == "tool_choice"
