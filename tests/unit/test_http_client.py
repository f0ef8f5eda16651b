"""The client of streams against servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from rillm.errors import ConfigError
from rillm.http_client import Client, StallError, TransferError

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n"

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Told:
    """Remembers what it was told, and refuses a piece of the body."""

    def __init__(self, refused: bytes | None = None) -> None:
        self.status = 0
        self.body: list[bytes] = []
        self._refused = refused

    def sent(self, at: float) -> None:
        pass

    def begin(self, status: int, content_type: str, at: float) -> None:
        self.status = status

    def feed(self, data: bytes, at: float) -> None:
        self.body.append(data)
        if data == self._refused:
            raise LookupError("enough")


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives each request's head to `answer`; yields its URL and all heads."""
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n{}"))
                await answer(heads[-1], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    finally:
        server.close()


def client(url: str, timeout_s: float | None = None) -> Client:
    return Client(url, headers={"X-Always": "1"}, timeout_s=timeout_s, connect_timeout_s=5)


async def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    num_asked = 0

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal num_asked
        num_asked += 1
        if num_asked == 2:
            writer.transport.abort()
        else:
            writer.write(OK)

    async with serving(answer) as (url, heads):
        asking = client(url)
        for _ in range(3):
            told = Told()
            await asking.ask("/a", b"{}", told)
            assert (told.status, b"".join(told.body)) == (200, b"hi")

    assert len(heads) == num_asked == 4


async def test_a_new_connection_that_closes_is_a_failure_and_not_asked_again() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serving(answer) as (url, heads):
        with pytest.raises(TransferError):
            await client(url).ask("/a", b"{}", Told())

    assert len(heads) == 1


async def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    answers = [OK, BEGUN]

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0))
        await writer.drain()
        if not answers:
            writer.close()

    async with serving(answer) as (url, heads):
        asking, told = client(url), Told()
        await asking.ask("/a", b"{}", Told())
        with pytest.raises(TransferError):
            await asking.ask("/a", b"{}", told)

    assert b"".join(told.body) == b"ab"
    assert len(heads) == 2


async def write_until_left(writer: asyncio.StreamWriter) -> None:
    """Go on with a body until nobody takes it."""
    async with asyncio.timeout(10):
        try:
            while True:
                await asyncio.sleep(0.01)
                writer.write(b"1\r\nc\r\n")
                await writer.drain()
        except ConnectionError:
            pass


async def test_who_has_enough_leaves_at_once() -> None:
    gone = asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(BEGUN)
        await write_until_left(writer)
        gone.set()

    async with serving(answer) as (url, _):
        told = Told(refused=b"a")
        with pytest.raises(LookupError, match="enough"):
            await client(url).ask("/a", b"{}", told)
        await gone.wait()

    assert told.body == [b"a"]


async def test_a_cancelled_request_closes_its_connection() -> None:
    cancelled, gone = asyncio.Event(), asyncio.Event()

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        await cancelled.wait()
        await write_until_left(writer)
        gone.set()

    async with serving(answer) as (url, heads):
        task = asyncio.create_task(client(url).ask("/a", b"{}", Told()))
        while not heads:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()
        await gone.wait()


async def test_silence_is_bounded_where_it_is_to_be() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        writer.write(OK)

    async with serving(answer) as (url, _):
        with pytest.raises(StallError):
            await client(url, timeout_s=0.02).ask("/a", b"{}", Told())
        told = Told()
        await client(url).ask("/a", b"{}", told)
        assert told.body == [b"hi"]


async def test_headers_of_all_requests_and_of_one() -> None:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async with serving(answer) as (url, heads):
        asking = client(url + "/api/v1")
        await asking.ask("/a", b"{}", Told(), {"X-Once": "2"})
        with pytest.raises(ConfigError):
            await asking.ask("/a", b"{}", Told(), {"X-Once": "2\r\nX-Other: 3"})

    [head] = heads
    assert head.startswith(b"POST /api/a HTTP/1.1\r\n")
    assert b"X-Always: 1\r\n" in head
    assert b"X-Once: 2\r\n" in head
