"""Responses without their callers, and what can be done with one that is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from response_events import PATH, Order, comparable, fold, get, parse
from scripted_engine import ScriptedEngine, call_app, delta, new_app
from starlette.types import ASGIApp

from rillm.errors import EngineGenerateError, InvalidRequestError
from rillm.server.responses import background

BACKGROUND: dict[str, Any] = {"input": "Hi", "background": True}
HELLO = ([delta(0, "Hel")], [delta(0, "lo")], [delta(0, "", (), "stop")])


async def status_of(app: ASGIApp, id: str) -> str:
    return str((await get(app, id)).json()["status"])


async def ended(app: ASGIApp, id: str) -> str:
    await get(app, id, "stream=true")
    return await status_of(app, id)


async def test_it_is_answered_at_once_and_goes_on() -> None:
    engine = ScriptedEngine(*HELLO)
    app = new_app(engine)

    made = (await call_app(app, PATH, BACKGROUND)).json()

    assert (made["status"], made["background"], made["output"]) == ("queued", True, [])
    assert await ended(app, made["id"]) == "completed"
    found = (await get(app, made["id"])).json()
    assert found["output"][0]["content"][0]["text"] == "Hello"
    whole = (await call_app(app, PATH, {"input": "Hi"})).json()
    assert comparable(found) == comparable(whole) | {"background": True}


async def test_its_events_are_those_of_a_stream_and_can_be_had_again_from_any_number() -> None:
    app = new_app(ScriptedEngine(*HELLO))

    answer = await call_app(app, PATH, BACKGROUND | {"stream": True})

    events = parse(answer.body)
    id = fold(events)["id"]
    assert [event["type"] for event in events[:3]] == [
        *("response.created", "response.queued", "response.in_progress")
    ]
    assert [event["response"]["status"] for event in events[:3]] == [
        *("queued", "queued", "in_progress")
    ]
    assert (await get(app, id)).json() == events[-1]["response"]
    for number in range(-1, len(events)):
        query = "stream=true" + (f"&starting_after={number}" if number >= 0 else "")
        again = await get(app, id, query)
        assert again.status == 200
        assert parse(again.body) == events[number + 1 :]


async def test_it_goes_on_when_its_reader_leaves_and_the_reader_may_come_back() -> None:
    gate = asyncio.Event()

    class Gated(ScriptedEngine):
        async def generate(self, *arguments: Any, **options: Any) -> Any:
            outputs = super().generate(*arguments, **options)
            async for output in outputs:
                yield output
                await gate.wait()

    engine = Gated(*HELLO)
    app = new_app(engine)
    left = asyncio.Event()
    first = await call_app(
        app,
        PATH,
        BACKGROUND | {"stream": True},
        disconnect=left,
        on_write=lambda data: left.set() if b"output_text.delta" in data else None,
    )
    seen = parse(first.body)
    id = seen[0]["response"]["id"]
    assert seen[-1]["type"] == "response.output_text.delta"
    assert engine.num_live == 1
    assert await status_of(app, id) == "in_progress"

    following = asyncio.create_task(get(app, id, f"stream=true&starting_after={len(seen) - 1}"))
    await asyncio.sleep(0)
    gate.set()
    rest = parse((await following).body)

    assert fold(seen + rest)["status"] == "completed"


async def test_several_readers_see_the_same() -> None:
    app = new_app(ScriptedEngine(*HELLO))
    id = (await call_app(app, PATH, BACKGROUND)).json()["id"]

    answers = await asyncio.gather(*(get(app, id, "stream=true") for _ in range(3)))

    assert len({answer.body for answer in answers}) == 1
    fold(parse(answers[0].body))


async def test_cancelled_it_ends_and_says_what_it_had() -> None:
    engine = ScriptedEngine([delta(0, "Hel")], holds=True)
    app = new_app(engine)
    told, seen = asyncio.Event(), list[str]()

    def see(data: bytes) -> None:
        seen.extend(each["response"]["id"] for each in parse(data) if "response" in each)
        if b"output_text.delta" in data:
            told.set()

    body = BACKGROUND | {"stream": True}
    following = asyncio.create_task(call_app(app, PATH, body, on_write=see))
    await told.wait()
    id = seen[0]

    cancelled = (await get(app, f"{id}/cancel", method="POST")).json()
    again = (await get(app, f"{id}/cancel", method="POST")).json()
    events = parse((await following).body)

    assert cancelled["status"] == "cancelled"
    assert cancelled == again == (await get(app, id)).json() == fold(events)
    [item] = cancelled["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Hel")
    assert engine.num_live == 0


async def test_cancelled_before_it_began_it_ends_too() -> None:
    engine = ScriptedEngine(*HELLO, holds=True)
    app = new_app(engine)
    id = (await call_app(app, PATH, BACKGROUND)).json()["id"]

    cancelled = (await get(app, f"{id}/cancel", method="POST")).json()

    assert cancelled["status"] == "cancelled"
    assert (await get(app, id)).json() == cancelled
    assert engine.num_live == 0


async def test_one_that_fails_says_so() -> None:
    app = new_app(ScriptedEngine([delta(0, "a")], EngineGenerateError("x")))

    answer = await call_app(app, PATH, BACKGROUND | {"stream": True})

    response = fold(parse(answer.body))
    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert (await get(app, response["id"])).json() == response


async def test_what_the_engine_refuses_fails_with_the_reason() -> None:
    app = new_app(ScriptedEngine(InvalidRequestError("x is wrong", param="x")))

    response = fold(parse((await call_app(app, PATH, BACKGROUND | {"stream": True})).body))

    assert response["error"] == {"code": "invalid_prompt", "message": "x is wrong"}


async def test_deleted_it_is_gone_and_ends() -> None:
    engine = ScriptedEngine([delta(0, "a")], holds=True)
    app = new_app(engine)
    id = (await call_app(app, PATH, BACKGROUND)).json()["id"]

    answer = (await get(app, id, method="DELETE")).json()

    assert answer == {"id": id, "object": "response", "deleted": True}
    assert engine.num_live == 0
    for path, method in ((id, "GET"), (id, "DELETE"), (f"{id}/cancel", "POST")):
        assert (await get(app, path, method=method)).status == 404


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("stream=yes", "stream"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("stream=true&starting_after=x", "starting_after"),
        ("stream=true&starting_after=10", "starting_after"),
        ("stream=true&starting_after=" + "9" * 5000, "starting_after"),
        ("starting_after=1", "starting_after"),
        ("stream=false&starting_after=1", "starting_after"),
    ],
)
async def test_refusals_of_a_stream_have_a_status_of_their_own(query: str, param: str) -> None:
    app = new_app(ScriptedEngine([delta(0, "a", finish="stop")]))
    answer = await call_app(app, PATH, BACKGROUND | {"stream": True})
    events = parse(answer.body)
    assert len(events) == 10

    refused = await get(app, events[0]["response"]["id"], query)

    assert (refused.status, refused.json()["error"]["param"]) == (400, param)


async def test_one_made_in_the_foreground_has_no_events_and_cannot_be_cancelled() -> None:
    app = new_app(ScriptedEngine(*HELLO))
    id = (await call_app(app, PATH, {"input": "Hi"})).json()["id"]

    for path, query, method in ((id, "stream=true", "GET"), (f"{id}/cancel", "", "POST")):
        answer = await get(app, path, query, method)
        assert answer.status == 400
        assert id in answer.json()["error"]["message"]


async def test_one_that_has_not_ended_is_nothing_to_go_on_from() -> None:
    app = new_app(ScriptedEngine([delta(0, "a")], holds=True))
    id = (await call_app(app, PATH, BACKGROUND)).json()["id"]

    answer = await call_app(app, PATH, {"input": "And?", "previous_response_id": id})

    assert (answer.status, answer.json()["error"]["param"]) == (400, "previous_response_id")
    await get(app, f"{id}/cancel", method="POST")


async def test_logs_of_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MAX_KEPT_BYTES", 1)
    app = new_app(ScriptedEngine(*HELLO))
    id = (await call_app(app, PATH, BACKGROUND)).json()["id"]
    await ended(app, id)
    for _ in range(3):
        await asyncio.sleep(0)

    answer = await get(app, id, "stream=true")

    assert (answer.status, answer.json()["error"]["param"]) == (400, "stream")
    assert await status_of(app, id) == "completed"


async def test_there_is_room_for_so_many_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MAX_LIVE", 1)
    engine = ScriptedEngine([delta(0, "a")], holds=True)
    app = new_app(engine)
    id = (await call_app(app, PATH, BACKGROUND)).json()["id"]

    refused = await call_app(app, PATH, BACKGROUND)
    await get(app, f"{id}/cancel", method="POST")
    accepted = await call_app(app, PATH, BACKGROUND)

    assert (refused.status, accepted.status) == (503, 200)
    await get(app, f"{accepted.json()['id']}/cancel", method="POST")


def test_the_order_of_events_is_checked() -> None:
    """The machine that the other tests trust refuses what is out of turn."""
    with pytest.raises(AssertionError):
        Order().take({"type": "response.in_progress", "sequence_number": 0})
