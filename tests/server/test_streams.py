from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import ScriptedEngine, delta

from rillm.errors import EngineGenerateError, InvalidRequestError
from rillm.formats.events import ContentDelta, Finish
from rillm.sampling_params import SamplingParams
from rillm.streams import EventStream, Generation


def generation(request_id: str = "r", n: int = 1) -> Generation:
    return Generation(
        prompt_token_ids=[1, 2, 3, 4], sampling_params=SamplingParams(n=n), request_id=request_id
    )


async def test_choices_are_numbered_over_prompts() -> None:
    engine = ScriptedEngine(
        [delta(0, "a"), delta(1, "b")],
        [delta(1, "", [], "length"), delta(0, "c", [8, 9], "stop", 9)],
    )
    stream = EventStream(engine, [generation("first", n=2), generation("second", n=2)])

    results = await stream.collect()

    assert [(each.index, each.content, each.token_ids) for each in results] == [
        (0, "ac", [7, 8, 9]),
        (1, "b", [7]),
        (2, "ac", [7, 8, 9]),
        (3, "b", [7]),
    ]
    assert [each.finish for each in results[:2]] == [Finish("stop", 9), Finish("length")]
    assert [seen[2] for seen in engine.seen] == ["first", "second"]


async def test_usage_counts_each_prompt_once_and_every_token() -> None:
    engine = ScriptedEngine([delta(0, "a"), delta(1, "b", [1, 2])], [delta(0, "", [3], "stop")])
    stream = EventStream(engine, [generation("first", n=2), generation("second", n=2)])

    await stream.collect()

    total, last = stream.usage(), stream.usage_of(3)
    assert (total.prompt_tokens, total.completion_tokens, total.cached_tokens) == (8, 8, 6)
    assert (last.prompt_tokens, last.completion_tokens, last.cached_tokens) == (4, 2, 3)


async def test_nothing_follows_a_choice_that_has_finished() -> None:
    engine = ScriptedEngine([delta(0, "a", finish="stop")], [delta(0, "b", finish="length")])

    async with aclosing(EventStream(engine, [generation()]).deltas()) as batches:
        events = [[each.events for each in deltas] async for deltas in batches]

    assert events == [[[ContentDelta("a"), Finish("stop")]]]


@pytest.mark.parametrize("num_prompts", [1, 3])
async def test_leaving_early_closes_every_request(num_prompts: int) -> None:
    engine = ScriptedEngine([delta(0, "a")], holds=True)
    stream = EventStream(engine, [generation(str(i)) for i in range(num_prompts)])

    async with aclosing(stream.deltas()) as batches:
        await anext(batches)
        assert engine.num_live == num_prompts

    assert engine.num_live == 0


@pytest.mark.parametrize("num_prompts", [1, 3])
async def test_cancelling_the_reader_closes_every_request(num_prompts: int) -> None:
    engine = ScriptedEngine(holds=True)
    stream = EventStream(engine, [generation(str(i)) for i in range(num_prompts)])
    reader = asyncio.create_task(stream.collect())
    for _ in range(num_prompts):
        await engine.arrivals.acquire()

    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    assert engine.num_live == 0


@pytest.mark.parametrize("num_prompts", [1, 3])
async def test_refusal_comes_before_any_output(num_prompts: int) -> None:
    engine = ScriptedEngine(InvalidRequestError("no", param="prompt"))
    stream = EventStream(engine, [generation(str(i)) for i in range(num_prompts)])

    with pytest.raises(InvalidRequestError, match="no"):
        await anext(stream.deltas())

    assert engine.num_live == 0


async def test_failure_in_the_middle_follows_what_was_generated() -> None:
    engine = ScriptedEngine([delta(0, "a")], EngineGenerateError("broken"))

    async with aclosing(EventStream(engine, [generation()]).deltas()) as batches:
        [received] = await anext(batches)
        with pytest.raises(EngineGenerateError):
            await anext(batches)

    assert received.events == [ContentDelta("a")]


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.text()), max_size=3), max_size=20))
def test_whole_answer_is_the_concatenation_of_the_stream(
    steps: list[list[tuple[int, str]]],
) -> None:
    script = [[delta(index, text) for index, text in step] for step in steps]

    async def read() -> tuple[list[str], list[str]]:
        streamed = [""] * 3
        stream = EventStream(ScriptedEngine(*script), [generation(n=3)])
        async with aclosing(stream.deltas()) as batches:
            async for deltas in batches:
                for each in deltas:
                    for event in each.events:
                        assert isinstance(event, ContentDelta)
                        streamed[each.index] += event.text
        whole = await EventStream(ScriptedEngine(*script), [generation(n=3)]).collect()
        return streamed, [result.content for result in whole]

    streamed, whole = asyncio.run(read())

    expected = ["".join(t for step in steps for i, t in step if i == index) for index in range(3)]
    assert streamed == whole == expected
