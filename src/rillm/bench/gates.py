"""The gates: what must never happen to an answer, however fast it was.

A fault is the server's, not the model's: that a model calls no function where one was wanted is
no fault, that a call's arguments are not JSON is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final, Literal, NamedTuple, get_args

from rillm.bench.answer import Answer, ChoiceAnswer, ToolCall
from rillm.bench.schema import violations
from rillm.formats.description import Format
from rillm.formats.registry import all_formats
from rillm.formats.tokens import markers_of

Gate = Literal[
    "error", "disconnect", "stall", "malformed", "markup", "arguments", "text", "usage", "finish",
    "done",
]  # fmt: skip
GATES: Final[dict[Gate, str]] = {
    "error": "the server refused or failed",
    "disconnect": "the connection broke before the answer's end",
    "stall": "nothing arrived for too long",
    "malformed": "an event is not a chunk",
    "markup": "markup of the model in what is shown",
    "arguments": "a call is not one of a function that was offered, with arguments to its schema",
    "text": "the stream and the whole answer differ",
    "usage": "usage is missing or does not agree with what came",
    "finish": "a finish reason is missing, is wrong, or is not the end",
    "done": "the stream ended without [DONE]",
}
assert tuple(GATES) == get_args(Gate)

_MARKER: Final = re.compile(r"(?s)[<\[\]].*[A-Za-z]{2}.*[>\]=]")
"""What of the markers is not ordinary text as well."""
_SPECIAL: Final = r"<[|｜][^<>\s]{1,40}[|｜]>"
_SHOWN: Final = 60


class Fault(NamedTuple):
    """Something that must not happen, and happened."""

    gate: Gate
    detail: str


@cache
def markup(*, with_calls: bool) -> re.Pattern[str]:
    """What never belongs into an answer: markers of formats, and special tokens by their look.

    Args:
        with_calls: also markers of calls. Where no function was offered they are text.
    """
    formats = all_formats()
    calls = {
        marker for each in formats for marker in markers_of(Format(family="", calls=each.calls))
    }
    others = {marker for each in formats for marker in markers_of(replace(each, calls=None))}
    found = [
        each
        for each in (others | calls if with_calls else others - calls)
        if _MARKER.fullmatch(each)
    ]
    literals = map(re.escape, sorted(found, key=len, reverse=True))
    text = "" if with_calls else f"(?!{'|'.join(map(re.escape, sorted(calls - {''})))})"
    return re.compile("|".join([text + _SPECIAL, *literals]))


def check_answer(answer: Answer, body: Mapping[str, Any]) -> list[Fault]:
    """Hold a complete answer against the gates that need no second answer.

    Args:
        answer: streamed or whole.
        body: the request, with what it offered and asked for.
    """
    faults: list[Fault] = []
    sampling = body.get("sampling_params") or {}
    wanted = body.get("n") or sampling.get("n") or 1
    if sorted(answer.choices) != list(range(wanted)):
        faults.append(Fault("finish", f"choices {sorted(answer.choices)} came, {wanted} wanted"))
    offered = {
        tool["function"]["name"]: tool["function"].get("parameters") or {}
        for tool in body.get("tools") or ()
        if tool.get("type") == "function"
    }
    for index, choice in sorted(answer.choices.items()):
        found = [
            *_check_markup(choice, markup(with_calls=bool(offered))),
            *_check_calls(choice, offered),
            *_check_finish(choice),
        ]
        faults += (Fault(gate, f"choice {index}: {detail}") for gate, detail in found)
    return [*faults, *_check_usage(answer)]


def compare(streamed: Answer, whole: Answer) -> list[Fault]:
    """Hold a stream against the whole answer to the same request."""
    ours, theirs = streamed.told(), whole.told()
    if len(ours) != len(theirs):
        return [Fault("text", f"{len(ours)} choices streamed, {len(theirs)} in the whole answer")]
    # Token ids come with one of the two only, unless they were asked for.
    for one, other in zip(ours, theirs, strict=True):
        if not (one["token_ids"] and other["token_ids"]):
            del one["token_ids"], other["token_ids"]
        for name, value in one.items():
            if value != other[name]:
                return [Fault("text", f"{name}: {_difference(str(value), str(other[name]))}")]
    a, b = streamed.num_tokens(), whole.num_tokens()
    if None not in (a, b) and a != b:
        return [Fault("usage", f"{a} completion tokens streamed, {b} in the whole answer")]
    return []


def _difference(ours: str, theirs: str) -> str:
    pairs = enumerate(zip(ours, theirs, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    return (
        f"{len(ours)} characters streamed, {len(theirs)} in the whole answer; from character {at} "
        f"{ours[at : at + _SHOWN]!r} instead of {theirs[at : at + _SHOWN]!r}"
    )


def _check_markup(choice: ChoiceAnswer, markup: re.Pattern[str]) -> Iterator[Fault]:
    shown = {"content": "".join(choice.content), "reasoning": "".join(choice.reasoning)}
    for call in choice.calls.values():
        shown[f"call of {call.name!r}"] = f"{call.name}({call.arguments})"
    for where, text in shown.items():
        for found in dict.fromkeys(match[0] for match in markup.finditer(text)):
            yield Fault("markup", f"{found!r} in {where}")


def _check_calls(choice: ChoiceAnswer, offered: Mapping[str, Any]) -> Iterator[Fault]:
    for call in choice.calls.values():
        wrong = _wrong_with(call, offered, is_cut=choice.finish_reason == "length")
        if wrong is not None:
            yield Fault("arguments", f"call of {call.name!r}: {wrong}")


def _wrong_with(call: ToolCall, offered: Mapping[str, Any], *, is_cut: bool) -> str | None:
    if not call.is_in_order:
        return "arguments before the name, or the name twice"
    if call.name not in offered:
        return f"offered were {', '.join(offered) or 'no functions'}"
    try:
        value = json.loads(call.arguments)
    except (ValueError, RecursionError):
        return None if is_cut else f"{call.arguments[:_SHOWN]!r} is not JSON"
    if not isinstance(value, dict):
        return f"{call.arguments[:_SHOWN]!r} is not an object"
    return next(violations(value, offered[call.name]), None)


def _check_finish(choice: ChoiceAnswer) -> Iterator[Fault]:
    reason = choice.finish_reason
    if reason is None:
        yield Fault("finish", "no finish_reason")
    elif bool(choice.calls) != (reason == "tool_calls") and reason != "length":
        yield Fault("finish", f"finish_reason {reason!r} with {len(choice.calls)} calls")
    if choice.has_output_after_finish:
        yield Fault("finish", "output after the finish")


def _check_usage(answer: Answer) -> Iterator[Fault]:
    usage = answer.usage
    if usage is None or usage.completion_tokens is None:
        yield Fault("usage", "no usage")
        return
    received = sum(len(choice.token_ids) for choice in answer.choices.values())
    if received and received != usage.completion_tokens:
        yield Fault("usage", f"{usage.completion_tokens} tokens told, {received} received")
    if answer.pieces and not usage.completion_tokens:
        yield Fault("usage", "0 tokens told, but there is output")
    parts = (usage.prompt_tokens or 0) + usage.completion_tokens
    if usage.total_tokens is not None and usage.total_tokens != parts:
        yield Fault("usage", f"total_tokens is {usage.total_tokens}, the parts make {parts}")
