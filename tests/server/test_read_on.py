"""Streams that go on without their readers: who may read on, from where, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scripted_engine import Answer, ScriptedEngine, call_app, delta, new_app
from starlette.types import ASGIApp

from rillm.errors import EngineGenerateError, InvalidRequestError
from rillm.server.options import HttpOptions

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
SCRIPT = [[delta(0, f"{i}")] for i in range(6)]
END = [delta(0, "", [], "stop")]
CONTINUE = ("x-on-disconnect", "continue")
NAMED = ("x-request-id", "mine")


async def get(app: ASGIApp, path: str, *headers: tuple[str, str]) -> Answer:
    path, _, query = path.partition("?")
    return await call_app(app, path, b"", method="GET", headers=headers, query=query.encode())


async def read_a_part(app: ASGIApp, *headers: tuple[str, str]) -> Answer:
    """Ask, and leave in the middle of the answer."""
    gone = asyncio.Event()
    return await call_app(
        app,
        CHAT,
        HELLO,
        headers=headers,
        disconnect=gone,
        on_write=lambda chunk: gone.set() if b'"2"' in chunk else None,
    )


def ids(answer: Answer) -> list[str]:
    return [line[4:] for line in answer.body.decode().splitlines() if line.startswith("id: ")]


def blocks(answer: Answer) -> list[bytes]:
    return answer.body.removesuffix(b"\n\n").split(b"\n\n")


async def test_a_reader_that_leaves_misses_nothing() -> None:
    engine = ScriptedEngine(*SCRIPT, END)
    app = new_app(engine)

    cut = await read_a_part(app, CONTINUE, NAMED)
    whole = await get(app, "/v1/streams/mine")
    rest = await get(app, "/v1/streams/mine", ("last-event-id", ids(cut)[-1]))
    repeated = await call_app(app, CHAT, HELLO, headers=[("last-event-id", ids(cut)[-1])])
    from_two = await get(app, "/v1/streams/mine?from=2")

    assert not cut.is_complete
    assert whole.is_complete
    assert whole.headers["x-request-id"] == "mine"
    assert whole.headers["content-type"].startswith("text/event-stream")
    assert cut.body + rest.body == whole.body
    assert repeated.body == rest.body
    tag = ids(whole)[0].partition(":")[0]
    assert ids(whole) == [f"{tag}:{number}" for number in range(len(blocks(whole)))]
    assert blocks(whole)[2:] == blocks(from_two)
    assert blocks(whole)[-1].endswith(b"data: [DONE]")
    assert len(engine.seen) == 1
    assert engine.num_live == 0


async def test_last_event_id_wins_over_the_address() -> None:
    app = new_app(ScriptedEngine(*SCRIPT, END))
    whole = await call_app(app, CHAT, HELLO, headers=[CONTINUE, NAMED])

    again = await get(app, "/v1/streams/mine?from=1", ("last-event-id", ids(whole)[4]))
    nothing = await get(app, "/v1/streams/mine", ("last-event-id", ids(whole)[-1]))

    assert blocks(again) == blocks(whole)[5:]
    assert nothing.status == 200
    assert nothing.body == b""


async def test_without_the_wish_a_stream_ends_with_its_reader() -> None:
    engine = ScriptedEngine(*SCRIPT, holds=True)
    app = new_app(engine)

    answer = await read_a_part(app, NAMED)

    assert ids(answer) == []
    assert engine.num_live == 0
    assert (await get(app, "/v1/streams/mine")).status == 404


async def test_the_server_may_decide_and_the_request_may_differ() -> None:
    app = new_app(ScriptedEngine(*SCRIPT, END), HttpOptions(on_disconnect="continue"))

    kept = await call_app(app, CHAT, HELLO, headers=[NAMED])
    plain = await call_app(app, CHAT, HELLO, headers=[("x-on-disconnect", "abort")])

    assert ids(kept)
    assert ids(plain) == []


async def test_a_stream_that_is_left_too_long_is_aborted() -> None:
    engine = ScriptedEngine(*SCRIPT, holds=True)
    app = new_app(engine, HttpOptions(resume_seconds=0.05))

    await read_a_part(app, CONTINUE, NAMED)
    assert engine.num_live == 1
    while engine.num_live:  # noqa: ASYNC110 - no event of ours to wait for
        await asyncio.sleep(0.01)

    answer = await get(app, "/v1/streams/mine")
    assert answer.status == 404
    assert answer.json()["error"]["type"] == "NotFoundError"


async def test_a_reader_that_comes_back_stops_the_clock() -> None:
    engine = ScriptedEngine(*SCRIPT, holds=True)
    app = new_app(engine, HttpOptions(resume_seconds=0.5))
    left = asyncio.Event()
    await read_a_part(app, CONTINUE, NAMED)

    reading = asyncio.create_task(
        call_app(app, "/v1/streams/mine", b"", method="GET", disconnect=left)
    )
    await asyncio.sleep(0.8)
    assert engine.num_live == 1
    left.set()
    await reading
    while engine.num_live:  # noqa: ASYNC110 - no event of ours to wait for
        await asyncio.sleep(0.01)


async def test_a_failure_is_kept_and_numbered_too() -> None:
    app = new_app(ScriptedEngine(*SCRIPT, EngineGenerateError("broken")))
    first = await call_app(app, CHAT, HELLO, headers=[CONTINUE, NAMED])

    again = await get(app, "/v1/streams/mine")

    assert again.body == first.body
    assert blocks(again)[-2].partition(b"\n")[2].startswith(b'data: {"error"')
    assert len(ids(again)) == len(blocks(again))


async def test_a_refusal_keeps_its_status_and_nothing_else() -> None:
    app = new_app(ScriptedEngine(InvalidRequestError("no", param="prompt")))

    refused = await call_app(app, CHAT, HELLO, headers=[CONTINUE, NAMED])

    assert refused.status == 400
    assert refused.json()["error"]["param"] == "prompt"
    assert (await get(app, "/v1/streams/mine")).status == 404


@pytest.mark.parametrize(
    ("path", "headers", "status", "param"),
    [
        ("/v1/streams/mine?from=99", [], 400, "from"),
        ("/v1/streams/mine?from=-1", [], 400, "from"),
        ("/v1/streams/mine?from=x", [], 400, "from"),
        ("/v1/streams/mine", [("last-event-id", "tag:999")], 400, "from"),
        ("/v1/streams/mine", [("last-event-id", "tag:")], 400, "Last-Event-ID"),
        ("/v1/streams/mine", [("last-event-id", "tag:1" + "0" * 40)], 400, "Last-Event-ID"),
        ("/v1/streams/yours", [], 404, None),
    ],
)
async def test_what_cannot_be_read_on_is_refused(
    path: str, headers: list[tuple[str, str]], status: int, param: str | None
) -> None:
    app = new_app(ScriptedEngine(*SCRIPT, END))
    await call_app(app, CHAT, HELLO, headers=[CONTINUE, NAMED])

    answer = await get(app, path, *headers)

    assert answer.status == status
    assert answer.json()["error"]["param"] == param


async def test_a_repeated_request_whose_stream_is_gone_generates_nothing() -> None:
    engine = ScriptedEngine(*SCRIPT, END)

    answer = await call_app(new_app(engine), CHAT, HELLO, headers=[("last-event-id", "gone:3")])

    assert answer.status == 404
    assert engine.seen == []


async def test_another_wish_is_refused() -> None:
    engine = ScriptedEngine(*SCRIPT, END)

    answer = await call_app(new_app(engine), CHAT, HELLO, headers=[("x-on-disconnect", "stay")])

    assert answer.status == 400
    assert answer.json()["error"]["param"] == "X-On-Disconnect"
    assert engine.seen == []


async def test_unread_streams_go_when_there_are_too_many_bytes() -> None:
    app = new_app(ScriptedEngine(*SCRIPT, END), HttpOptions(resume_bytes=8000))

    for number in range(20):
        await call_app(app, CHAT, HELLO, headers=[CONTINUE, ("x-request-id", f"stream-{number}")])

    found = [(await get(app, f"/v1/streams/stream-{number}")).status for number in range(20)]
    assert found[0] == 404
    assert found[-1] == 200
    assert sorted(found, reverse=True) == found


async def test_a_reader_loses_nothing_when_there_are_too_many_bytes() -> None:
    app = new_app(ScriptedEngine(*[[delta(0, "x" * 500)] for _ in range(40)], END))
    whole = await call_app(app, CHAT, HELLO, headers=[CONTINUE])
    small = new_app(
        ScriptedEngine(*[[delta(0, "x" * 500)] for _ in range(40)], END),
        HttpOptions(resume_bytes=2000),
    )

    slow = await call_app(
        small, CHAT, HELLO, headers=[CONTINUE, NAMED], pauses=iter([3, 0, 50, 1, 7] * 20)
    )

    assert slow.is_complete
    assert len(blocks(slow)) == len(blocks(whole))
    assert slow.body.count(b"x" * 500) == 40
    assert (await get(small, "/v1/streams/mine?from=0")).status == 400


async def test_another_key_finds_nothing() -> None:
    app = new_app(ScriptedEngine(*SCRIPT, END), HttpOptions(api_key=("one", "two")))
    mine, yours = (("authorization", f"Bearer {key}") for key in ("one", "two"))
    whole = await call_app(app, CHAT, HELLO, headers=[CONTINUE, NAMED, mine])
    tag = ids(whole)[0].partition(":")[0]

    for name in ("mine", tag):
        assert (await get(app, f"/v1/streams/{name}", mine)).body == whole.body
        assert (await get(app, f"/v1/streams/{name}", yours)).status == 404
        assert (await get(app, f"/v1/streams/{name}")).status == 401
    for method, path in (("DELETE", "/v1/requests/mine"), ("POST", "/v1/requests/mine/cancel")):
        assert (await call_app(app, path, b"", method=method, headers=[yours])).status == 404
    deleted = await call_app(app, "/v1/requests/mine", b"", method="DELETE", headers=[mine])
    assert deleted.status == 200
    assert (await get(app, "/v1/streams/mine", mine)).status == 404


async def test_another_key_ends_nothing() -> None:
    engine = ScriptedEngine(*SCRIPT, holds=True)
    app = new_app(engine, HttpOptions(api_key=("one", "two")))
    gone = asyncio.Event()
    asked = asyncio.create_task(
        call_app(
            app,
            CHAT,
            HELLO,
            headers=[NAMED, ("authorization", "Bearer one")],
            disconnect=gone,
        )
    )
    await engine.arrivals.acquire()

    refused = await call_app(
        app, "/v1/requests/mine/cancel", b"", headers=[("authorization", "Bearer two")]
    )

    assert refused.status == 404
    assert engine.num_live == 1
    gone.set()
    await asked
