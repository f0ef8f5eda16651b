"""litellm against a server, whose URL is the first argument."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# Else it asks the network for prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Name of the city."}},
                "required": ["city"],
            },
        },
    }
]


def main(url: str) -> None:
    """Check what a proxy or an application on litellm relies on."""

    def ask(content: str, **options: Any) -> Any:
        return litellm.completion(
            model="openai/bundled",
            api_base=f"{url}/v1",
            api_key="any",
            messages=[{"role": "user", "content": content}],
            num_retries=0,
            **({"temperature": 0, "max_tokens": 200} | options),
        )

    whole = ask("Hello!")
    chunks = list(ask("Hello!", stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content != ""
    [usage] = [c.usage for c in chunks if getattr(c, "usage", None)]
    assert usage.total_tokens == whole.usage.total_tokens > 0

    chunks = list(ask("What is the weather in Oslo?", tools=TOOLS, stream=True))
    built = litellm.stream_chunk_builder(chunks)
    [call] = built.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assert built.choices[0].finish_reason == "tool_calls"

    think = {"chat_template_kwargs": {"enable_thinking": True}}
    message = ask("Hello!", extra_body=think).choices[0].message
    chunks = list(ask("Hello!", extra_body=think, stream=True))
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert reasoning == message.reasoning_content != ""

    assert len(ask("Hello!", n=2, temperature=1, seed=3).choices) == 2
    streams: dict[int, str] = {}
    for chunk in ask("Hello!", n=2, temperature=1, seed=3, stream=True):
        for choice in chunk.choices:
            streams[choice.index] = streams.get(choice.index, "") + (choice.delta.content or "")
    assert all(streams.values())

    refusal = ""
    try:
        ask("Hello!", temperature=5)
    except litellm.BadRequestError as error:
        refusal = str(error)
    assert "temperature" in refusal


if __name__ == "__main__":
    main(sys.argv[1])
