"""A backend with the bundled model, started as LocalAI starts it, and spoken to as Go does it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from contract import (
    BUSY,
    ERROR,
    LAYOUT_FINAL,
    READY,
    UNINITIALIZED,
    Client,
    chat,
    predict_options,
)
from folded import fold
from started import (
    ENGINE_ARGS,
    FOLDER,
    Started,
    environment,
    free_port,
    started,
    wait_until_healthy,
)

pytestmark = pytest.mark.usefixtures("one_event_loop")

TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    ]
)
FORCED_TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": name,
                "parameters": {
                    "type": "object",
                    "properties": {"port": {"enum": ["Brest", "Oslo"]}},
                    "required": ["port"],
                },
            },
        }
        for name in ("get_weather", "get_tide")
    ]
)
STORY = (
    "<|im_start|>user\nTell me a story.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""A conversation that Go has rendered."""
BUNDLED = {
    "Model": "bundled",
    "ContextSize": 4096,
    "NBatch": 512,
    "MMap": True,
    "Options": ["tool_parser:hermes", "reasoning_parser:qwen3", "--no-such-flag:1"],
    "EngineArgs": ENGINE_ARGS,
}


@pytest.fixture(scope="module")
async def backend(one_event_loop: None) -> AsyncIterator[Started]:
    """With the bundled model; states that were seen on the way stand in `states`."""
    async with started() as backend:
        client = backend.client
        await wait_until_healthy(client)
        assert await client.state() == UNINITIALIZED
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client.predict(Prompt=STORY)
        assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        load = asyncio.create_task(client.load(**BUNDLED))
        states = set()
        while not load.done():
            assert await client.health() == b"OK"
            states.add(await client.state())
            await asyncio.sleep(0.1)
        result = await load
        assert (result.success, result.message) == (True, "Model loaded successfully")
        assert BUSY in states
        yield backend


@pytest.fixture
def client(backend: Started) -> Client:
    return backend.client


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value.code(), failure.value.details() or ""


async def test_the_same_load_again_is_done_at_once(client: Client) -> None:
    result = await client.load(**BUNDLED)
    assert (result.success, result.message) == (True, "Model loaded successfully")
    assert await client.state() == READY


async def test_requests_for_another_model_are_refused(client: Client) -> None:
    options = {"Prompt": STORY, "Tokens": 2}
    for call in (
        client.predict(**options, ModelIdentity="other"),
        client.replies(**options, ModelIdentity="other"),
        client.tokenize("a", ModelIdentity="other"),
        client.call("Embedding", predict_options(Embeddings="a", ModelIdentity="other")),
    ):
        code, details = await code_of(call)
        assert code is grpc.StatusCode.NOT_FOUND
        assert "model identity mismatch" in details
    assert (await client.predict(**options, ModelIdentity="bundled")).tokens == 2
    assert (await client.predict(**options, ModelIdentity="")).tokens == 2


@pytest.mark.parametrize(
    "options", [{"Prompt": STORY}, chat("Tell me a story.")], ids=["prompt", "messages"]
)
async def test_the_stream_is_the_answer_and_the_counts_are_exact(
    client: Client, options: dict[str, Any]
) -> None:
    """Greedy, so that both are the same; as many tokens as were allowed."""
    replies = await client.replies(**options, Tokens=24)
    whole = await client.predict(**options, Tokens=24)

    answer = fold(replies)
    assert answer.content == fold([whole]).content == whole.message.decode()
    assert answer.tokens == whole.tokens == 24
    assert answer.prompt_tokens == whole.prompt_tokens > 5
    if "Prompt" in options:
        assert answer.prompt_tokens == len(await client.tokenize(STORY))
    # A text is as many tokens as it was made of, but for the ones that open it.
    assert abs(len(await client.tokenize(answer.content)) - 24) <= 1
    for last in (replies[-1], whole):
        assert last.timing_prompt_processing > 0
        assert last.timing_token_generation > 0


async def test_an_answer_that_ends_by_itself_counts_its_end(client: Client) -> None:
    answer = fold(await client.replies(**chat("Hello!"), Tokens=200))
    assert answer.content
    assert abs(len(await client.tokenize(answer.content)) - answer.tokens) <= 1


async def test_seeds_decide_the_answer(client: Client) -> None:
    async def answer(seed: int) -> str:
        options = {"Prompt": STORY, "Tokens": 24, "Temperature": 1.5, "Seed": seed}
        return fold(await client.replies(**options)).content

    first, again, *others = [await answer(seed) for seed in (7, 7, 8, 9)]
    assert first == again
    assert {first} != {first, *others}


async def test_nothing_of_a_stop_string_is_seen(client: Client) -> None:
    text = fold(await client.replies(Prompt=STORY, Tokens=30)).content
    for start in range(10, 20):
        stop = text[start : start + 7]
        replies = await client.replies(Prompt=STORY, Tokens=30, StopPrompts=[stop, "\0"])
        assert fold(replies).content == text[: text.index(stop)]


async def test_a_call_comes_apart_from_text(client: Client) -> None:
    options = chat("What is the weather in Oslo?", Tools=TOOLS, ToolChoice='"auto"', Tokens=200)
    replies = await client.replies(**options)
    answer, whole = fold(replies), fold([await client.predict(**options)])
    ((name, arguments),) = answer.named_calls()
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Oslo"})
    assert (whole.content, whole.named_calls()) == (answer.content, answer.named_calls())
    assert "<tool_call>" not in answer.content


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"get_weather", "get_tide"}),
        ('{"type": "function", "function": {"name": "get_tide"}}', {"get_tide"}),
    ],
)
async def test_a_forced_call_is_a_call_that_fits(
    client: Client, choice: str, names: set[str]
) -> None:
    for seed in range(3):
        options = chat(
            "Tell me a story.",
            Tools=FORCED_TOOLS,
            ToolChoice=choice,
            Temperature=1.0,
            Seed=seed,
            Tokens=400,
        )
        for replies in (await client.replies(**options), [await client.predict(**options)]):
            answer = fold(replies)
            assert not answer.content
            calls = answer.named_calls()
            assert calls
            # More calls may follow, the last of them cut off.
            for name, arguments in calls[: None if answer.tokens < 400 else -1]:
                assert name in names
                assert json.loads(arguments) in [{"port": "Brest"}, {"port": "Oslo"}]


async def test_reasoning_is_shown_where_it_is_asked_for(client: Client) -> None:
    question = "What is 2 + 2?"
    thinks = fold(
        await client.replies(**chat(question, Metadata={"enable_thinking": "true"}, Tokens=200))
    )
    plain = fold(
        await client.replies(**chat(question, Metadata={"enable_thinking": "false"}, Tokens=200))
    )
    assert thinks.reasoning
    assert not plain.reasoning
    assert "<think>" not in thinks.content + thinks.reasoning + plain.content


async def test_a_stream_that_is_left_frees_the_engine(client: Client) -> None:
    other = asyncio.create_task(client.replies(Prompt=STORY, Tokens=40))
    stream = client.stream(Prompt=STORY, IgnoreEOS=True)
    await anext(stream)
    await stream.aclose()

    assert fold(await other).tokens == 40
    while await client.state() != READY:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_streams_run_beside_each_other(client: Client) -> None:
    limits = list(range(2, 34))
    streams = await asyncio.gather(
        *(client.replies(Prompt=STORY, Tokens=limit, IgnoreEOS=True) for limit in limits)
    )
    assert [fold(replies).tokens for replies in streams] == limits


async def test_logprobs_are_those_of_the_tokens(client: Client) -> None:
    options = {"Prompt": STORY, "Tokens": 5, "Logprobs": 2, "TopLogprobs": 2}
    for last in ((await client.replies(**options))[-1], await client.predict(**options)):
        content = json.loads(last.logprobs)["content"]
        assert len(content) == 5
        for entry in content:
            assert set(entry) == {"id", "token", "bytes", "logprob", "top_logprobs"}
            assert bytes(entry["bytes"]).decode(errors="replace") == entry["token"]
            # Greedy: the token is the best of its alternatives.
            assert [top["id"] for top in entry["top_logprobs"]][0] == entry["id"]
            assert len(entry["top_logprobs"]) == 2
        assert await client.detokenize([entry["id"] for entry in content])


async def test_biases_are_obeyed(client: Client) -> None:
    options = {"Prompt": STORY, "Tokens": 1, "Logprobs": 1}
    (best,) = json.loads((await client.predict(**options)).logprobs)["content"]
    bias = json.dumps({str(best["id"]): -100})
    (other,) = json.loads((await client.predict(**options, LogitBias=bias)).logprobs)["content"]
    assert other["id"] != best["id"]
    forced = await client.predict(**options, LogitBias='{"500": 100}')
    assert [each["id"] for each in json.loads(forced.logprobs)["content"]] == [500]


# What Go makes of `response_format: {"type": "json_object"}`, and of a small schema.
JSON_GBNF = r"""
root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\] |
    "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F]) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]*)) ("." [0-9]+)? ([eE] [-+]? [0-9]+)? ws

ws ::= ([ \t\n] ws)?
"""
SCHEMA_GBNF = r"""
root ::= "{" sp "\"port\"" sp ":" sp port "," sp "\"days\"" sp ":" sp integer "}" sp
port ::= "\"Brest\"" | "\"Oslo\""
integer ::= ("-"? [0-9] [0-9]?) sp
sp ::= " "?
"""
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"port": {"enum": ["Brest", "Oslo"]}, "days": {"type": "boolean"}},
        "required": ["port", "days"],
        "additionalProperties": False,
    }
)


@pytest.mark.parametrize(
    ("grammar", "kinds"),
    [
        (JSON_GBNF, None),
        (SCHEMA_GBNF, {"port": str, "days": int}),
        (SCHEMA, {"port": str, "days": bool}),
    ],
)
async def test_grammars_are_obeyed(
    client: Client, grammar: str, kinds: dict[str, type] | None
) -> None:
    for seed in range(3):
        options = chat("Any text.", Temperature=1.0, Seed=seed, Grammar=grammar, Tokens=400)
        answer = fold(await client.replies(**options))
        if kinds is None:
            # A value that may be of any length may have been cut off.
            assert answer.content.startswith("{")
            assert answer.tokens == 400 or isinstance(json.loads(answer.content), dict)
        else:
            value = json.loads(answer.content)
            assert {name: type(each) for name, each in value.items()} == kinds


async def test_a_grammar_that_means_nothing_is_refused(client: Client) -> None:
    for grammar in ('root ::= "a', '{"type": 7}', "root ::= missing"):
        code, details = await code_of(client.predict(**chat("Any text."), Grammar=grammar))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert details


async def test_embeddings_say_how_they_lie(client: Client) -> None:
    of_text = await client.call("Embedding", predict_options(Embeddings="The tide turns."))
    tokens = await client.tokenize("The tide turns.")
    of_tokens = await client.call("Embedding", predict_options(EmbeddingTokens=tokens))
    for result in (of_text, of_tokens):
        assert (result.layout, result.tokens) == (LAYOUT_FINAL, 1)
        assert result.dim == len(result.embeddings) == 256
        assert result.prompt_tokens == len(tokens)
    assert list(of_text.embeddings) == pytest.approx(list(of_tokens.embeddings), abs=0.05)
    code, details = await code_of(client.call("Embedding", predict_options()))
    assert (code, "Embeddings" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize("text", ["The tide turns.", "🌊 é\n\n漢", ""])
async def test_text_comes_back_from_its_tokens(client: Client, text: str) -> None:
    assert await client.detokenize(await client.tokenize(text)) == text


async def test_ids_that_no_token_has_are_refused(client: Client) -> None:
    for tokens in ([-1], [2**31 - 1]):
        code, _ = await code_of(client.detokenize(tokens))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_prompt_that_does_not_fit_is_refused(client: Client) -> None:
    code, details = await code_of(client.predict(Prompt="tide " * 5000, Tokens=1))
    assert (code, "maximum context length" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_messages_of_up_to_50_mib_are_taken(client: Client) -> None:
    """What has images is refused by name only when all of it has arrived."""
    mib = "a" * 2**20
    code, details = await code_of(client.predict(**chat("Look."), Images=[mib] * 49))
    assert (code, "Images" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    code, _ = await code_of(client.predict(**chat("Look."), Images=[mib] * 51))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_what_is_not_offered_is_unimplemented(client: Client, backend: Started) -> None:
    async with grpc.aio.insecure_channel(backend.address) as channel:
        method = channel.unary_unary("/backend.Backend/Rerank")
        code, _ = await code_of(method(b""))
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_loads_fail_with_a_reason_and_another_model_takes_the_place() -> None:
    """In a process of its own, told to stop while a stream runs."""
    async with started("--addr", "{}", LOCALAI_GRPC_AUTH_TOKEN="secret", token="secret") as backend:
        client = backend.client
        await wait_until_healthy(client)
        for other in (Client(backend.address), Client(backend.address, "wrong")):
            code, _ = await code_of(other.health())
            assert code is grpc.StatusCode.UNAUTHENTICATED
        for options, reason in (
            ({"EngineArgs": '{"max_num_seq": 4}'}, "did you mean 'max_num_seqs'"),
            ({"Options": ["tool_parser:hermes2"]}, "hermes2"),
            ({"Model": "none/such"}, "none/such"),
        ):
            result = await client.load(**(BUNDLED | options))
            assert not result.success
            assert reason in result.message
        assert await client.state() == ERROR

        abandoned = asyncio.create_task(client.load(**BUNDLED))
        while await client.state() not in (BUSY, READY):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        abandoned.cancel()
        named = BUNDLED | {"ModelFile": str(FOLDER / "none"), "Threads": 1}
        assert (await client.load(**named)).success
        assert (await client.free()).success
        assert await client.state() == UNINITIALIZED
        assert (await client.load(**BUNDLED)).success

        # Few, as those that are not done after some seconds are cut.
        stream = client.stream(Prompt=STORY, Tokens=20, IgnoreEOS=True)
        replies = [await anext(stream)]
        stopping = asyncio.create_task(backend.stop())
        replies += [reply async for reply in stream]
        code, written = await stopping
        assert fold(replies).tokens == 20
        assert code == 0, written
        assert "Traceback" not in written


async def test_an_address_that_is_taken_is_one_line(backend: Started) -> None:
    async with started(f"--addr={backend.address}") as second:
        code, written = await second.end()
    assert code != 0
    assert written.strip().splitlines()[-1].startswith(f"rillm: cannot listen on {backend.address}")


async def test_a_backend_ends_with_the_process_that_started_it() -> None:
    address = f"127.0.0.1:{free_port()}"
    script = (
        "import subprocess, sys; subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL); "
        "sys.stdin.read()"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", script, str(FOLDER / "run.sh"), "--addr", address),
        stdin=subprocess.PIPE,
        env=environment(LOCALAI_BACKEND_PARENT_WATCH_INTERVAL="50ms"),
    )
    client = Client(address)
    await wait_until_healthy(client)

    await parent.communicate(b"")

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await _ask_for_ever(client)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


async def _ask_for_ever(client: Client) -> None:
    while True:
        await client.health()
        await asyncio.sleep(0.05)
