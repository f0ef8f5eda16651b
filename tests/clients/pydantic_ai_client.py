"""pydantic-ai against a server, whose URL is the first argument."""

from __future__ import annotations

import asyncio
import sys

from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.messages import ThinkingPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

THINK = {"chat_template_kwargs": {"enable_thinking": True}}


async def main(url: str) -> None:
    """Check what an agent relies on: streams, a tool's round trip, reasoning, usage, errors."""
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="any")
    model = OpenAIChatModel("bundled", provider=provider)
    settings = {"temperature": 0.0, "max_tokens": 200}
    plain = Agent(model, model_settings=settings)

    whole = await plain.run("Hello!")
    async with plain.run_stream("Hello!") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
        usage = stream.usage() if callable(stream.usage) else stream.usage
    assert "".join(pieces).strip() == whole.output.strip() != ""
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0

    asked: list[str] = []
    agent = Agent(model, model_settings=settings)

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Get the weather in a city.

        Args:
            city: Name of the city.
        """
        asked.append(city)
        return '{"weather": "rain"}'

    result = await agent.run("What is the weather in Oslo?")
    assert asked == ["Oslo"]
    assert result.output
    async with agent.run_stream("What is the weather in Oslo?") as stream:
        assert await stream.get_output()
    assert asked == ["Oslo", "Oslo"]

    thinker = Agent(model, model_settings={**settings, "extra_body": THINK})
    messages = (await thinker.run("Hello!")).all_messages()
    thoughts = [
        part
        for message in messages
        for part in message.parts
        if isinstance(part, ThinkingPart) and part.content
    ]
    assert thoughts

    refusal = None
    try:
        await Agent(model, model_settings={"temperature": 5.0}).run("Hello!")
    except ModelHTTPError as error:
        refusal = (error.status_code, error.body)
    assert refusal is not None
    assert refusal[0] == 400
    assert "temperature" in str(refusal[1])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
