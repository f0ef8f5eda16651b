"""What an answer becomes on the wire: the same Replies put together, however the stream is cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from contract import chat, classes, predict_options
from folded import GoConsumer, Seen, fold
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import TOKENIZER, SpokenEngine, loaded_backend, speaking

from rillm.errors import CapacityError, EngineDeadError, EngineGenerateError
from rillm.localai.backend_pb2 import PredictOptions
from rillm.streams import EventStream

pytestmark = pytest.mark.usefixtures("one_event_loop")

PLUGINS = Path(__file__).parents[1] / "formats" / "plugins"
TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": name,
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
        for name in ("get_weather", "get_time")
    ]
)
THINK = {"enable_thinking": "true"}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Århus"}}\n</tool_call>'
SECOND = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
WEATHER, TIME = ("get_weather", '{"city": "Århus"}'), ("get_time", "{}")

# What is said; whether tools are offered and reasoning is on; content, reasoning, calls.
ANSWERS: dict[str, tuple[str, bool, bool, str, str, list[tuple[str, str]]]] = {
    "plain": ("A tide turns.", False, False, "A tide turns.", "", []),
    "plain with tools": ("A tide turns.", True, False, "A tide turns.", "", []),
    "characters of several tokens": ("🌊 é 漢 🦊🏽", True, False, "🌊 é 漢 🦊🏽", "", []),
    "a call": (CALL, True, False, "", "", [WEATHER]),
    "two calls": (f"{CALL}\n{SECOND}", True, False, "", "", [WEATHER, TIME]),
    "text, then a call": (f"I look.\n{CALL}", True, False, "I look.", "", [WEATHER]),
    "an end that could begin a call": ("2 is <", True, False, "2 is <", "", []),
    "an end that could begin a list": ("see [", True, False, "see [", "", []),
    "JSON": ('{"name": "Bob", "age": 3}', True, False, '{"name": "Bob", "age": 3}', "", []),
    "a call without tools": ("<tool_call>", False, False, "<tool_call>", "", []),
    "reasoning, then content": (
        "<think>\nhm\n</think>\n\nYes.",
        True,
        True,
        "Yes.",
        "hm",
        [],
    ),
    "reasoning, then a call": (f"<think>\nhm\n</think>\n\n{CALL}", True, True, "", "hm", [WEATHER]),
    "reasoning without an end": ("<think>\nhm, so", True, True, "", "hm, so", []),
    "reasoning without tools": ("<think>\nhm\n</think>\n\nYes.", False, True, "Yes.", "hm", []),
    "nothing": ("", True, False, "", "", []),
}


def asked(has_tools: bool, thinks: bool, **options: Any) -> dict[str, Any]:
    """A chat, as LocalAI sends it."""
    tools = {"Tools": TOOLS, "ToolChoice": '"auto"'} if has_tools else {}
    return chat("Well?", Metadata=THINK if thinks else {}, **(tools | options))


async def replies_of(
    engine: SpokenEngine, options: dict[str, Any], *loaded_with: str
) -> tuple[list[Any], Any]:
    """PredictStream and Predict of one request, without gRPC."""
    request = PredictOptions.FromString(predict_options(**options).SerializeToString())
    streamed: list[Any] = []

    async def write(reply: Any) -> None:
        streamed.append(classes["Reply"].FromString(reply.SerializeToString()))

    async with loaded_backend(engine, *loaded_with) as backend:
        await backend.predict_stream(request, write)
        whole = await backend.predict(request)
    return streamed, classes["Reply"].FromString(whole.SerializeToString())


@pytest.mark.parametrize("name", ANSWERS)
@settings(max_examples=12)
@given(sizes=st.lists(st.integers(1, 9), max_size=4))
async def test_an_answer_is_the_same_however_it_is_cut(name: str, sizes: list[int]) -> None:
    said, has_tools, thinks, content, reasoning, calls = ANSWERS[name]
    engine = SpokenEngine(said, sizes=sizes)

    streamed, whole = await replies_of(engine, asked(has_tools, thinks))

    for replies in (streamed, [whole]):
        answer = fold(replies)
        assert (answer.content, answer.reasoning) == (content, reasoning)
        assert answer.named_calls() == calls
        assert answer.tokens == len(engine.said)
    assert fold(streamed).kinds == fold([whole]).kinds


@pytest.mark.parametrize("deltas_only", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
async def test_clients_of_localai_get_what_clients_over_http_get(
    name: str, deltas_only: bool
) -> None:
    """But for two things that LocalAI does by itself: see below."""
    said, has_tools, thinks, *_ = ANSWERS[name]
    engine = SpokenEngine(said)
    options = ("localai_message:deltas_only",) if deltas_only else ()

    streamed, _ = await replies_of(engine, asked(has_tools, thinks), *options)

    seen = GoConsumer(has_tools=has_tools).read(streamed)
    async with loaded_backend(engine) as backend:
        generation = await backend.generation(asked(has_tools, thinks))
    stream = EventStream(engine, [generation])
    (result,) = await stream.collect()
    usage = stream.usage()
    expected = Seen(
        result.content,
        result.reasoning,
        [(call.name, call.arguments) for call in result.tool_calls],
        result.finish.reason,
        (usage.prompt_tokens, usage.completion_tokens),
    )
    if not expected.content and not expected.calls:
        # An answer without content is asked for again, five times.
        expected.num_runs = 6
    if name == "JSON" and not deltas_only:
        # JSON in `message` is a call to LocalAI, whatever the ChatDeltas say.
        expected.calls, expected.finish_reason = [("Bob", "{}")], "tool_calls"
    assert seen == expected


@pytest.mark.parametrize("text", ["é🌊", "\ufffd"])
async def test_message_never_has_a_replacement_character(text: str) -> None:
    """LocalAI would wait for the rest of it, and show nothing that follows."""
    broken = TOKENIZER.token_id("ð")
    assert TOKENIZER.token_bytes(broken) == b"\xf0"
    said = [*TOKENIZER.encode(text), broken, *TOKENIZER.encode(" more")]

    async with speaking(SpokenEngine(said)) as client:
        replies = await client.replies(**asked(False, False))

    answer = fold(replies)
    assert answer.content == text.replace("\ufffd", "?") + "? more"
    assert GoConsumer(has_tools=False).read(replies).content == answer.content


async def test_deltas_only_leaves_message_alone_without_tools() -> None:
    engine = SpokenEngine("A tide.")
    async with speaking(engine, "localai_message:deltas_only") as client:
        assert fold(await client.replies(**asked(False, False))).content == "A tide."
        off = await client.replies(**asked(True, False, ToolChoice="none"))
        assert fold(off).content == "A tide."
        fold(await client.replies(**asked(True, False)), has_message=False)


async def test_text_and_arguments_are_sent_as_they_come() -> None:
    """One Reply a token where nothing could be markup, with the counts so far."""
    said = "The tide turns twice a day."
    async with speaking(SpokenEngine(said)) as client:
        replies = await client.replies(**asked(True, False))
        called = await client.replies(**asked(True, False, Tokens=1))
    num_tokens = len(TOKENIZER.encode(said))
    assert len(replies) == num_tokens + 1
    assert [reply.tokens for reply in replies[:-1]] == list(range(1, num_tokens + 1))
    assert fold(called).content == said

    async with speaking(SpokenEngine(CALL)) as client:
        replies = await client.replies(**asked(True, False))
    fragments = [call for reply in replies for d in reply.chat_deltas for call in d.tool_calls]
    assert (fragments[0].name, fragments[0].arguments) == ("get_weather", "")
    assert len(fragments) > 3


async def test_a_call_that_is_cut_off_ends_with_what_came_of_it() -> None:
    said = CALL[: CALL.index("hus")]
    async with speaking(SpokenEngine(said, finish="length")) as client:
        replies = await client.replies(**asked(True, False, Tokens=len(TOKENIZER.encode(said))))
    answer = fold(replies)
    assert answer.named_calls() == [("get_weather", '{"city": "År')]
    assert answer.tokens == len(TOKENIZER.encode(said))


@pytest.mark.parametrize(
    ("said", "content", "calls"),
    [
        # Nothing was said yet: the whole text is parsed at the end.
        ("!<call:tide>{}</call>", "!", [("tide", "{}")]),
        ("Oh! <call:tide>{}</call>", "Oh! <call:tide>{}</call>", []),
        (
            'See <call:tide>{"a": 1}</call> so! <call:x>',
            "See  so! <call:x>",
            [("tide", '{"a": 1}')],
        ),
        ("No call!", "No call!", []),
    ],
)
async def test_a_parser_that_fails_repeats_and_loses_nothing(
    said: str, content: str, calls: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure all is content, and what was said before is not said again."""
    monkeypatch.syspath_prepend(PLUGINS)
    options = (
        f"tool_parser_plugin:{PLUGINS / 'raises_midway_plugin.py'}",
        "tool_parser:raises_midway",
    )
    async with speaking(SpokenEngine(said, sizes=(1,)), *options) as client:
        answer = fold(await client.replies(**asked(True, False)))
        whole = fold([await client.predict(**asked(True, False))])
    assert (whole.content, whole.named_calls()) == (answer.content, answer.named_calls())
    assert (answer.content, answer.named_calls()) == (content, calls)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineGenerateError("no token"), grpc.StatusCode.INTERNAL),
        (KeyError("secret"), grpc.StatusCode.INTERNAL),
        (CapacityError("full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (EngineDeadError("gone"), grpc.StatusCode.UNAVAILABLE),
    ],
)
@pytest.mark.parametrize("num_before_error", [0, 3])
async def test_a_fault_ends_the_stream_and_sends_nothing_again(
    error: Exception, code: grpc.StatusCode, num_before_error: int
) -> None:
    engine = SpokenEngine("A tide turns twice.", error=error, num_before_error=num_before_error)
    replies: list[Any] = []
    async with speaking(engine) as client:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.replies(replies, **asked(True, False))
        assert (await client.health()) == b"OK"
    assert failure.value.code() is code
    assert "secret" not in (failure.value.details() or "")
    sent = b"".join(reply.message for reply in replies).decode()
    assert "A tide turns twice.".startswith(sent)
    assert len(replies) == num_before_error
    assert engine.num_live == 0


async def test_a_client_that_leaves_aborts_its_request_only() -> None:
    engine = SpokenEngine("A tide turns twice a day.", holds=True)
    async with speaking(engine) as client:
        others = client.stream(**asked(False, False))
        await anext(others)
        leaving = client.stream(**asked(False, False))
        for _ in range(4):
            await anext(leaving)
        assert engine.num_live == 2

        await leaving.aclose()
        await until(lambda: engine.num_live == 1)
        waiting = asyncio.create_task(client.predict(**asked(False, False)))
        await until(lambda: engine.num_live == 2)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: engine.num_live == 1)

        assert (await anext(others)).tokens == 2
        await others.aclose()
        await until(lambda: engine.num_live == 0)


async def until(condition: Any) -> None:
    """Wait for a condition; the test's own limit of time ends it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_the_template_gets_what_localai_knows() -> None:
    engine = SpokenEngine("Yes.")
    message = classes["Message"]
    calls = [
        {
            "index": 0,
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'},
        }
    ]
    messages = [
        message(role="system", content="Be brief."),
        message(role="user", content="Weather?"),
        message(role="assistant", reasoning_content="hm", tool_calls=json.dumps(calls)),
        message(role="tool", tool_call_id="call_1", name="get_weather", content="rain"),
    ]
    expected = TOKENIZER.apply_chat_template(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "reasoning_content": "hm", "content": "", "tool_calls": calls},
            {"role": "tool", "name": "get_weather", "tool_call_id": "call_1", "content": "rain"},
        ],
        tools=json.loads(TOOLS),
        enable_thinking=True,
    )

    async with speaking(engine) as client:
        await client.predict(
            UseTokenizerTemplate=True, Messages=messages, Tools=TOOLS, Metadata=THINK
        )

    assert engine.seen[0][0]["prompt_token_ids"] == TOKENIZER.encode(
        expected, add_special_tokens=False
    )


@pytest.mark.parametrize(
    ("metadata", "thinks"),
    [
        ({}, None),
        ({"enable_thinking": "true"}, True),
        ({"enable_thinking": "false"}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "low", "enable_thinking": "false"}, False),
        ({"enable_thinking": "true", "chat_template_kwargs": '{"enable_thinking":false}'}, False),
        ({"chat_template_kwargs": '{"enable_thinking":true}'}, True),
    ],
)
async def test_metadata_says_whether_to_think(
    metadata: dict[str, str], thinks: bool | None
) -> None:
    engine = SpokenEngine("Yes.")
    async with speaking(engine) as client:
        await client.predict(**chat("Well?", Metadata=metadata))
    variables = {} if thinks is None else {"enable_thinking": thinks}
    expected = TOKENIZER.encode_chat([{"role": "user", "content": "Well?"}], **variables)
    assert engine.seen[0][0]["prompt_token_ids"] == expected


async def test_a_rendered_prompt_is_taken_as_it_is() -> None:
    engine = SpokenEngine(f"<think>\nhm\n</think>\n\n{CALL}")
    prompt = "<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n"
    async with speaking(engine) as client:
        answer = fold(await client.replies(Prompt=prompt, Tools=TOOLS))
        opened = fold(await client.replies(Prompt=prompt + "<think>\n", Tools=TOOLS))
    assert engine.seen[0][0]["prompt_token_ids"] == TOKENIZER.encode(prompt)
    assert (answer.reasoning, answer.named_calls()) == ("hm", [WEATHER])
    # The prompt has opened the reasoning: what comes is inside of it.
    assert opened.reasoning.endswith("hm")


@pytest.mark.parametrize(
    ("choice", "shows_call"),
    [
        ("", True),
        ("auto", True),
        ('"auto"', True),
        ('"required"', True),
        ("required", True),
        ('{"type":"function","function":{"name":"get_weather"}}', True),
        ("none", False),
        ('"none"', False),
    ],
)
async def test_tool_choice_comes_in_two_encodings(choice: str, shows_call: bool) -> None:
    async with speaking(SpokenEngine(f"I look. {CALL}")) as client:
        answer = fold(await client.replies(**asked(True, False, ToolChoice=choice)))
    assert answer.named_calls() == ([WEATHER] if shows_call else [])
    assert answer.content.strip() == "I look."


@pytest.mark.parametrize(
    ("choice", "strict", "has_grammar"),
    [
        ("auto", False, False),
        ("none", True, False),
        ("required", False, True),
        ('{"type":"function","function":{"name":"get_time"}}', False, True),
        ("auto", True, True),
    ],
)
async def test_calls_are_held_to_a_grammar_where_that_is_asked_for(
    choice: str, strict: bool, has_grammar: bool
) -> None:
    engine = SpokenEngine(CALL)
    tools = json.loads(TOOLS)
    for tool in tools:
        tool["function"]["strict"] = strict
    async with speaking(engine) as client:
        await client.predict(**chat("Well?", Tools=json.dumps(tools), ToolChoice=choice))
    constraint = engine.seen[0][1].structured_outputs
    assert (constraint is not None) == has_grammar
    if constraint is not None:
        assert constraint.grammar is not None
        assert "get_time" in constraint.grammar
        assert ("get_weather" in constraint.grammar) == ("{" not in choice)


async def test_a_grammar_of_localai_wins_over_the_choice() -> None:
    engine = SpokenEngine("Yes.")
    async with speaking(engine) as client:
        await client.predict(**asked(True, False, ToolChoice="required", Grammar='root ::= "Yes."'))
    constraint = engine.seen[0][1].structured_outputs
    assert constraint is not None
    assert constraint.grammar == 'root ::= "Yes."'


async def test_a_choice_that_cannot_be_ensured_is_refused() -> None:
    engine = SpokenEngine("Yes.")
    async with speaking(engine, "tool_parser:none") as client:
        await client.predict(**asked(True, False, ToolChoice="auto"))
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.predict(**asked(True, False, ToolChoice="required"))
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "tool_choice forces a call" in (failure.value.details() or "")
    assert len(engine.seen) == 1


@pytest.mark.parametrize(
    ("sent", "engine_gets"),
    [
        ({"Temperature": 0.0}, {"temperature": 0.0}),
        ({"Temperature": 0.9}, {"temperature": 0.9}),
        ({"Tokens": 0}, {"max_tokens": None}),
        ({"Tokens": 7}, {"max_tokens": 7}),
        ({"TopK": 0}, {"top_k": 0}),
        ({"TopK": 40}, {"top_k": 40}),
        ({"TopP": 0.0}, {"top_p": 1.0}),
        ({"MinP": 0.25}, {"min_p": 0.25}),
        ({"Penalty": 0.0}, {"repetition_penalty": 1.0}),
        ({"Penalty": 1.5}, {"repetition_penalty": 1.5}),
        ({"FrequencyPenalty": 0.5}, {"frequency_penalty": 0.5}),
        ({"PresencePenalty": -0.5}, {"presence_penalty": -0.5}),
        ({"Seed": 0}, {"seed": 0}),
        ({"Seed": 17}, {"seed": 17}),
        ({"Seed": -1}, {"seed": None}),
        ({"StopPrompts": ["a", ""]}, {"stop": ["a"]}),
        ({"StopPrompts": []}, {"stop": None}),
        ({"IgnoreEOS": True}, {"ignore_eos": True}),
        ({"Logprobs": 2}, {"logprobs": 2}),
        ({"TopLogprobs": 3}, {"logprobs": 3}),
        ({"LogitBias": '{"5": -100, "6": 700}'}, {"logit_bias": {5: -100, 6: 100}}),
        ({"Mirostat": 0, "MirostatTAU": 5, "PromptCacheAll": True, "Threads": 4}, {}),
    ],
)
async def test_sampling_options_mean_what_they_mean_to_localai(
    sent: dict[str, Any], engine_gets: dict[str, Any]
) -> None:
    engine = SpokenEngine("Yes.")
    async with speaking(engine) as client:
        await client.predict(**chat("Well?", **sent))
    params = engine.seen[0][1]
    for name, value in engine_gets.items():
        assert getattr(params, name) == pytest.approx(value), name


BAD: Sequence[tuple[dict[str, Any], str]] = (
    ({"Temperature": 3.0}, "temperature"),
    ({"LogitBias": "{"}, "LogitBias"),
    ({"LogitBias": '{"a": 1}'}, "logit_bias"),
    ({"Tools": "no json"}, "Tools"),
    ({"Tools": '[{"type": "function"}]'}, "tools[0].function"),
    ({"Tools": TOOLS, "ToolChoice": '{"type":"function","function":{"name":"x"}}'}, "tool_choice"),
    ({"Tools": TOOLS, "ToolChoice": "{"}, "ToolChoice"),
    ({"Images": ["aGk="]}, "Images"),
    ({"Videos": ["aGk="]}, "Videos"),
    ({"Audios": ["aGk="]}, "Audios"),
    ({"Metadata": {"chat_template_kwargs": "[]"}}, "chat_template_kwargs"),
    ({"Metadata": {"chat_template_kwargs": '{"messages": []}'}}, "messages"),
    (
        {"Messages": [classes["Message"](role="assistant", tool_calls="{")]},
        "Messages[0].tool_calls",
    ),
)


@pytest.mark.parametrize(("sent", "named"), BAD, ids=lambda each: str(each)[:40])
async def test_what_cannot_be_served_is_refused_by_name(sent: dict[str, Any], named: str) -> None:
    engine = SpokenEngine("Yes.")
    async with speaking(engine) as client:
        options = chat("Well?") | sent
        for answer in (client.predict(**options), client.replies(**options)):
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await answer
            assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert named in (failure.value.details() or "")
    assert not engine.seen


async def test_thirty_two_streams_do_not_mix() -> None:
    async with speaking(SpokenEngine(f"I look. {CALL}")) as client:
        streams = await asyncio.gather(*(client.replies(**asked(True, False)) for _ in range(32)))
    ids = set()
    for replies in streams:
        answer = fold(replies)
        assert (answer.content, answer.named_calls()) == ("I look. ", [WEATHER])
        ids.add(answer.calls[0][0])
    assert len(ids) == 32
