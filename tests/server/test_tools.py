"""Tool calls and reasoning over HTTP: the wire contract that clients depend on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from scripted_engine import BUNDLED_TOKENIZER, SpeakingEngine, call

from rillm.formats.registry import combine
from rillm.output_formats import OutputFormats

FORMATS = OutputFormats(combine("hermes", "qwen3"), BUNDLED_TOKENIZER)
CHAT = "/v1/chat/completions"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "tide",
            "parameters": {"type": "object", "properties": {"port": {"type": "string"}}},
        },
    }
]
REQUEST = {"messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS, "stream": True}
TIDE = '<tool_call>\n{"name": "tide", "arguments": {"port": "Brést"}}\n</tool_call>'
MOON = '<tool_call>\n{"name": "moon", "arguments": {}}\n</tool_call>'


async def stream(
    *texts: str | list[int], finish: str = "stop", **fields: Any
) -> tuple[list[Any], Sequence[bytes]]:
    engine = SpeakingEngine(*texts, finish=finish, formats=FORMATS)
    answer = await call(engine, CHAT, {**REQUEST, "n": len(texts), **fields})
    assert answer.status == 200
    events = answer.events()
    assert events[-1] == "[DONE]"
    return events[:-1], answer.writes


def choices_of(chunks: Sequence[Any], index: int = 0) -> list[Any]:
    return [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]


def deltas_of(chunks: Sequence[Any], index: int = 0) -> list[Any]:
    return [choice["delta"] for choice in choices_of(chunks, index)]


async def whole(*texts: str | list[int], finish: str = "stop", **fields: Any) -> Any:
    engine = SpeakingEngine(*texts, finish=finish, formats=FORMATS)
    request = {**REQUEST, "stream": False, "n": len(texts), **fields}
    answer = await call(engine, CHAT, request)
    assert answer.status == 200
    return answer.json()


async def test_a_call_names_itself_once_then_streams_arguments() -> None:
    chunks, _ = await stream("Let me see.\n" + TIDE)

    deltas = deltas_of(chunks)
    assert deltas[0] == {"role": "assistant", "content": ""}
    first = next(i for i, delta in enumerate(deltas) if "tool_calls" in delta)
    assert "".join(delta["content"] for delta in deltas[1:first]) == "Let me see."
    [begin] = deltas[first]["tool_calls"]
    assert begin == {
        "index": 0,
        "id": begin["id"],
        "type": "function",
        "function": {"name": "tide", "arguments": ""},
    }
    rest = deltas[first + 1 : -1]
    assert len(rest) > 2
    for delta in rest:
        assert list(delta) == ["tool_calls"]
        [fragment] = delta["tool_calls"]
        assert list(fragment) == ["index", "function"]
        assert list(fragment["function"]) == ["arguments"]
    arguments = "".join(delta["tool_calls"][0]["function"]["arguments"] for delta in rest)
    assert arguments == '{"port": "Brést"}'
    assert deltas[-1] == {}
    assert [each["finish_reason"] for each in choices_of(chunks)][-2:] == [None, "tool_calls"]


async def test_no_chunk_has_an_empty_content_but_the_first() -> None:
    chunks, _ = await stream(f"<think>\nhm\n</think>\n\n{TIDE}\n{MOON}")

    assert [delta.get("content") for delta in deltas_of(chunks)[1:]].count("") == 0
    assert not any("content" in delta for delta in deltas_of(chunks)[1:])


async def test_reasoning_then_content_then_calls() -> None:
    message = (await whole(f"<think>\nhm\n</think>\n\nOne moment.\n{TIDE}\n{MOON}"))["choices"][0]

    assert message["finish_reason"] == "tool_calls"
    assert message["message"]["reasoning_content"] == "hm"
    assert message["message"]["content"] == "One moment."
    calls = message["message"]["tool_calls"]
    assert [each["function"]["name"] for each in calls] == ["tide", "moon"]
    assert [each["function"]["arguments"] for each in calls] == ['{"port": "Brést"}', "{}"]
    assert len({each["id"] for each in calls}) == 2


async def test_reasoning_tokens_are_counted() -> None:
    usage = (await whole("<think>\nhm hm hm\n</think>\n\nYes."))["usage"]

    details = usage["completion_tokens_details"]
    assert 3 <= details["reasoning_tokens"] < usage["completion_tokens"]


async def test_a_call_cut_off_by_length_is_not_reported_as_a_call() -> None:
    chunks, _ = await stream(TIDE[:-25], finish="length")

    assert choices_of(chunks)[-1]["finish_reason"] == "length"
    assert any("tool_calls" in delta for delta in deltas_of(chunks))


async def test_every_choice_has_a_state_of_its_own() -> None:
    texts = (TIDE, "Just words.", f"Both.\n{MOON}", "<think>a</think>b")
    chunks, _ = await stream(*texts)

    finishes = [choices_of(chunks, index)[-1]["finish_reason"] for index in range(4)]
    assert finishes == ["tool_calls", "stop", "tool_calls", "stop"]
    contents = [
        "".join(delta.get("content") or "" for delta in deltas_of(chunks, index))
        for index in range(4)
    ]
    assert contents == ["", "Just words.", "Both.", "b"]
    answer = await whole(*texts)
    assert [each["message"]["content"] or "" for each in answer["choices"]] == contents


async def test_plain_text_streams_as_without_tools() -> None:
    text = "The tide is high at noon, and low at six: 5 < 6. It turns again at midnight."
    with_tools, writes_with = await stream(text)
    without_tools, writes_without = await stream(text, tools=None)

    assert deltas_of(with_tools) == deltas_of(without_tools)
    assert [len(each) for each in writes_with] == [len(each) for each in writes_without]


async def test_markup_made_of_ordinary_tokens_is_text() -> None:
    encode = BUNDLED_TOKENIZER.encode
    quoted = [*encode("<tool"), *encode("_call>"), *encode('{"name": "tide"}')]
    assert BUNDLED_TOKENIZER.decode(quoted) == '<tool_call>{"name": "tide"}'

    answer = await whole(quoted)

    assert answer["choices"][0]["message"]["content"] == '<tool_call>{"name": "tide"}'
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_without_tools_calls_are_text() -> None:
    answer = await whole("<tool_call>\n{}\n</tool_call>", tools=None)

    assert answer["choices"][0]["message"]["content"] == "<tool_call>\n{}\n</tool_call>"


async def test_tool_choice_none_shows_neither_call_nor_markup() -> None:
    answer = await whole(f"Well.\n{TIDE}", tool_choice="none")

    message = answer["choices"][0]["message"]
    assert message["content"] == "Well."
    assert "tool_calls" not in message
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_parallel_tool_calls_false_lets_one_call_through() -> None:
    answer = await whole(f"{TIDE}\n{MOON}", parallel_tool_calls=False)

    [only] = answer["choices"][0]["message"]["tool_calls"]
    assert only["function"]["name"] == "tide"


async def test_include_reasoning_false_hides_it() -> None:
    chunks, _ = await stream("<think>\nhm\n</think>\n\nYes.", include_reasoning=False)

    assert [delta for delta in deltas_of(chunks) if "reasoning_content" in delta] == []
    assert "".join(delta.get("content", "") for delta in deltas_of(chunks)) == "Yes."


async def test_streamed_equals_whole() -> None:
    text = f"<think>\nhm\n</think>\n\nOne moment.\n{TIDE}\n{MOON} after"
    chunks, _ = await stream(text)
    message = (await whole(text))["choices"][0]["message"]

    deltas = deltas_of(chunks)
    assert "".join(delta.get("content") or "" for delta in deltas) == message["content"]
    reasoning = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    assert reasoning == message["reasoning_content"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"port": "Brést"}


async def test_tools_need_a_format_that_is_known() -> None:
    for formats in (None, OutputFormats(combine(None, "qwen3"), BUNDLED_TOKENIZER)):
        engine = SpeakingEngine("x", formats=formats)
        answer = await call(engine, CHAT, REQUEST)

        assert answer.status == 400
        assert answer.json()["error"]["param"] == "tools"
        assert "--tool-call-parser" in answer.json()["error"]["message"]
