"""Replies put together: as the contract means them, and as LocalAI's Go code does it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Folded:
    """An answer; every check that holds for any stream of Replies was made on the way."""

    content: str = ""
    reasoning: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)
    """Index to id, name and arguments."""
    kinds: list[str] = field(default_factory=list)
    """What came, in order; once for a run of pieces of one kind."""
    tokens: int = 0
    prompt_tokens: int = 0

    def named_calls(self) -> list[tuple[str, str]]:
        """Name and arguments of each call."""
        return [(name, arguments) for _, name, arguments in self.calls.values()]


def fold(replies: Sequence[Any], *, has_message: bool = True) -> Folded:
    """Put a stream together, by the rules of the contract."""
    folded = Folded()
    message = b""
    for reply in replies:
        message += reply.message
        assert b"\xef\xbf\xbd" not in reply.message
        assert reply.tokens >= folded.tokens
        folded.tokens, folded.prompt_tokens = reply.tokens, reply.prompt_tokens
        for delta in reply.chat_deltas:
            _add(folded, delta)
    assert message.decode() == (folded.content if has_message else "")
    last = replies[-1]
    assert (last.message, list(last.chat_deltas)) == (b"", []) or len(replies) == 1
    assert list(folded.calls) == list(range(len(folded.calls)))
    assert len({id for id, _, _ in folded.calls.values()}) == len(folded.calls)
    return folded


def _add(folded: Folded, delta: Any) -> None:
    parts = {
        "content": delta.content,
        "reasoning": delta.reasoning_content,
        "call": bool(delta.tool_calls),
    }
    (kind,) = [name for name, value in parts.items() if value]
    if folded.kinds[-1:] != [kind]:
        folded.kinds.append(kind)
    folded.content += delta.content
    folded.reasoning += delta.reasoning_content
    for call in delta.tool_calls:
        if call.index not in folded.calls:
            assert call.id
            assert call.name
            folded.calls[call.index] = [call.id, call.name, ""]
        else:
            assert not call.id
            assert not call.name
            assert call.arguments
        folded.calls[call.index][2] += call.arguments


@dataclass
class Seen:
    """What LocalAI's client gets."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    finish_reason: str = "stop"
    usage: tuple[int, int] = (0, 0)
    num_runs: int = 1


class GoConsumer:
    """How LocalAI turns Replies into an OpenAI stream, as it was measured.

    Without tools, text is that of `message` until reasoning was seen; with tools it is that of
    the ChatDeltas as soon as they have any, and calls are rebuilt from them at the end, or else
    looked for in the text of `message`. A U+FFFD stops `message` for good.
    """

    def __init__(self, *, has_tools: bool, max_tokens: int = 0) -> None:
        self._has_tools = has_tools
        self._max_tokens = max_tokens

    def read(self, replies: Iterable[Any]) -> Seen:
        """Read a stream."""
        seen = Seen()
        buffer, text, is_stalled, from_deltas = b"", "", False, False
        calls: dict[int, list[str]] = {}
        for reply in replies:
            buffer += reply.message
            new = ""
            while buffer and not is_stalled:
                rune = _first_rune(buffer)
                is_stalled = rune is None or rune == "\ufffd"
                if rune is not None and not is_stalled:
                    new += rune
                    buffer = buffer[len(rune.encode()) :]
            if is_stalled and _first_rune(buffer) is None:
                is_stalled = False
            text += new
            content = "".join(delta.content for delta in reply.chat_deltas)
            reasoning = "".join(delta.reasoning_content for delta in reply.chat_deltas)
            from_deltas |= bool(reasoning or (content and self._has_tools))
            seen.content += content if from_deltas else new
            seen.reasoning += reasoning
            for delta in reply.chat_deltas:
                for call in delta.tool_calls:
                    known = calls.setdefault(call.index, ["", "", ""])
                    known[0], known[1] = call.id or known[0], call.name or known[1]
                    known[2] += call.arguments
            seen.usage = (reply.prompt_tokens, reply.tokens)
        if self._has_tools:
            seen.calls = [(name, arguments) for _, name, arguments in calls.values()]
            seen.calls = seen.calls or _calls_in(text)
        self._finish(seen)
        return seen

    def _finish(self, seen: Seen) -> None:
        is_spent = 0 < self._max_tokens <= seen.usage[1]
        if seen.calls:
            seen.finish_reason = "tool_calls"
        elif is_spent:
            seen.finish_reason = "length"
        if not seen.content and not seen.calls and not is_spent:
            seen.num_runs = 6


def _first_rune(buffer: bytes) -> str | None:
    """The first character; None where it is not complete."""
    for length in range(1, min(4, len(buffer)) + 1):
        try:
            return buffer[:length].decode()
        except UnicodeDecodeError:
            continue
    return None


def _calls_in(text: str) -> list[tuple[str, str]]:
    """What Go's own scanner takes for calls in a text: JSON objects with a name."""
    found = []
    for start in re.finditer(r"\{", text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start.start())
        except json.JSONDecodeError:
            continue
        if isinstance(value.get("name"), str):
            found.append((value["name"], json.dumps(value.get("arguments", {}))))
    return found
