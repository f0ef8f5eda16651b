"""A forced call is a valid call: the bundled model over random schemas, streamed and whole.

Strings, numbers and lists are bounded: so weak a model may not find the end of a free string before
the end of its context, which is `length` and no call.
`RILLM_FORCED_CALLS` sets the number of requests.
"""

from __future__ import annotations

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from formats.grammar_walk import bounded, random_tools
from openai import OpenAI
from running_server import RunningServer

NUM_REQUESTS = int(os.environ.get("RILLM_FORCED_CALLS", "6"))
MESSAGES: Any = [{"role": "user", "content": "Call a function."}]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> OpenAI:
    return OpenAI(base_url=server.url, api_key="none", max_retries=0)


def check(tools: list[Any], calls: list[Any]) -> None:
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools}
    assert calls
    for name, arguments in calls:
        jsonschema.validate(json.loads(arguments), schemas[name] or {})


def whole(client: OpenAI, **request: Any) -> tuple[list[Any], str]:
    choice = client.chat.completions.create(**request).choices[0]
    calls = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()]
    assert not choice.message.content
    return calls, choice.finish_reason


def streamed(client: OpenAI, **request: Any) -> tuple[list[Any], str]:
    calls: dict[int, list[str]] = {}
    reason = ""
    for chunk in client.chat.completions.create(**request, stream=True):
        choice = chunk.choices[0]
        assert not choice.delta.content
        reason = choice.finish_reason or reason
        for call in choice.delta.tool_calls or ():
            found = calls.setdefault(call.index, [call.function.name or "", ""])
            found[1] += call.function.arguments or ""
    return [tuple(each) for each in calls.values()], reason


@pytest.mark.parametrize("ask", [whole, streamed])
def test_required_gives_a_valid_call(client: OpenAI, ask: Any) -> None:
    def request(seed: int) -> None:
        tools = random_tools(random.Random(seed))
        for tool in tools:
            if "parameters" in tool["function"]:
                tool["function"]["parameters"] = bounded(tool["function"]["parameters"])
        calls, reason = ask(
            client,
            model="bundled",
            messages=MESSAGES,
            tools=tools,
            tool_choice="required",
            parallel_tool_calls=False,
            max_completion_tokens=600,
            seed=seed,
        )
        assert reason == "tool_calls", (seed, calls)
        check(tools, calls)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(request, range(NUM_REQUESTS)))
