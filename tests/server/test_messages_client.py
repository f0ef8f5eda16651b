"""Anthropic's own client against the bundled model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from running_server import RunningServer

STORY: list[Any] = [{"role": "user", "content": "Tell me a story."}]
QUESTION: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "Name of the city."}},
        "required": ["city"],
    },
}
GREEDY: dict[str, Any] = {"model": "bundled", "max_tokens": 200, "extra_body": {"temperature": 0}}
TALE: dict[str, Any] = GREEDY | {"max_tokens": 20, "messages": STORY}
TOOLS: dict[str, Any] = GREEDY | {"tools": [WEATHER], "messages": QUESTION}
THINK: Any = {"type": "enabled", "budget_tokens": 1024}


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Anthropic]:
    url = server.url.removesuffix("/v1")
    with Anthropic(base_url=url, api_key="any", max_retries=0, timeout=300) as client:
        yield client


def without_ids(message: Any) -> dict[str, Any]:
    """What two answers to one request have in common."""
    described: dict[str, Any] = message.model_dump(exclude_none=True)
    for block in described["content"]:
        if block["type"] == "tool_use":
            assert block.pop("id").startswith("toolu_")
    assert described.pop("id").startswith("msg_")
    usage = described["usage"]
    usage["input_tokens"] += usage.pop("cache_read_input_tokens")
    return described


def test_streamed_text_is_the_whole_text(client: Anthropic) -> None:
    whole = client.messages.create(**TALE)
    with client.messages.stream(**TALE) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert whole.content[0].type == "text"
    assert text == whole.content[0].text
    assert without_ids(final) == without_ids(whole)
    assert whole.stop_reason == "max_tokens"
    assert whole.usage.output_tokens == 20
    assert (whole.type, whole.role, whole.model) == ("message", "assistant", "bundled")


def test_thinking_comes_first_and_signed(client: Anthropic) -> None:
    options = TOOLS | {"thinking": THINK}
    whole = client.messages.create(**options)
    with client.messages.stream(**options) as stream:
        types = [event.type for event in stream]
        final = stream.get_final_message()

    assert [block.type for block in whole.content] == ["thinking", "tool_use"]
    assert without_ids(final) == without_ids(whole)
    assert types.index("thinking") < types.index("signature") < types.index("input_json")
    assert whole.content[0].type == "thinking"
    assert whole.content[0].thinking
    assert whole.content[0].signature
    details = whole.usage.output_tokens_details
    assert details is not None
    assert 0 < details.thinking_tokens < whole.usage.output_tokens


def test_without_thinking_there_is_none(client: Anthropic) -> None:
    message = client.messages.create(**TOOLS, thinking={"type": "disabled"})

    assert [block.type for block in message.content] == ["tool_use"]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_tool_loop_of_two_steps(client: Anthropic, is_streamed: bool) -> None:
    def ask(messages: list[Any]) -> Any:
        options = TOOLS | {"messages": messages}
        if not is_streamed:
            return client.messages.create(**options)
        with client.messages.stream(**options) as stream:
            return stream.get_final_message()

    first = ask(QUESTION)
    assert first.stop_reason == "tool_use"
    [call] = first.content
    assert (call.name, call.input) == ("get_weather", {"city": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": '{"weather": "rain"}'}

    second = ask([*QUESTION, first.to_param(), {"role": "user", "content": [result]}])

    assert second.stop_reason == "end_turn"
    assert "rain" in second.content[0].text


def test_stop_sequences_end_an_answer_and_are_told(client: Anthropic) -> None:
    whole = client.messages.create(**TALE)
    assert whole.content[0].type == "text"
    text = whole.content[0].text
    word = text.split()[5]

    options = TALE | {"stop_sequences": ["never", word]}
    stopped = client.messages.create(**options)
    with client.messages.stream(**options) as stream:
        final = stream.get_final_message()

    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    assert stopped.content[0].type == "text"
    assert stopped.content[0].text == text[: text.index(word)]
    assert without_ids(final) == without_ids(stopped)


def test_an_answer_that_was_begun_is_gone_on_with(client: Anthropic) -> None:
    whole = client.messages.create(**TALE)
    assert whole.content[0].type == "text"
    text = whole.content[0].text
    begun = text[: text.index(" ", 15)]

    messages = [*STORY, {"role": "assistant", "content": begun}]
    rest = client.messages.create(**TALE | {"messages": messages, "max_tokens": 8})

    assert rest.content[0].type == "text"
    assert text.startswith(begun + rest.content[0].text)
    assert len(rest.content[0].text) > 10


def test_counted_tokens_are_those_of_the_message(client: Anthropic) -> None:
    counted = client.messages.count_tokens(
        model="bundled", messages=QUESTION, tools=[WEATHER], system="Be brief.", thinking=THINK
    )
    options = TOOLS | {"max_tokens": 1}
    message = client.messages.create(**options, system="Be brief.", thinking=THINK)

    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_a_nonce_at_the_head_of_the_system_prompt_leaves_the_cache_whole(
    client: Anthropic,
) -> None:
    def cached(nonce: str) -> int:
        header = f"x-anthropic-billing-header: cc_version=2.1.100.7b4; cch={nonce};"
        system: Any = [
            {"type": "text", "text": header},
            {"type": "text", "text": "You are an agent of many words. " * 20},
        ]
        usage = client.messages.create(**TOOLS | {"max_tokens": 1}, system=system).usage
        assert usage.input_tokens <= 16 or nonce == "first"
        return usage.cache_read_input_tokens or 0

    cached("first")

    assert cached("2a1b0") > 200
    assert cached("71fea") > 200


def test_errors_are_the_clients_own(client: Anthropic, server: RunningServer) -> None:
    def error_of(**fields: Any) -> Any:
        with pytest.raises(anthropic.APIStatusError) as error:
            client.messages.create(**(GREEDY | {"messages": STORY} | fields))
        return error.value

    bad = error_of(extra_body={"temperature": 9})
    missing = error_of(model="none")
    assert isinstance(bad, anthropic.BadRequestError)
    assert "temperature" in str(bad)
    assert bad.request_id
    assert isinstance(missing, anthropic.NotFoundError)
    assert isinstance(error_of(stream=True, max_tokens=-1), anthropic.BadRequestError)
    assert server.llm.get_num_unfinished_requests() == 0


def test_models_are_listed(client: Anthropic) -> None:
    assert [model.id for model in client.models.list()] == ["bundled", "alias"]
    assert client.models.retrieve("alias").display_name == "alias"


def test_raw_streams_end_and_carry_ids(client: Anthropic) -> None:
    raw = client.messages.with_raw_response.create(
        **TALE | {"max_tokens": 4}, stream=True, extra_headers={"X-Request-Id": "mine"}
    )
    types = [event.type for event in raw.parse()]

    assert raw.headers["request-id"] == raw.request_id == "mine"
    assert (types[0], types[-1]) == ("message_start", "message_stop")
    # The client keeps pings to itself.
    assert "ping" not in types


def test_a_client_that_leaves_ends_its_request(client: Anthropic, server: RunningServer) -> None:
    options = TALE | {"max_tokens": 1500, "extra_body": {"ignore_eos": True}}
    with client.messages.create(**options, stream=True) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                break

    while server.llm.get_num_unfinished_requests():
        time.sleep(0.01)
