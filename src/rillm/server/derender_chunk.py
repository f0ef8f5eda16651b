"""One chunk of the token endpoint as one of chat or completions.

The encoders of the two routes say what a chunk holds. What they tell in several chunks is put
into one here, because a caller gets one answer for each chunk it sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from rillm.server.chat_chunks import ChatAnswer, ChatChunkEncoder
from rillm.server.completion_chunks import CompletionAnswer, CompletionChunkEncoder
from rillm.server.derender_request import StreamState
from rillm.server.told_engine import ToldStream, cached_tokens
from rillm.server.usage import usage_object
from rillm.streams import ChoiceDelta, Usage
from rillm.text.tokenizer import Tokenizer
from rillm.token_wire import Answer


async def derendered_chat_chunk(
    answer: ChatAnswer,
    stream: ToldStream,
    chunk: Answer,
    state: StreamState,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """Make a `chat.completion.chunk`.

    Args:
        answer: what is constant over the answer.
        stream: what was told before, then the chunk.
        chunk: of the token endpoint, checked.
        state: of the choice before the chunk; its counts move on.
        tokenizer: the model's.
    """
    encoder = ChatChunkEncoder(answer, stream, tokenizer)
    opening = _objects(encoder.encode([]))
    parts = _objects(encoder.encode(await _new_deltas(stream, state)))
    merged: dict[str, Any] = {key: opening[0][key] for key in ("id", "object", "created", "model")}
    if chunk.choices:
        said = parts if state.role_sent else [*opening, *parts]
        merged["choices"] = [_merged_choice(chunk.choices[0].index, said)]
        merged["prompt_token_ids"] = None if state.role_sent else opening[0]["prompt_token_ids"]
    else:
        merged["choices"] = []
    merged |= _usage(stream, chunk, state)
    if any("system_fingerprint" in part for part in parts) or not chunk.choices:
        merged["system_fingerprint"] = answer.system_fingerprint
    return merged


async def derendered_text_chunk(
    answer: CompletionAnswer,
    stream: ToldStream,
    chunk: Answer,
    state: StreamState,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """Make a `text_completion` chunk; arguments as above."""
    deltas = await _new_deltas(stream, state)
    encoder = CompletionChunkEncoder(answer, stream, tokenizer)
    parts = _objects(encoder.encode(deltas))
    merged: dict[str, Any] = {
        "id": answer.id,
        "object": "text_completion",
        "created": answer.created,
        "model": answer.model,
        "choices": [],
    }
    if chunk.choices:
        choice = parts[0]["choices"][0] if parts else _empty_text()
        choice["index"] = chunk.choices[0].index
        if state.role_sent:
            choice["prompt_token_ids"] = None
        if choice["logprobs"] is not None:
            offsets = choice["logprobs"]["text_offset"]
            choice["logprobs"]["text_offset"] = [
                offset + state.logprob_text_offset for offset in offsets
            ]
        told = [token_id for delta in deltas for token_id in delta.token_ids]
        state.logprob_text_offset += sum(
            len(tokenizer.token_bytes(token_id).decode(errors="replace")) for token_id in told
        )
        merged["choices"] = [choice]
    merged |= _usage(stream, chunk, state)
    if any("system_fingerprint" in part for part in parts) or not chunk.choices:
        merged["system_fingerprint"] = answer.system_fingerprint
    return merged


async def _new_deltas(stream: ToldStream, state: StreamState) -> list[ChoiceDelta]:
    """The last output's, after what was told before. Moves the state's count of reasoning on."""
    before = counted = 0
    deltas: list[ChoiceDelta] = []
    await stream.start()
    while not stream.is_finished:
        deltas = stream.take()
        before, counted = counted, stream.usage().reasoning_tokens
    state.reasoning_tokens += counted - before
    return deltas


def _objects(events: bytes) -> list[dict[str, Any]]:
    data = [each.removeprefix(b"data: ") for each in events.split(b"\n\n") if each]
    return [msgspec.json.decode(each) for each in data]


def _merged_choice(index: int, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All that several chunks say of one choice."""
    merged: dict[str, Any] = {
        "index": index,
        "delta": {},
        "logprobs": None,
        "finish_reason": None,
        "stop_reason": None,
        "token_ids": None,
    }
    for part in parts:
        choice = part["choices"][0]
        _merge_delta(merged["delta"], choice["delta"])
        for name in ("logprobs", "finish_reason", "stop_reason"):
            merged[name] = merged[name] if choice.get(name) is None else choice[name]
        if choice.get("token_ids") is not None:
            merged["token_ids"] = (merged["token_ids"] or []) + choice["token_ids"]
    return merged


def _merge_delta(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for call in value:
                _merge_call(into.setdefault(name, []), call)
        elif name == "role":
            into[name] = value
        else:
            into[name] = into.get(name, "") + value


def _merge_call(calls: list[dict[str, Any]], call: dict[str, Any]) -> None:
    known = next((each for each in calls if each["index"] == call["index"]), None)
    if known is None:
        calls.append(call)
    else:
        known["function"]["arguments"] += call["function"]["arguments"]


def _empty_text() -> dict[str, Any]:
    return {
        "index": 0,
        "text": "",
        "logprobs": None,
        "finish_reason": None,
        "stop_reason": None,
        "prompt_token_ids": None,
        "token_ids": None,
        "weight_versions": None,
    }


def _usage(stream: ToldStream, chunk: Answer, state: StreamState) -> dict[str, Any]:
    """The `usage` that a chunk brings; null where it brings none."""
    if chunk.usage is None:
        return {"usage": None}
    counted = stream.usage()
    said = chunk.usage.completion_tokens
    new = sum(len(choice.token_ids or []) for choice in chunk.choices)
    return {
        "usage": usage_object(
            Usage(
                prompt_tokens=counted.prompt_tokens,
                completion_tokens=state.num_tokens + new if said is None else said,
                cached_tokens=cached_tokens(chunk),
                reasoning_tokens=state.reasoning_tokens,
            )
        )
    }
