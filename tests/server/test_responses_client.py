"""The Responses API as OpenAI's own client uses it, with the bundled model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from response_events import Order, comparable
from running_server import RunningServer

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Name of the city."}},
        "required": ["city"],
    },
    "strict": None,
}
QUESTION = "What is the weather in Oslo?"
REQUEST: dict[str, Any] = {
    "model": "bundled",
    "input": QUESTION,
    "tools": [WEATHER],
    "temperature": 0,
    "max_output_tokens": 200,
}
THINK = {"chat_template_kwargs": {"enable_thinking": True}}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url, api_key="any", max_retries=0, timeout=100) as client:
        yield client


def read(stream: Any) -> Any:
    """The last response of a stream, its order checked."""
    order = Order()
    for event in stream:
        order.take(event.to_dict())
    assert order.state == "ended"
    return order.response


@pytest.mark.parametrize(("tools", "extra"), [([], {}), ([WEATHER], THINK)])
def test_a_stream_is_the_whole_answer(client: OpenAI, tools: Any, extra: Any) -> None:
    options = REQUEST | {"tools": tools, "extra_body": extra}
    whole = client.responses.create(**options)
    streamed = read(client.responses.create(**options, stream=True))

    assert comparable(streamed) | {"usage": None} == comparable(whole.to_dict()) | {"usage": None}
    for count in ("input_tokens", "output_tokens", "output_tokens_details", "total_tokens"):
        assert streamed["usage"][count] == whole.to_dict()["usage"][count]  # type: ignore[index]
    kinds = [item.type for item in whole.output]
    assert kinds == [*(["reasoning"] if extra else []), "function_call" if tools else "message"]
    assert whole.status == "completed"
    assert whole.usage is not None
    assert (whole.usage.output_tokens_details.reasoning_tokens > 0) == bool(extra)


def test_the_clients_own_stream_folds_to_the_same(client: OpenAI) -> None:
    with client.responses.stream(**REQUEST, extra_body=THINK) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()

    assert kinds >= {"response.reasoning_text.delta", "response.function_call_arguments.delta"}
    call = final.output[-1]
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Oslo"}


@pytest.mark.parametrize("by", ["id", "items", "reference"])
def test_a_tools_loop_ends_with_an_answer(client: OpenAI, by: str) -> None:
    first = client.responses.create(**REQUEST)
    [call] = first.output
    assert call.type == "function_call"
    result: Any = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": '{"weather": "rain"}',
    }
    options: dict[str, Any] = {
        "id": {"input": [result], "previous_response_id": first.id},
        "items": {"input": [{"role": "user", "content": QUESTION}, call, result]},
        "reference": {
            "input": [
                {"role": "user", "content": QUESTION},
                {"type": "item_reference", "id": call.id},
                result,
            ]
        },
    }[by]

    second = client.responses.create(**REQUEST | options)
    streamed = read(client.responses.create(**REQUEST | options, stream=True))

    assert [item.type for item in second.output] == ["message"]
    assert "rain" in second.output_text
    assert streamed["output"][0]["content"][0]["text"] == second.output_text


def test_what_is_kept_can_be_had_listed_and_deleted(client: OpenAI) -> None:
    made = client.responses.create(**REQUEST, metadata={"a": "b"})

    assert client.responses.retrieve(made.id) == made
    [item] = client.responses.input_items.list(made.id)
    assert item.to_dict()["content"] == [{"type": "input_text", "text": QUESTION}]
    client.responses.delete(made.id)
    for call in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(openai.NotFoundError, match=made.id):
            call(made.id)


def test_in_the_background_it_can_be_left_and_resumed(client: OpenAI) -> None:
    seen = []
    with client.responses.create(**REQUEST, background=True, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if event.type == "response.function_call_arguments.delta":
                break
    id = seen[0].response.id  # type: ignore[union-attr]
    after = seen[-1].sequence_number

    rest = client.responses.retrieve(id, stream=True, starting_after=after)
    response = read([*seen, *rest])

    assert client.responses.retrieve(id).to_dict() == response
    assert json.loads(response["output"][0]["arguments"]) == {"city": "Oslo"}


def test_in_the_background_it_can_be_cancelled(client: OpenAI, server: RunningServer) -> None:
    options: Any = {"temperature": 1, "extra_body": {"ignore_eos": True}, "max_output_tokens": 1900}
    with server.suspended():
        made = client.responses.create(**REQUEST | options, background=True)
        assert made.status == "queued"

        cancelled = client.responses.cancel(made.id)

    assert cancelled.status == "cancelled"
    assert client.responses.retrieve(made.id) == cancelled
    events = client.responses.retrieve(made.id, stream=True)
    assert read(events)["status"] == "cancelled"


def test_a_response_that_is_cut_off_says_so(client: OpenAI) -> None:
    cut = client.responses.create(**REQUEST | {"tools": [], "max_output_tokens": 3})

    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert cut.usage is not None
    assert cut.usage.output_tokens == 3


def test_logprobs_spell_the_text(client: OpenAI) -> None:
    include: Any = ["message.output_text.logprobs"]
    options: Any = {"tools": [], "max_output_tokens": 8, "top_logprobs": 2, "include": include}
    whole = client.responses.create(**REQUEST | options)
    streamed = read(client.responses.create(**REQUEST | options, stream=True))

    [message] = whole.to_dict()["output"]  # type: ignore[misc]
    [part] = message["content"]  # type: ignore[index, call-overload]
    assert streamed["output"][0]["content"][0]["logprobs"] == part["logprobs"]
    assert b"".join(bytes(each["bytes"]) for each in part["logprobs"]).decode() == part["text"]
    assert all(len(each["top_logprobs"]) == 2 for each in part["logprobs"])


def test_a_conversation_that_is_too_long_loses_its_oldest_turns(client: OpenAI) -> None:
    turns: list[Any] = []
    for number in range(40):
        turns.append({"role": "user", "content": f"Turn {number}. " + "word " * 100})
        turns.append({"role": "assistant", "content": "Yes."})
    turns.append({"role": "user", "content": "Hello!"})
    options: Any = {"model": "bundled", "input": turns, "max_output_tokens": 20}

    answer = client.responses.create(**options, instructions="Be brief.", truncation="auto")
    with pytest.raises(openai.BadRequestError) as error:
        client.responses.create(**options)
    long: Any = options | {"input": "word " * 3000}
    with pytest.raises(openai.BadRequestError) as too_long:
        client.responses.create(**long, truncation="auto")

    assert isinstance(answer, Response)
    assert answer.usage is not None
    assert 1700 < answer.usage.input_tokens <= 2048 - 20
    assert error.value.param == too_long.value.param == "input_tokens"


def test_errors_are_the_clients_own(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**REQUEST | {"temperature": 9})
    with pytest.raises(openai.NotFoundError) as unknown:
        client.responses.create(**REQUEST, previous_response_id="resp_1")
    with pytest.raises(openai.NotFoundError) as model:
        client.responses.create(**REQUEST | {"model": "other"})

    assert [each.value.param for each in (refused, unknown, model)] == [
        *("temperature", "previous_response_id", "model")
    ]
