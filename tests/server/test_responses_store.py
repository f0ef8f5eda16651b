"""Both stores keep the same promises: what is kept, what goes first, and for how long."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_engine import ScriptedEngine, call_app, delta, new_app

from rillm.errors import ConfigError
from rillm.server.options import HttpOptions
from rillm.server.responses.sqlite_store import SqliteStore
from rillm.server.responses.store import MemoryStore, StoreBounds

PATH = "/v1/responses"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


NewStore = Callable[..., Any]


@pytest.fixture(params=["memory", "sqlite"])
def new_store(request: pytest.FixtureRequest) -> Iterator[NewStore]:
    opened: list[SqliteStore] = []
    with TemporaryDirectory() as folder:

        def make(count: int = 100, size: int = 1000, age: float = 100, clock: Any = None) -> Any:
            bounds = StoreBounds(count, size, age)
            if request.param == "memory":
                return MemoryStore(bounds, clock or Clock())
            path = Path(folder) / f"{len(opened)}.db"
            opened.append(SqliteStore(path, bounds, clock or Clock()))
            return opened[-1]

        yield make
        for store in opened:
            store.close()


async def kept(store: Any, ids: str) -> str:
    return "".join([id for id in ids if await store.get(id) is not None])


async def test_what_was_put_is_there_until_it_is_deleted(new_store: NewStore) -> None:
    store = new_store()
    await store.put("a", b"1")
    await store.put("a", b"2\0")

    assert await store.get("a") == b"2\0"
    assert await store.get("b") is None
    assert await store.delete("a")
    assert not await store.delete("a")
    assert await store.get("a") is None


async def test_the_oldest_goes_first_by_number(new_store: NewStore) -> None:
    store = new_store(count=2)
    for id in "abac":
        await store.put(id, b"x")

    assert await kept(store, "abc") == "ac"


async def test_the_oldest_goes_first_by_size(new_store: NewStore) -> None:
    store = new_store(size=10)
    await store.put("a", b"x" * 4)
    await store.put("b", b"x" * 6)
    assert await kept(store, "ab") == "ab"
    await store.put("c", b"x")
    assert await kept(store, "abc") == "bc"
    await store.put("d", b"x" * 11)
    assert await kept(store, "abcd") == "bc"
    await store.put("b", b"x" * 11)
    assert await kept(store, "abcd") == "c"


async def test_what_is_too_old_is_gone(new_store: NewStore) -> None:
    clock = Clock()
    store = new_store(age=10, clock=clock)
    await store.put("a", b"x")
    clock.now += 6
    await store.put("b", b"x")
    clock.now += 6

    assert await kept(store, "ab") == "b"
    assert not await store.delete("a")
    await store.put("b", b"y")
    clock.now += 9
    assert await kept(store, "ab") == "b"


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 30)), max_size=30))
def test_both_keep_the_same_and_never_more_than_they_may(puts: list[tuple[str, int]]) -> None:
    bounds = StoreBounds(4, 60, 8)
    clock = Clock()

    async def compare(memory: MemoryStore, sqlite: SqliteStore) -> None:
        for id, size in puts:
            clock.now += 1
            for store in (memory, sqlite):
                await store.put(id, b"x" * size)
            records = [await memory.get(each) for each in "abcdef"]
            assert records == [await sqlite.get(each) for each in "abcdef"]
            sizes = [len(record) for record in records if record is not None]
            assert len(sizes) <= 4
            assert sum(sizes) <= 60

    with TemporaryDirectory() as folder:
        sqlite = SqliteStore(Path(folder) / "x.db", bounds, clock)
        try:
            asyncio.run(compare(MemoryStore(bounds, clock), sqlite))
        finally:
            sqlite.close()


async def test_a_file_outlives_its_store_and_keeps_nothing_deleted(tmp_path: Path) -> None:
    bounds = StoreBounds(10, 10**6, 1e9)
    path = tmp_path / "r.db"
    first = SqliteStore(path, bounds)
    await asyncio.gather(*(first.put(str(i), b"x") for i in range(20)))
    first.close()

    second = SqliteStore(path, bounds)
    try:
        assert [i for i in range(20) if await second.get(str(i))] == list(range(10, 20))
    finally:
        second.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM responses").fetchone() == (10,)
    connection.close()


def test_a_store_may_be_given_up_last_by_its_own_thread(tmp_path: Path) -> None:
    held = [SqliteStore(tmp_path / "r.db", StoreBounds(1, 1, 1))]
    connection = held[0]._connection

    held[0]._thread.submit(held.clear).result()

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_a_file_that_cannot_be_used_is_a_setting_that_is_wrong(tmp_path: Path) -> None:
    bounds = StoreBounds(1, 1, 1)
    text = tmp_path / "text"
    text.write_text("no database, " * 100)
    newer = tmp_path / "newer"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    for path in (tmp_path / "no" / "folder", text, newer):
        with pytest.raises(ConfigError, match=path.name):
            SqliteStore(path, bounds)


@pytest.mark.parametrize(
    "field", ["response_store_count", "response_store_bytes", "response_store_seconds"]
)
def test_bounds_are_checked(field: str) -> None:
    options: dict[str, Any] = {field: 0}
    with pytest.raises(ConfigError, match=field):
        HttpOptions(**options)


async def test_responses_in_a_file_outlive_the_server(tmp_path: Path) -> None:
    options = HttpOptions(response_store=str(tmp_path / "r.db"))
    app = new_app(ScriptedEngine([delta(0, "Hello", finish="stop")]), options)
    made = (await call_app(app, PATH, {"input": "Hi"})).json()

    engine = ScriptedEngine([delta(0, "a", finish="stop")])
    again = new_app(engine, options)
    found = await call_app(again, f"{PATH}/{made['id']}", b"", method="GET")
    body = {"input": "And?", "previous_response_id": made["id"]}
    assert (await call_app(again, PATH, body)).status == 200

    assert found.json() == made
    text = again_text(engine)
    assert "Hi" in text
    assert "Hello" in text


def again_text(engine: ScriptedEngine) -> str:
    return engine.get_tokenizer().decode(engine.seen[0][0]["prompt_token_ids"])


async def test_a_response_that_a_stopped_server_was_making_has_failed(tmp_path: Path) -> None:
    options = HttpOptions(response_store=str(tmp_path / "r.db"))
    app = new_app(ScriptedEngine([delta(0, "Hello")], holds=True), options)
    made = (await call_app(app, PATH, {"input": "Hi", "background": True})).json()
    again = new_app(ScriptedEngine(), options)

    found = (await call_app(again, f"{PATH}/{made['id']}", b"", method="GET")).json()

    assert (made["status"], found["status"]) == ("queued", "failed")
    assert "stopped" in found["error"]["message"]
    await call_app(app, f"{PATH}/{made['id']}/cancel", b"")
