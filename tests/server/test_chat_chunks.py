from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import BUNDLED_TOKENIZER, ScriptedEngine, parse_events

from rillm.formats.events import (
    ContentDelta,
    Finish,
    ReasoningDelta,
    StreamEvent,
    ToolCallArguments,
    ToolCallBegin,
    ToolCallEnd,
)
from rillm.outputs import Logprob, LogprobsDict
from rillm.sampling_params import SamplingParams
from rillm.server.chat_chunks import ChatAnswer, ChatChunkEncoder, chat_completion
from rillm.streams import ChoiceDelta, ChoiceResult, EventStream, Generation, ToolCall

ANSWER = ChatAnswer(id="chatcmpl-1", created=1, model="m", system_fingerprint="rillm-test")
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def new_stream(n: int = 1) -> EventStream:
    params = SamplingParams(n=n)
    generation = Generation(prompt_token_ids=[5, 6], sampling_params=params, request_id="r")
    return EventStream(ScriptedEngine(), [generation])


def choice_delta(
    *events: StreamEvent,
    index: int = 0,
    token_ids: list[int] | None = None,
    logprobs: list[LogprobsDict] | None = None,
) -> ChoiceDelta:
    return ChoiceDelta(index, list(events), token_ids or [], logprobs)


def encode(answer: ChatAnswer, *batches: list[ChoiceDelta], n: int = 1) -> list[Any]:
    encoder = ChatChunkEncoder(answer, new_stream(n), BUNDLED_TOKENIZER)
    return parse_events(b"".join([*map(encoder.encode, batches), encoder.end()]))


def role_chunk(index: int = 0) -> dict[str, Any]:
    choice = {
        "index": index,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    return {**HEAD, "choices": [choice], "prompt_token_ids": None, "prompt_text": None}


def delta_chunk(delta: dict[str, Any], index: int = 0, **values: Any) -> dict[str, Any]:
    choice = {
        "index": index,
        "delta": delta,
        "logprobs": None,
        "finish_reason": None,
        "token_ids": None,
    }
    return {**HEAD, "choices": [choice | values], "kv_transfer_params": None}


def finish_chunk(
    reason: str, index: int = 0, stop_reason: int | str | None = None, **values: Any
) -> dict[str, Any]:
    choice = {
        "index": index,
        "delta": {},
        "logprobs": None,
        "finish_reason": reason,
        "stop_reason": stop_reason,
        "token_ids": None,
        "weight_versions": None,
    }
    return {
        **HEAD,
        "choices": [choice | values],
        "system_fingerprint": "rillm-test",
        "kv_transfer_params": None,
    }


def test_plain_answer_is_role_content_finish_done() -> None:
    chunks = encode(
        ANSWER, [choice_delta(ContentDelta("Hi"))], [choice_delta(Finish("stop", "END"))]
    )

    assert chunks == [
        role_chunk(),
        delta_chunk({"content": "Hi"}),
        finish_chunk("stop", stop_reason="END"),
        "[DONE]",
    ]
    assert list(chunks[1]) == list(delta_chunk({}))
    assert list(chunks[2]["choices"][0]) == list(finish_chunk("stop")["choices"][0])


def test_text_and_finish_of_one_output_are_two_chunks() -> None:
    chunks = encode(ANSWER, [choice_delta(ContentDelta("Hi"), Finish("length"))])

    assert chunks == [
        role_chunk(),
        delta_chunk({"content": "Hi"}),
        finish_chunk("length"),
        "[DONE]",
    ]


def test_reasoning_has_its_own_key() -> None:
    chunks = encode(ANSWER, [choice_delta(ReasoningDelta("hm")), choice_delta(ContentDelta("A"))])

    assert [chunk["choices"][0]["delta"] for chunk in chunks[1:-1]] == [
        {"reasoning_content": "hm"},
        {"content": "A"},
    ]


@pytest.mark.parametrize("fields", [(), ("reasoning",), ("reasoning_content", "reasoning")])
def test_reasoning_is_told_under_the_names_asked_for(fields: tuple[str, ...]) -> None:
    answer = replace(ANSWER, reasoning_fields=fields)
    chunks = encode(answer, [choice_delta(ReasoningDelta("hm"), ContentDelta("A"))])

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[1:-1]]
    assert deltas == [*([dict.fromkeys(fields, "hm")] if fields else []), {"content": "A"}]


def test_tool_call_names_itself_once() -> None:
    chunks = encode(
        ANSWER,
        [choice_delta(ContentDelta("Let me see. "), ToolCallBegin(0, "call-1", "weather"))],
        [choice_delta(ToolCallArguments(0, '{"city": '))],
        [choice_delta(ToolCallArguments(0, '"Oslo"}'), ToolCallEnd(0))],
        [choice_delta(Finish("tool_calls"))],
    )

    function = {"name": "weather", "arguments": ""}
    begin = {"id": "call-1", "type": "function", "index": 0, "function": function}
    assert chunks == [
        role_chunk(),
        delta_chunk({"content": "Let me see. "}),
        delta_chunk({"tool_calls": [begin]}),
        delta_chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]}),
        delta_chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]}),
        finish_chunk("tool_calls"),
        "[DONE]",
    ]


def test_call_cut_off_by_length_finishes_with_length() -> None:
    chunks = encode(ANSWER, [choice_delta(ToolCallBegin(0, "call-1", "weather"), Finish("length"))])

    assert chunks[-2] == finish_chunk("length")


def test_usage_chunk_has_no_choices_and_comes_last() -> None:
    answer = replace(ANSWER, include_usage=True)

    chunks = encode(answer, [choice_delta(Finish("stop"))])

    assert "system_fingerprint" not in chunks[-3]
    assert chunks[-2:] == [
        {
            **HEAD,
            "choices": [],
            "usage": {
                "prompt_tokens": 2,
                "total_tokens": 2,
                "completion_tokens": 0,
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
            "system_fingerprint": "rillm-test",
        },
        "[DONE]",
    ]


def test_token_ids_are_told_once_even_when_there_is_no_text_for_them() -> None:
    answer = replace(ANSWER, return_token_ids=True)

    chunks = encode(
        answer,
        [choice_delta(token_ids=[1])],
        [choice_delta(ContentDelta("é"), Finish("length"), token_ids=[2, 3])],
    )

    assert chunks[0]["prompt_token_ids"] == [5, 6]
    assert chunks[1:] == [
        delta_chunk({}, token_ids=[1]),
        delta_chunk({"content": "é"}, token_ids=[2, 3]),
        finish_chunk("length", token_ids=[]),
        "[DONE]",
    ]


def test_logprobs_list_the_most_probable_tokens_and_have_no_infinity() -> None:
    answer = replace(ANSWER, top_logprobs=1)
    sampled, best, never = (BUNDLED_TOKENIZER.encode(text)[0] for text in "abc")
    position = {
        sampled: Logprob(-2.0, 2),
        best: Logprob(-0.5, 1),
        never: Logprob(float("-inf"), 3),
    }

    chunks = encode(
        answer, [choice_delta(ContentDelta("a"), token_ids=[sampled], logprobs=[position])]
    )
    all_of_them = encode(
        replace(answer, top_logprobs=-1),
        [choice_delta(ContentDelta("a"), token_ids=[sampled], logprobs=[position])],
    )

    assert chunks[1]["choices"][0]["logprobs"] == {
        "content": [
            {
                "token": "a",
                "logprob": -2.0,
                "bytes": [97],
                "top_logprobs": [{"token": "b", "logprob": -0.5, "bytes": [98]}],
            }
        ]
    }
    top = all_of_them[1]["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert [entry["logprob"] for entry in top] == [-0.5, -2.0, -9999.0]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
    )
)
def test_any_text_of_any_choice_arrives_as_it_was(pieces: list[tuple[int, str]]) -> None:
    batches = [[choice_delta(ContentDelta(text), index=index)] for index, text in pieces]

    chunks = encode(ANSWER, *batches, n=3)

    for index in range(3):
        received = [
            chunk["choices"][0]["delta"]["content"]
            for chunk in chunks[:-1]
            if chunk["choices"][0]["index"] == index
        ]
        assert "".join(received) == "".join(text for i, text in pieces if i == index)


def test_whole_message_of_a_call_without_text_has_null_content() -> None:
    result = ChoiceResult(
        index=0,
        reasoning="hm",
        tool_calls=[ToolCall("call-1", "weather", '{"city": "Oslo"}')],
        finish=Finish("tool_calls"),
    )

    [body] = parse_events(
        b"data: " + chat_completion(ANSWER, new_stream(), [result], BUNDLED_TOKENIZER) + b"\n\n"
    )

    assert body["choices"][0] == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "tool_calls": [
                {
                    "id": "call-1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                }
            ],
            "reasoning_content": "hm",
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
        "stop_reason": None,
        "token_ids": None,
        "routed_experts": None,
        "weight_versions": None,
    }
