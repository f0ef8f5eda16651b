"""A reader of Anthropic's streams that forgives nothing, and engines that say what is wanted."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from scripted_engine import BUNDLED_TOKENIZER, ScriptedEngine, Step, call, delta

from rillm.formats.registry import combine
from rillm.input_processor import TokensPrompt
from rillm.output_formats import OutputFormats
from rillm.outputs import RequestOutput
from rillm.sampling_params import SamplingParams

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
FORMATS = OutputFormats(combine("hermes", "qwen3"), BUNDLED_TOKENIZER)
HELLO: list[Any] = [{"role": "user", "content": "Hi"}]
TIDE_TOOL: dict[str, Any] = {
    "name": "tide",
    "description": "When the tide is high.",
    "input_schema": {"type": "object", "properties": {"port": {"type": "string"}}},
}
REQUEST: dict[str, Any] = {"max_tokens": 500, "messages": HELLO, "tools": [TIDE_TOOL]}
TIDE = '<tool_call>\n{"name": "tide", "arguments": {"port": "Brést"}}\n</tool_call>'
MOON = '<tool_call>\n{"name": "moon", "arguments": {}}\n</tool_call>'

_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}


class CutEngine(ScriptedEngine):
    """Says one text, cut anywhere; markers that are tokens of the vocabulary come as such."""

    formats = FORMATS

    def __init__(
        self,
        text: str,
        ends: Sequence[int] = (),
        finish: str = "stop",
        stop_reason: int | str | None = None,
    ) -> None:
        super().__init__()
        self._text = text
        self._ends = ends
        self.last: Step = [delta(0, "", [8], finish, stop_reason)]

    async def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        tokenizer = BUNDLED_TOKENIZER
        detokenizer = tokenizer.detokenizer(stand_ins=stand_ins)
        text = detokenizer.push(tokenizer.encode(self._text)) + detokenizer.finish()
        ends = sorted(min(end, len(text)) for end in self._ends)
        pieces = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
        self._steps = (*([delta(0, piece)] for piece in pieces), self.last)
        async for output in super().generate(
            prompt, sampling_params, request_id, priority=priority, stand_ins=stand_ins
        ):
            yield output


def by_character(text: str, finish: str = "stop") -> CutEngine:
    """An engine that says one character at a time."""
    return CutEngine(text, range(1, len(text)), finish)


def read_events(body: bytes) -> list[dict[str, Any]]:
    """The data of each event, which has to be named as its type says."""
    assert body.endswith(b"\n\n")
    events = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def fold(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The message that a stream without failure makes; any disorder is an error."""
    events = [event for event in events if event["type"] != "ping"]
    first, *inner, last, stop = events
    assert (first["type"], last["type"]) == ("message_start", "message_delta")
    assert stop == {"type": "message_stop"}
    message = dict(first["message"])
    assert (message["content"], message["stop_reason"]) == ([], None)
    message["content"] = _fold_blocks(inner)
    return message | last["delta"] | {"usage": last["usage"]}


def _fold_blocks(events: Sequence[dict[str, Any]]) -> list[Any]:
    blocks: list[Any] = []
    texts: list[str] = []
    is_open = False
    for event in events:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"])
            is_open, texts = True, []
            continue
        assert is_open
        assert event["index"] == len(blocks) - 1
        block = blocks[-1]
        delta_type, key = _DELTAS[block["type"]]
        if event["type"] == "content_block_stop":
            is_open = False
            text = "".join(texts)
            if block["type"] == "tool_use":
                block["input"] = text
            else:
                block[key] = text
            assert block["type"] != "thinking" or block["signature"]
        elif event["delta"]["type"] == "signature_delta":
            block["signature"] = event["delta"]["signature"]
        else:
            assert event["type"] == "content_block_delta"
            assert event["delta"].keys() == {"type", key}
            assert event["delta"]["type"] == delta_type
            assert event["delta"][key]
            texts.append(event["delta"][key])
    assert not is_open
    return blocks


async def streamed(engine: ScriptedEngine, **fields: Any) -> dict[str, Any]:
    """A streamed answer, folded."""
    answer = await call(engine, MESSAGES, REQUEST | {"stream": True} | fields)
    assert answer.status == 200
    return fold(read_events(answer.body))


async def whole(engine: ScriptedEngine, **fields: Any) -> dict[str, Any]:
    """A whole answer."""
    answer = await call(engine, MESSAGES, REQUEST | fields)
    assert answer.status == 200, answer.body
    message: dict[str, Any] = answer.json()
    return message


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """The message without what is drawn anew each time."""
    blocks = [{key: each[key] for key in each if key != "id"} for each in message["content"]]
    return {key: message[key] for key in message if key != "id"} | {"content": blocks}
