"""A server that answers by a script, fault by fault; plain asyncio, so that it can do anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

HEAD = "HTTP/1.1 {} X\r\nContent-Type: {}\r\n"
DONE = "data: [DONE]\n\n"
DISCONNECT = "(disconnect)"
STALL = "(stall)"


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> str:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


def usage(num_tokens: int) -> str:
    counts = {"prompt_tokens": 5, "completion_tokens": num_tokens, "total_tokens": 5 + num_tokens}
    return f"data: {json.dumps({'choices': [], 'usage': counts})}\n\n"


def call(arguments: list[str], name: str = "get_weather") -> list[str]:
    begin = {"index": 0, "id": "call_1", "function": {"name": name, "arguments": ""}}
    parts = [{"index": 0, "function": {"arguments": each}} for each in arguments]
    return [chunk({"tool_calls": [part]}) for part in (begin, *parts)]


def text(*pieces: str) -> list[str]:
    return [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": piece}) for piece in pieces),
    ]


def end(num_tokens: int, finish: str = "stop") -> list[str]:
    return [chunk({}, finish), usage(num_tokens), DONE]


@dataclass
class Script:
    """What the server says."""

    stream: list[str]
    whole: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    choose: Callable[[int, dict[str, Any]], Script] | None = None
    """By the number of the request and its body: another script."""


def whole(message: dict[str, Any], num_tokens: int, finish: str = "stop") -> dict[str, Any]:
    counts = {"prompt_tokens": 5, "completion_tokens": num_tokens, "total_tokens": 5 + num_tokens}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"choices": [choice], "usage": counts}


@dataclass
class FaultyServer:
    """What the tests know of it."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)


@asynccontextmanager
async def serving(script: Script, pause_s: float = 0.0) -> AsyncIterator[FaultyServer]:
    """Run the server; `pause_s` goes before each event."""
    known = FaultyServer("")
    open_connections: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_connections[task] = writer
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if not await _answer_one(head.decode(), reader, writer, script, known, pause_s):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            del open_connections[task]

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    known.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield known
    finally:
        server.close()
        for writer in open_connections.values():
            writer.close()
        await asyncio.gather(*open_connections)


async def _answer_one(
    head: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    script: Script,
    known: FaultyServer,
    pause_s: float,
) -> bool:
    """Answer one request; False when the connection is to be closed."""
    if head.startswith("GET"):
        await _write_json(writer, 200, {"data": [{"id": "scripted"}]})
        return True
    length = next(line for line in head.lower().splitlines() if line.startswith("content-length"))
    body = json.loads(await reader.readexactly(int(length.split(":")[1])))
    known.bodies.append(body)
    known.headers.append(head)
    chosen = script.choose(len(known.bodies), body) if script.choose is not None else script
    if chosen.status != 200:
        await _write_json(writer, chosen.status, {"error": {"message": "no", "code": 503}})
        return True
    if not body.get("stream"):
        await _write_json(writer, 200, chosen.whole)
        return True
    sent = (
        HEAD.format(200, "text/event-stream; charset=utf-8") + "Transfer-Encoding: chunked\r\n\r\n"
    )
    writer.write(sent.encode())
    for event in chosen.stream:
        await asyncio.sleep(pause_s)
        if event == DISCONNECT:
            return False
        if event == STALL:
            await reader.read()
            return False
        data = event.encode()
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    return True


async def _write_json(writer: asyncio.StreamWriter, status: int, value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    head = HEAD.format(status, "application/json") + f"Content-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
