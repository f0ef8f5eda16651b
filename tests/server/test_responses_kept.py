"""Responses that are kept: what can be done with one, and what can be made of it."""

from __future__ import annotations

import asyncio

from response_events import PATH, get, parse
from scripted_engine import Answer, ScriptedEngine, call_app, delta, new_app

HELLO = ([delta(0, "Hel")], [delta(0, "lo")], [delta(0, "", (), "stop")])


async def test_what_is_not_stored_is_not_kept() -> None:
    app = new_app(ScriptedEngine(*HELLO))
    made = (await call_app(app, PATH, {"input": "Hi", "store": False})).json()

    assert (await get(app, made["id"])).status == 404
    body = {"input": "And?", "previous_response_id": made["id"]}
    answer = await call_app(app, PATH, body)
    assert (answer.status, answer.json()["error"]["param"]) == (404, "previous_response_id")
    assert made["id"] in answer.json()["error"]["message"]


async def test_a_stream_that_is_left_is_not_kept() -> None:
    app = new_app(ScriptedEngine(*HELLO, holds=True))
    left = asyncio.Event()

    answer = await call_app(
        app,
        PATH,
        {"input": "Hi", "stream": True},
        disconnect=left,
        on_write=lambda _: left.set(),
    )

    id = parse(answer.body)[0]["response"]["id"]
    assert (await get(app, id)).status == 404


async def test_a_response_is_there_when_its_end_is_told() -> None:
    """An agent goes on from a response the moment it has read its end."""
    app = new_app(ScriptedEngine(*HELLO))
    following: list[asyncio.Task[Answer]] = []

    def go_on(data: bytes) -> None:
        for event in parse(data):
            if event["type"] == "response.completed":
                body = {"input": "And?", "previous_response_id": event["response"]["id"]}
                following.append(asyncio.create_task(call_app(app, PATH, body)))

    for fields in ({}, {"background": True}):
        await call_app(app, PATH, {"input": "Hi", "stream": True} | fields, on_write=go_on)

    assert [(await each).status for each in following] == [200, 200]


async def test_a_conversation_goes_on_without_the_instructions_of_before() -> None:
    engine = ScriptedEngine([delta(0, "Hello.", finish="stop")])
    app = new_app(engine)
    ids: list[str] = []
    for text in ("One", "Two", "Three"):
        body = {"input": text, "instructions": f"Be {text}."}
        if ids:
            body["previous_response_id"] = ids[-1]
        ids.append((await call_app(app, PATH, body)).json()["id"])
    await get(app, ids[0], method="DELETE")
    body = {"input": "Four", "previous_response_id": ids[-1]}
    assert (await call_app(app, PATH, body)).status == 200

    prompts = [engine.get_tokenizer().decode(seen[0]["prompt_token_ids"]) for seen in engine.seen]
    places = [prompts[-1].index(each) for each in ("One", "Two", "Three", "Four")]
    assert places == sorted(places)
    assert prompts[-1].count("Hello.") == 3
    assert "Be " not in prompts[-1]
    assert prompts[-2].count("Be ") == 1


async def test_input_items_come_in_pages() -> None:
    app = new_app(ScriptedEngine([delta(0, "a", finish="stop")]))
    first = (await call_app(app, PATH, {"input": "0"})).json()
    sent = [{"role": "user", "content": str(i)} for i in range(2, 25)]
    body = {"input": sent, "previous_response_id": first["id"], "instructions": "not an item"}
    id = (await call_app(app, PATH, body)).json()["id"]

    async def texts(query: str) -> list[str]:
        page = (await get(app, f"{id}/input_items", query)).json()
        assert page["object"] == "list"
        assert page["first_id"] == page["data"][0]["id"]
        assert page["last_id"] == page["data"][-1]["id"]
        return [item["content"][0]["text"] for item in page["data"]]

    whole = ["0", "a", *map(str, range(2, 25))]
    assert await texts("order=asc&limit=100") == whole
    assert await texts("limit=100") == whole[::-1]
    assert await texts("") == whole[::-1][:20]
    seen: list[str] = []
    query = "limit=7"
    for _ in range(4):
        page = (await get(app, f"{id}/input_items", query)).json()
        seen += [item["content"][0]["text"] for item in page["data"]]
        query = f"limit=7&after={page['last_id']}"
    assert (seen, page["has_more"]) == (whole[::-1], False)
    for query, param in (
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=x", "after"),
    ):
        answer = await get(app, f"{id}/input_items", query)
        assert (answer.status, answer.json()["error"]["param"]) == (400, param)
    assert (await get(app, "resp_x/input_items")).status == 404


async def test_items_of_kept_responses_can_be_referred_to() -> None:
    engine = ScriptedEngine([delta(0, "Hello.", finish="stop")])
    app = new_app(engine)
    made = (await call_app(app, PATH, {"input": "Who?"})).json()
    [message] = made["output"]
    [asked] = (await get(app, f"{made['id']}/input_items")).json()["data"]

    refers = [{"type": "item_reference", "id": each["id"]} for each in (asked, message)]
    body = {"input": [*refers, {"role": "user", "content": "And?"}]}
    assert (await call_app(app, PATH, body)).status == 200
    missing = await call_app(app, PATH, {"input": [{"type": "item_reference", "id": "msg_1"}]})

    text = engine.get_tokenizer().decode(engine.seen[-1][0]["prompt_token_ids"])
    assert text.index("Who?") < text.index("Hello.") < text.index("And?")
    assert (missing.status, missing.json()["error"]["param"]) == (404, "input[0].id")
