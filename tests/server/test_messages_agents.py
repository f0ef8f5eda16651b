"""Requests of coding agents are answered, streamed and whole, and their tokens are counted."""

from __future__ import annotations

from typing import Any

import pytest
from coding_agents import AGENTS
from messages_script import COUNT, FORMATS, MESSAGES, TIDE, CutEngine, fold, read_events
from scripted_engine import BUNDLED_TOKENIZER, call, call_app, new_app

from rillm.server.openapi import OPERATIONS

HEADERS = [
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14"),
    ("x-app", "cli"),
    ("x-stainless-lang", "js"),
]
TEXT = f"<think>\nhm\n</think>\n\nOne moment.\n{TIDE}"


@pytest.mark.parametrize("agent", AGENTS)
async def test_agents_are_answered(agent: str) -> None:
    body = AGENTS[agent]
    blocks: list[Any] = []
    for is_stream in (False, True):
        engine = CutEngine(TEXT, range(0, 60, 7))
        answer = await call(engine, MESSAGES, body | {"stream": is_stream}, headers=HEADERS)

        assert answer.status == 200, answer.body
        message = fold(read_events(answer.body)) if is_stream else answer.json()
        blocks.append([block["type"] for block in message["content"]])
        shown = BUNDLED_TOKENIZER.decode(engine.seen[0][0]["prompt_token_ids"])
        assert "x-anthropic-billing-header" not in shown
        assert "tokens left" not in shown
    assert blocks[0] == blocks[1]
    assert blocks[0][:2] == ["thinking", "text"]


@pytest.mark.parametrize("agent", AGENTS)
async def test_their_tokens_are_counted(agent: str) -> None:
    engine = CutEngine("Yes.")
    app = new_app(engine)
    await call_app(app, MESSAGES, AGENTS[agent], headers=HEADERS)
    counted = await call_app(app, COUNT, AGENTS[agent], headers=HEADERS)

    length = len(engine.seen[0][0]["prompt_token_ids"])
    assert counted.json() == {"input_tokens": length}


def test_every_field_that_agents_send_is_known() -> None:
    body = OPERATIONS[MESSAGES].body
    assert body is not None
    assert FORMATS.reads_calls
    for fields in AGENTS.values():
        assert fields.keys() <= set(body.__struct_fields__)
