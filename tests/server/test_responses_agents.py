"""Agents on the Responses API: OpenAI's own to the end of a loop, and the requests of others."""

from __future__ import annotations

from typing import Any

import pytest
from agent_requests import AGENT_REQUESTS, CODEX, CODEX_SECOND_STEP
from agents import (
    Agent,
    ModelSettings,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from openai.types.responses import Response
from response_events import PATH, fold, parse
from running_server import RunningServer
from scripted_engine import BUNDLED_TOKENIZER, ScriptedEngine, SpeakingEngine, call, delta

from rillm.formats.registry import combine
from rillm.output_formats import OutputFormats

FORMATS = OutputFormats(combine("hermes", "qwen3"), BUNDLED_TOKENIZER)
PATCH = (
    '<tool_call>\n{"name": "apply_patch", "arguments": {"input": "*** Begin Patch\\n"}}\n'
    "</tool_call>"
)


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_openai_agents_run_a_loop_of_two_steps(
    server: RunningServer, is_streamed: bool
) -> None:
    set_tracing_disabled(True)
    asked: list[str] = []

    @function_tool
    def get_weather(city: str) -> str:
        """Get the weather in a city.

        Args:
            city: Name of the city.
        """
        asked.append(city)
        return '{"weather": "rain"}'

    async with AsyncOpenAI(base_url=server.url, api_key="any", timeout=100) as client:
        agent = Agent(
            name="weather",
            model=OpenAIResponsesModel("bundled", client),
            model_settings=ModelSettings(temperature=0, max_tokens=200, store=True),
            tools=[get_weather],
        )
        if is_streamed:
            streamed = Runner.run_streamed(agent, "What is the weather in Oslo?")
            kinds = [event.type async for event in streamed.stream_events()]
            assert "raw_response_event" in kinds
            output, steps = streamed.final_output, streamed.raw_responses
        else:
            result = await Runner.run(agent, "What is the weather in Oslo?")
            output, steps = result.final_output, result.raw_responses

    assert asked == ["Oslo"]
    assert "rain" in output
    assert len(steps) == 2
    assert all(step.usage.output_tokens > 0 for step in steps)


@pytest.mark.parametrize("name", AGENT_REQUESTS)
async def test_requests_of_agents_are_served_streamed_and_whole(name: str) -> None:
    request = AGENT_REQUESTS[name]
    engine = SpeakingEngine("<think>\nhm\n</think>\n\nDone.", formats=FORMATS)

    streamed = await call(engine, PATH, request | {"stream": True})
    whole = await call(engine, PATH, request | {"stream": False})

    assert (streamed.status, whole.status) == (200, 200), whole.body
    events = parse(streamed.body)
    assert events[-1]["type"] == "response.completed"
    assert fold(events)["output"][-1]["content"][0]["text"] == "Done."
    Response.model_validate({**whole.json(), "tools": []})


async def test_the_model_is_offered_what_callers_run_and_told_what_came_of_it() -> None:
    engine = ScriptedEngine([delta(0, "a", finish="stop")])
    engine.formats = FORMATS
    await call(engine, PATH, CODEX_SECOND_STEP)

    text = BUNDLED_TOKENIZER.decode(engine.seen[0][0]["prompt_token_ids"])
    for said in (
        "You are a coding agent.\n\n<permissions>",
        '"name": "shell"',
        '"name": "apply_patch"',
        "*** Begin Patch",
        "List the files.",
        "I list them.",
        "a.txt",
        "Success.",
    ):
        assert said in text, said
    assert "web_search" not in text
    assert text.startswith("system\n")
    assert "\nsystem\n" not in text


async def test_a_custom_tool_of_an_agent_is_called_as_one() -> None:
    engine = SpeakingEngine(PATCH, formats=FORMATS)

    response = fold(parse((await call(engine, PATH, CODEX)).body))

    [item] = response["output"]
    assert (item["type"], item["name"]) == ("custom_tool_call", "apply_patch")
    assert item["input"] == "*** Begin Patch\n"


@pytest.mark.parametrize(
    ("choice", "offered"),
    [
        ("auto", {"shell", "update_plan", "apply_patch"}),
        ({"type": "custom", "name": "apply_patch"}, {"shell", "update_plan", "apply_patch"}),
        (
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "shell"}, {"type": "web_search"}],
            },
            {"shell"},
        ),
    ],
)
async def test_a_choice_can_leave_tools_out(choice: Any, offered: set[str]) -> None:
    engine = ScriptedEngine([delta(0, "a", finish="stop")])
    engine.formats = FORMATS

    answer = await call(engine, PATH, CODEX | {"tool_choice": choice, "stream": False})

    text = BUNDLED_TOKENIZER.decode(engine.seen[0][0]["prompt_token_ids"])
    names = {"shell", "update_plan", "apply_patch"}
    assert {name for name in names if f'"name": "{name}"' in text} == offered
    assert answer.json()["tool_choice"] == choice
