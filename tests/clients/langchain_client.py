"""langchain-openai against a server, whose URL is the first argument."""

from __future__ import annotations

import sys

import openai
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI


def get_weather(city: str) -> str:
    """Get the weather in a city.

    Args:
        city: Name of the city.
    """
    return f"rain in {city}"


def main(url: str) -> None:
    """Check what a LangChain application relies on."""
    options = {
        "base_url": f"{url}/v1",
        "api_key": "any",
        "model": "bundled",
        "max_retries": 0,
        "max_tokens": 200,
    }
    model = ChatOpenAI(**options, temperature=0, stream_usage=True)

    whole = model.invoke("Hello!")
    chunks = list(model.stream("Hello!"))
    streamed = chunks[0]
    for chunk in chunks[1:]:
        streamed += chunk
    assert len(chunks) > 3
    assert streamed.content == whole.content != ""
    for key in ("input_tokens", "output_tokens", "total_tokens"):
        assert streamed.usage_metadata[key] == whole.usage_metadata[key] > 0
    assert streamed.response_metadata["finish_reason"] == "stop"

    with_tools = model.bind_tools([get_weather])
    question = [HumanMessage("What is the weather in Oslo?")]
    call = None
    for chunk in with_tools.stream(question):
        call = chunk if call is None else call + chunk
    assert call is not None
    [found] = call.tool_calls
    assert (found["name"], found["args"]) == ("get_weather", {"city": "Oslo"})
    assert call.response_metadata["finish_reason"] == "tool_calls"
    [also] = with_tools.invoke(question).tool_calls
    assert also["args"] == found["args"]

    several = ChatOpenAI(**options, temperature=1, n=2, seed=3)
    [generations] = several.generate([[HumanMessage("Hello!")]]).generations
    assert len(generations) == 2

    thinking = ChatOpenAI(
        **options, temperature=0, extra_body={"chat_template_kwargs": {"enable_thinking": True}}
    )
    answer = thinking.invoke("Hello!")
    assert "think>" not in answer.content
    details = answer.usage_metadata["output_token_details"]
    assert details["reasoning"] > 0

    refused = None
    try:
        ChatOpenAI(**options, temperature=5).invoke("Hello!")
    except openai.BadRequestError as error:
        refused = error.param
    assert refused == "temperature"


if __name__ == "__main__":
    main(sys.argv[1])
