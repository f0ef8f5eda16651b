"""The official client against the bundled model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from running_server import RunningServer

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Tell me a story."}]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url, api_key="any", max_retries=0, timeout=60) as client:
        yield client


def test_streamed_chat_is_the_whole_chat(client: OpenAI) -> None:
    options = {"model": "bundled", "messages": MESSAGES, "temperature": 0, "max_tokens": 24}

    whole = client.chat.completions.create(**options)
    stream = client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)

    choices = [chunk.choices[0] for chunk in chunks[:-1]]
    assert "".join(choice.delta.content or "" for choice in choices) == (
        whole.choices[0].message.content
    )
    assert choices[0].delta.role == "assistant"
    assert [c.finish_reason for c in choices] == [None] * (len(choices) - 1) + [
        whole.choices[0].finish_reason
    ]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    usage = chunks[-1].usage
    assert chunks[-1].choices == []
    assert usage is not None
    assert whole.usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
        whole.usage.total_tokens,
    )


def test_three_streamed_choices_are_the_three_whole_ones(client: OpenAI) -> None:
    options = {
        "model": "bundled",
        "messages": MESSAGES,
        "temperature": 1,
        "seed": 11,
        "n": 3,
        "max_tokens": 16,
    }

    whole = client.chat.completions.create(**options)
    texts = [""] * 3
    finishes: list[list[str]] = [[], [], []]
    for chunk in client.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finishes[choice.index].append(choice.finish_reason)

    assert texts == [choice.message.content for choice in whole.choices]
    assert finishes == [[choice.finish_reason] for choice in whole.choices]
    assert len(set(texts)) > 1
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_the_clients_own_accumulator_understands_the_stream(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="bundled", messages=MESSAGES, temperature=0, max_tokens=12
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        whole = stream.current_completion_snapshot

    assert whole.choices[0].finish_reason == "length"
    assert whole.choices[0].message.content == "".join(deltas)


def test_streamed_completion_is_the_whole_completion(client: OpenAI) -> None:
    options = {
        "model": "alias",
        "prompt": ["Once upon a time", "A small"],
        "temperature": 0,
        "max_tokens": 10,
    }

    whole = client.completions.create(**options)
    texts = [""] * 2
    usage = None
    for chunk in client.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text

    assert texts == [choice.text for choice in whole.choices]
    assert whole.model == "alias"
    assert usage == whole.usage


def test_token_ids_are_a_prompt_like_their_text(client: OpenAI, server: RunningServer) -> None:
    token_ids = server.llm.get_tokenizer().encode("Once upon a time")

    answers = [
        client.completions.create(model="bundled", prompt=prompt, temperature=0, max_tokens=6)
        for prompt in ("Once upon a time", token_ids, [token_ids])
    ]

    assert len({answer.choices[0].text for answer in answers}) == 1


def test_stop_string_is_named_and_left_out(client: OpenAI) -> None:
    options = {"model": "bundled", "messages": MESSAGES, "temperature": 0, "max_tokens": 24}
    text = client.chat.completions.create(**options).choices[0].message.content
    assert text is not None
    stop = text[len(text) // 2 :][:4]

    stopped = client.chat.completions.create(**options, stop=[stop]).choices[0]
    streamed = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(**options, stop=stop, stream=True)
    )

    assert stopped.message.content == streamed == text[: text.index(stop)]
    assert (stopped.finish_reason, stopped.model_extra) == (
        "stop",
        {**(stopped.model_extra or {}), "stop_reason": stop},
    )


def test_chat_logprobs_spell_the_text(client: OpenAI) -> None:
    options = {
        "model": "bundled",
        "messages": MESSAGES,
        "temperature": 0,
        "max_tokens": 8,
        "logprobs": True,
        "top_logprobs": 2,
    }

    whole = client.chat.completions.create(**options).choices[0]
    streamed = [
        entry
        for chunk in client.chat.completions.create(**options, stream=True)
        if chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content or []
    ]

    assert whole.logprobs is not None
    assert whole.logprobs.content is not None
    spelled = b"".join(bytes(entry.bytes or ()) for entry in whole.logprobs.content)
    assert whole.message.content is not None
    assert spelled.decode().startswith(whole.message.content)
    assert [entry.token for entry in streamed] == [e.token for e in whole.logprobs.content]
    for entry in whole.logprobs.content:
        assert [top.logprob for top in entry.top_logprobs] == sorted(
            (top.logprob for top in entry.top_logprobs), reverse=True
        )
        # Greedy: the token itself is the best one.
        assert entry.top_logprobs[0].token == entry.token
        assert len(entry.top_logprobs) == 2


def test_echoed_prompt_is_scored_and_offsets_run_on(client: OpenAI) -> None:
    answer = client.completions.create(
        model="bundled", prompt="Once upon a time", echo=True, logprobs=1, max_tokens=3
    )

    choice = answer.choices[0]
    assert choice.text.startswith("Once upon a time")
    assert choice.logprobs is not None
    tokens, offsets = choice.logprobs.tokens or [], choice.logprobs.text_offset or []
    assert "".join(tokens).startswith(choice.text)
    assert [choice.text[at : at + len(token)] for at, token in zip(offsets, tokens, strict=True)][
        :4
    ] == tokens[:4]
    assert answer.usage is not None
    assert len(tokens) == answer.usage.total_tokens
    assert (choice.logprobs.token_logprobs or [0])[0] is None


def test_same_prompt_again_is_found_in_the_prefix_cache(client: OpenAI) -> None:
    options = {
        "model": "bundled",
        "messages": [{"role": "user", "content": "The same long question again. " * 8}],
        "temperature": 0,
        "max_tokens": 2,
    }

    first, second = (client.chat.completions.create(**options).usage for _ in range(2))

    assert first is not None
    assert first.prompt_tokens_details is not None
    assert second is not None
    assert second.prompt_tokens_details is not None
    cached = second.prompt_tokens_details.cached_tokens
    assert first.prompt_tokens_details.cached_tokens == 0
    assert cached is not None
    assert 0 < cached < second.prompt_tokens


def test_unknown_model_is_the_clients_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody", messages=MESSAGES)

    assert caught.value.body == {
        "message": "The model 'nobody' does not exist; this server has 'bundled', 'alias'",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


def test_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["bundled", "alias"]
    assert client.models.retrieve("alias").id == "alias"


async def test_client_that_leaves_a_stream_frees_its_request(server: RunningServer) -> None:
    async with openai.AsyncOpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="bundled",
            messages=MESSAGES,
            stream=True,
            max_tokens=1900,
            extra_body={"ignore_eos": True},
        )
        await anext(stream)
        with server.suspended():
            assert server.llm.get_num_unfinished_requests() == 1

            await stream.close()

            await _num_requests(server, 0)


async def test_client_that_leaves_before_a_whole_answer_frees_its_request(
    server: RunningServer,
) -> None:
    async with openai.AsyncOpenAI(base_url=server.url, api_key="any", max_retries=0) as client:
        with server.suspended():
            asking = asyncio.create_task(
                client.chat.completions.create(model="bundled", messages=MESSAGES, n=2)
            )
            await _num_requests(server, 1)

            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asking

            await _num_requests(server, 0)


async def _num_requests(server: RunningServer, expected: int) -> None:
    async with asyncio.timeout(10):
        # The server's loop runs in another thread: there is nothing here to wait on.
        while server.llm.get_num_unfinished_requests() != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
