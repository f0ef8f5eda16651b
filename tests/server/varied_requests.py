"""Requests of every kind, and what of an answer has to be the same whoever gives it."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

from scripted_engine import parse_events

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Look up the {thing} of a place.",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string"}},
                "required": ["place"],
            },
        },
    }
    for name, thing in (("get_tide", "tide"), ("get_weather", "weather"))
]
_PLACES = ("Brest", "Kyoto", "Łódź", "the harbour", "Ushuaia", "Ōsaka")
_THINGS = ("tide", "weather", "moon", "ferry", "road", "oldest tree")
_MADE_ANEW = (
    (re.compile(rb'"created":\d+'), b'"created":0'),
    (re.compile(rb"call_[0-9a-f]{24}"), b"call_0"),
)


def varied_requests(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Paths and bodies, the same ones each time."""
    source = random.Random(4)
    kinds = itertools.cycle((_chat, _with_tools, _reasoning, _completion, _chat))
    requests = []
    for number in range(count):
        path, body = next(kinds)(source, number)
        body |= _sampling(source, body)
        if number % 2:
            body["stream"] = True
            if source.random() < 0.5:
                body["stream_options"] = {
                    "include_usage": True,
                    "continuous_usage_stats": source.random() < 0.3,
                }
        elif path == CHAT and source.random() < 0.1:
            body["prompt_logprobs"] = source.randrange(3)
        requests.append((path, body))
    return requests


def _question(source: random.Random, number: int) -> str:
    return f"{number}. What is the {source.choice(_THINGS)} in {source.choice(_PLACES)}?"


def _chat(source: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": _question(source, number)}]
    if source.random() < 0.3:
        messages.insert(0, {"role": "system", "content": "Answer in one sentence."})
    body: dict[str, Any] = {"messages": messages, "max_tokens": source.randint(1, 8)}
    if source.random() < 0.15:
        messages.append({"role": "assistant", "content": "It is"})
        body["continue_final_message"] = True
        body["echo"] = source.random() < 0.5
    if source.random() < 0.3:
        body |= {"logprobs": True, "top_logprobs": source.randrange(4)}
    return CHAT, body


def _with_tools(source: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    _, body = _chat(source, number)
    body |= {"tools": TOOLS, "max_tokens": source.choice((6, 28))}
    body["tool_choice"] = source.choice(("auto", "auto", "none"))
    if source.random() < 0.3:
        body["parallel_tool_calls"] = False
    return CHAT, body


def _reasoning(source: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    _, body = _chat(source, number)
    body |= {"chat_template_kwargs": {"enable_thinking": True}}
    body["max_tokens"] = source.choice((4, 16))
    if source.random() < 0.2:
        body["include_reasoning"] = False
    return CHAT, body


def _completion(source: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    text = _question(source, number)
    prompt: Any = source.choice((text, [text, "The sea"], [5 + number, 11, 97], [[97, 11], [5]]))
    body: dict[str, Any] = {"prompt": prompt, "max_tokens": source.randint(1, 6)}
    # Prompts of one call meet in a batch or miss each other, which the last digits tell.
    is_single = not isinstance(prompt, list) or isinstance(prompt[-1], int)
    if is_single and source.random() < 0.4:
        body["logprobs"] = source.randrange(3)
    if source.random() < 0.3:
        body["echo"] = True
    elif source.random() < 0.3:
        body["truncate_prompt_tokens"] = 2
    return COMPLETIONS, body


def _sampling(source: random.Random, body: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"temperature": 0}
    if source.random() < 0.4:
        options = {"seed": source.randrange(1000), "temperature": source.choice((0.7, 1.3))}
        options["n"] = source.choice((1, 2, 3))
    for name, values in {
        "stop": ("e", ["is", "a"], [" ", "The"], "</think>", ["<tool_call>", "!"]),
        "top_k": (5, 40),
        "top_p": (0.5, 0.9),
        "min_p": (0.1,),
        "repetition_penalty": (1.2,),
        "presence_penalty": (0.5,),
        "frequency_penalty": (-0.5,),
        "logit_bias": ({"97": -100, "11": 2},),
        "stop_token_ids": ([97, 11, 300],),
        "min_tokens": (1,),
        "ignore_eos": (True,),
        "include_stop_str_in_output": (True,),
        "skip_special_tokens": (False,),
        "return_token_ids": (True,),
        "return_tokens_as_token_ids": (True,),
        "stream_interval": (3,),
        "cache_salt": ("mine",),
        "priority": (3,),
    }.items():
        if source.random() < (0.3 if name == "stop" else 0.08):
            options[name] = source.choice(values)
    return options


def comparable(raw: bytes) -> bytes:
    """An answer's bytes, but for what is made anew each time."""
    for pattern, constant in _MADE_ANEW:
        raw = pattern.sub(constant, raw)
    return raw


def folded(raw: bytes) -> tuple[Any, dict[int, Any]]:
    """A stream's bytes, but for where the pieces of its text were cut.

    That depends on how fast they were read: what has come meanwhile is told together.

    Returns:
        What is said of the whole, and what of each choice in its order.
    """
    *events, done = parse_events(comparable(raw))
    assert done == "[DONE]"
    ends = [event for event in events if not event.get("choices")]
    choices: dict[int, Any] = {}
    for event in events:
        for choice in event.get("choices", ()):
            head = {key: value for key, value in event.items() if key not in ("choices", "usage")}
            known = choices.setdefault(
                choice["index"], {"said": [], "logprobs": [], "token_ids": [], "end": None}
            )
            _fold(known, head, choice)
            if choice["finish_reason"] is not None:
                assert known["end"] is None
                reasons = (choice["finish_reason"], choice["stop_reason"])
                known["end"] = (reasons, head, event.get("usage"))
    return ends, choices


def _fold(known: dict[str, Any], head: dict[str, Any], choice: dict[str, Any]) -> None:
    logprobs = choice["logprobs"]
    if logprobs is not None:
        known["logprobs"] += logprobs.get("content") or zip(*logprobs.values(), strict=True)
    known["token_ids"] += choice.get("token_ids") or []
    if choice.get("prompt_token_ids") or head.get("prompt_token_ids"):
        known["prompt"] = (choice.get("prompt_token_ids"), head.get("prompt_token_ids"))
    delta = {"text": choice["text"]} if "text" in choice else choice["delta"]
    for name, value in delta.items():
        path, text = name, value
        if name == "tool_calls":
            [call] = value
            fragment = call["function"].pop("arguments")
            known["said"].append((name, str(call))) if "id" in call else None
            path, text = f"arguments {call['index']}", fragment
        if known["said"] and known["said"][-1][0] == path:
            known["said"][-1] = (path, known["said"][-1][1] + text)
        elif text:
            known["said"].append((path, text))
