"""Stream three prompts, one after the other, from the asynchronous engine.

    python examples/async_streaming.py [MODEL]

With DELTA each output holds only what is new, so the loop just prints it. Ctrl-C ends the
stream that is running, and the engine with it.
"""

import asyncio
import sys
from contextlib import aclosing

from rillm import AsyncEngineArgs, AsyncLLM, RequestOutputKind, SamplingParams

PROMPTS = [
    "The future of artificial intelligence is",
    "A small stream that runs to the sea",
    "Tell me a short story about a fox.",
]


async def stream_prompt(engine: AsyncLLM, prompt: str, request_id: str) -> None:
    """Print the answer to one prompt as it arrives."""
    params = SamplingParams(
        max_tokens=100,
        temperature=0.8,
        top_p=0.95,
        seed=42,
        output_kind=RequestOutputKind.DELTA,
    )
    print(f"\n{prompt}", end="", flush=True)
    # aclosing: however the loop is left, the request is aborted at once.
    async with aclosing(engine.generate(prompt, params, request_id)) as stream:
        async for output in stream:
            for completion in output.outputs:
                print(completion.text, end="", flush=True)
    print()


async def main() -> None:
    """Start an engine, stream the prompts, stop the engine."""
    args = AsyncEngineArgs(model=sys.argv[1]) if sys.argv[1:] else AsyncEngineArgs()
    engine = AsyncLLM.from_engine_args(args)
    try:
        for number, prompt in enumerate(PROMPTS):
            await stream_prompt(engine, prompt, f"prompt-{number}")
    finally:
        engine.shutdown()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("\ninterrupted")
        sys.exit(130)
