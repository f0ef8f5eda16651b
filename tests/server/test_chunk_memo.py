"""Tokens that are told as they were told before: nobody can see that they were."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from played_core import PlayedCore, first, played_engine
from scripted_engine import Answer, call_app

from rillm.async_llm import AsyncLLM
from rillm.engine.messages import TokenDelta
from rillm.formats.events import ContentDelta
from rillm.formats.machine import Machine
from rillm.output_formats import choose_formats
from rillm.server.app import create_app
from rillm.server.chunk_memo import ChunkMemo, remember
from rillm.server.observed import ObservedApp
from rillm.streams import ChoiceDelta

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 999}
WITH_TOOL = HELLO | {
    "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
}
TEXT_BODY: dict[str, Any] = {"prompt": "A rill", "max_tokens": 999}
PIECES = [
    "The river runs down the hill.",
    " a  b \n\n c\n",
    "<think>",
    "</think>",
    '<tool_call>\n{"name": "look", "arguments": {"a": "b <c>"}}\n</tool_call>',
    "<tool_call>",
    "</tool_call>",
    "a < b, <i>, < tool <too",
    '<tool_calls>[{"name": "look", "arguments": {}}]</tool_calls>',
    "Here is my thought process: so Here is my response: so",
    "\N{WATER WAVE}\N{KISS MARK}",
    '"quoted" \\ \u2028 \x07',
    "<|im_end|>",
]
CALLS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, HELLO),
    (CHAT, WITH_TOOL),
    (CHAT, WITH_TOOL | {"chat_template_kwargs": {"enable_thinking": True}}),
    (CHAT, HELLO | {"skip_special_tokens": False}),
    (CHAT, HELLO | {"include_reasoning": False}),
    (CHAT, HELLO | {"stop": ["river runs", "b <"]}),
    (CHAT, HELLO | {"return_token_ids": True}),
    (CHAT, HELLO | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    (CHAT, HELLO | {"stream_interval": 3}),
    (TEXT, TEXT_BODY),
    (TEXT, TEXT_BODY | {"echo": True}),
]


@dataclass(frozen=True)
class Played:
    """An engine, its core, and applications over it."""

    engine: AsyncLLM
    core: PlayedCore
    app: ObservedApp
    """Markers of its format are tokens."""
    other_app: ObservedApp
    """Markers of its format are text."""


@pytest.fixture(scope="module")
def played() -> Iterator[Played]:
    with played_engine() as (engine, core):
        other = new_app(engine, tool_name="jamba", reasoning_name="granite")
        yield Played(engine, core, new_app(engine), other)


def new_app(engine: AsyncLLM, **names: str) -> ObservedApp:
    formats = choose_formats(engine.directory, engine.get_tokenizer(), "m", **names)
    return create_app(engine, model_names=["m"], model_root="m", formats=formats)


async def play(
    played: Played,
    call: tuple[str, dict[str, Any]],
    steps: Sequence[Sequence[int]],
    *,
    turns: Sequence[int] = (3,),
    pauses: Sequence[int] = (),
) -> Answer:
    """Send a request, and answer it in steps; `turns` of the event loop lie between them."""
    path, body = call
    body = {"stream_options": {"include_usage": True}} | body | {"model": "m", "stream": True}
    task = asyncio.create_task(call_app(played.app, path, body, pauses=iter(pauses)))
    request = await played.core.request()
    played.core.say(first(request, [], 0))
    for i, step in enumerate(steps):
        played.core.say(TokenDelta(request.request_id, 0, list(step)))
        for _ in range(turns[i % len(turns)]):
            await asyncio.sleep(0)
    played.core.say(TokenDelta(request.request_id, 0, [], "stop"))
    async with asyncio.timeout(30):
        return await task


def without_names(answer: Answer) -> bytes:
    """What was written, apart from ids and times."""
    assert answer.status == 200
    body = re.sub(rb'"id":"(chatcmpl|cmpl|call)[^"]*"', b'"id":""', answer.body)
    return re.sub(rb'"created":\d+', b'"created":0', body)


def told(answer: Answer) -> str:
    """All text of a streamed chat."""
    events = [event for event in answer.events()[:-1] if event["choices"]]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)


@settings(max_examples=400)
@given(
    st.booleans(),
    st.sampled_from(CALLS),
    st.lists(st.sampled_from(PIECES), max_size=8),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.lists(st.integers(0, 4), max_size=9),
)
async def test_nobody_can_tell_what_was_remembered(
    played: Played,
    is_other: bool,
    call: tuple[str, dict[str, Any]],
    pieces: list[str],
    sizes: list[int],
    turns: list[int],
    pauses: list[int],
) -> None:
    if is_other:
        played = replace(played, app=played.other_app)
    tokenizer = played.engine.get_tokenizer()
    ids = [token_id for piece in pieces for token_id in tokenizer.encode(piece)]
    single = [[token_id] for token_id in ids]
    cut, start = [], 0
    while start < len(ids):
        size = sizes[len(cut) % len(sizes)]
        cut.append(ids[start : start + size])
        start += size

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChunkMemo, "table", lambda *_: {})
        made = [await play(played, call, steps) for steps in (single, cut)]
    remembered = [await play(played, call, steps) for steps in (single, cut)]
    again = await play(played, call, single)
    hurried = await play(played, call, single, turns=turns, pauses=pauses)

    assert [without_names(each) for each in remembered] == [without_names(each) for each in made]
    assert without_names(again) == without_names(made[0])
    if call[0] == CHAT:
        assert told(hurried) == told(made[0])
        assert hurried.events()[-2] == made[0].events()[-2] | {
            name: hurried.events()[-2][name] for name in ("id", "created")
        }


async def test_known_tokens_are_not_parsed_again(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[str] = []
    feed = Machine.feed

    def counting(machine: Machine, text: str, token_ids: Sequence[int] = ()) -> Any:
        fed.append(text)
        return feed(machine, text, token_ids)

    ids = played.engine.get_tokenizer().encode("A small stream runs down to the river.")
    played = replace(played, app=new_app(played.engine))
    monkeypatch.setattr(Machine, "feed", counting)

    answers, counts = [], []
    for _ in range(3):
        fed.clear()
        answers.append(await play(played, (CHAT, WITH_TOOL), [[each] for each in ids]))
        counts.append(len(fed))

    assert counts[0] > len(set(ids)) > 4 > counts[1] == counts[2]
    assert without_names(answers[0]) == without_names(answers[1]) == without_names(answers[2])


@pytest.mark.parametrize("call", [CALLS[0], (TEXT, TEXT_BODY)])
async def test_tokens_are_counted_alike(played: Played, call: tuple[str, dict[str, Any]]) -> None:
    tokenizer = played.engine.get_tokenizer()
    ids = tokenizer.encode("<think>So, so, so it is.</think>It is so, so it is.")
    played = replace(played, app=new_app(played.engine))

    usages = []
    for _ in range(2):
        answer = await play(played, call, [[each] for each in ids])
        usages.append(answer.events()[-2]["usage"])
    metrics = (await call_app(played.app, "/metrics", b"", method="GET")).body.decode()

    assert usages[0] == usages[1]
    assert usages[0]["completion_tokens"] == len(ids)
    if call[0] == CHAT:
        assert 4 < usages[0]["completion_tokens_details"]["reasoning_tokens"] < len(ids)
    values = dict(re.findall(r"^(rillm:\w+(?:_total|_count))\{[^}]*\} (\S+)$", metrics, re.M))
    assert float(values["rillm:generation_tokens_total"]) == 2 * len(ids)
    assert float(values["rillm:inter_token_latency_seconds_count"]) == 2 * (len(ids) - 1)


async def test_what_hides_special_tokens_is_remembered_apart(played: Played) -> None:
    ids = played.engine.get_tokenizer().encode("so a<|im_end|>b a<|im_end|>b")
    shown = HELLO | {"skip_special_tokens": False}

    bodies = (shown, HELLO, shown)
    answers = [await play(played, (CHAT, body), [[each] for each in ids]) for body in bodies]

    texts = [told(answer) for answer in answers]
    assert texts == ["so a<|im_end|>b a<|im_end|>b", "so ab ab", "so a<|im_end|>b a<|im_end|>b"]


async def test_a_client_that_leaves_ends_the_request(played: Played) -> None:
    ids = played.engine.get_tokenizer().encode("so it is " * 20)
    played = replace(played, app=new_app(played.engine))
    await play(played, (CHAT, HELLO), [[each] for each in ids])
    gone = asyncio.Event()
    body = HELLO | {"model": "m", "stream": True}
    num_aborts = played.core.num_aborts

    task = asyncio.create_task(call_app(played.app, CHAT, body, disconnect=gone))
    request = await played.core.request()
    played.core.say(first(request, [ids[0]]))
    for token_id in ids[1:]:
        played.core.say(TokenDelta(request.request_id, 0, [token_id]))
        await asyncio.sleep(0)
    gone.set()
    answer = await task
    for token_id in ids:
        played.core.say(TokenDelta(request.request_id, 0, [token_id]))
    for _ in range(5):
        await asyncio.sleep(0)
    played.core.look()

    assert not answer.is_complete
    assert answer.body.count(b"content") > len(ids) // 2
    assert played.core.num_aborts == num_aborts + 1
    assert played.engine.get_num_unfinished_requests() == 0


async def test_an_abort_ends_a_stream_after_all_its_text(played: Played) -> None:
    ids = played.engine.get_tokenizer().encode("so it is so it is")
    played = replace(played, app=new_app(played.engine))
    await play(played, (CHAT, HELLO), [[each] for each in ids])

    body = HELLO | {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    headers = [("x-request-id", "mine")]
    task = asyncio.create_task(call_app(played.app, CHAT, body, headers=headers))
    request = await played.core.request()
    played.core.say(first(request, [ids[0]]))
    played.core.say(*[TokenDelta(request.request_id, 0, [each]) for each in ids[1:]])
    for _ in range(3):
        await asyncio.sleep(0)
    ended = await call_app(played.app, "/v1/requests/mine/cancel", b"{}")
    answer = await task

    assert ended.status == 200
    assert told(answer) == "so it is so it is"
    assert answer.events()[-2]["usage"]["completion_tokens"] == len(ids)
    assert answer.events()[-3]["choices"][0]["finish_reason"] == "abort"


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    memo = ChunkMemo()
    tables = [memo.table(state, "x") for state in range(100)]

    assert memo.table(99, "x") is tables[99]
    assert memo.table(0, "x") is not tables[0]
    assert memo.table(99, "y") is not tables[99]

    monkeypatch.setattr("rillm.server.chunk_memo._MAX_TOKENS", 2)
    table: dict[int, bytes] = {}
    for token_id in range(5):
        remember(table, [ChoiceDelta(0, [ContentDelta("a")], [token_id], None)], b"h", b"hx")
    assert table == {0: b"x", 1: b"x"}
