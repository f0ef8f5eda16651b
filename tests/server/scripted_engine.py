"""An engine that plays a script, and an ASGI client that shows every write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from generated_outputs import GeneratingEngine
from starlette.types import ASGIApp

from rillm.engine.messages import StepStats
from rillm.engine_args import EngineArgs
from rillm.input_processor import TokensPrompt
from rillm.models.config import GenerationConfig, ModelConfig
from rillm.output_formats import OutputFormats
from rillm.outputs import CompletionOutput, RequestOutput
from rillm.sampling_params import SamplingParams
from rillm.server.app import create_app
from rillm.server.observed import ObservedApp
from rillm.server.options import HttpOptions
from rillm.text.tokenizer import Tokenizer

BUNDLED_CONFIG = ModelConfig.from_directory(EngineArgs().model_directory())
BUNDLED_TOKENIZER = Tokenizer.from_directory(EngineArgs().model_directory())

Step = Sequence[CompletionOutput] | Exception


def delta(
    index: int,
    text: str,
    token_ids: Sequence[int] = (7,),
    finish: str | None = None,
    stop_reason: int | str | None = None,
) -> CompletionOutput:
    """One choice of one step."""
    return CompletionOutput(
        index=index,
        text=text,
        token_ids=list(token_ids),
        finish_reason=finish,
        stop_reason=stop_reason,
    )


class ScriptedEngine(GeneratingEngine):
    """Plays one script to every request; a step is outputs, or an error to raise.

    With `holds`, a request waits for ever after its script instead of ending.
    """

    formats: OutputFormats | None = None
    """How the application reads what the engine says."""

    def __init__(self, *steps: Step, holds: bool = False) -> None:
        self._steps = steps
        self._holds = holds
        self.generation_config = GenerationConfig()
        self.model_config = BUNDLED_CONFIG
        self.max_model_len = 2048
        self.max_logprobs = 20
        self.ready_info: object | None = object()
        self.errored = False
        self.is_restarting = False
        self.num_restarts = 0
        self.engine_stats: StepStats | None = None
        self.arrivals = asyncio.Semaphore(0)
        """Released once for each request that has begun."""
        self.seen: list[tuple[TokensPrompt, SamplingParams, str, int]] = []

    def get_tokenizer(self) -> Tokenizer:
        return BUNDLED_TOKENIZER

    async def check_constraint(self, sampling_params: SamplingParams) -> None:
        pass

    async def abort(self, request_id: str | Iterable[str]) -> None:
        raise NotImplementedError

    async def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        self.seen.append((prompt, sampling_params, request_id, priority))
        self.arrivals.release()
        for step in self._steps:
            await asyncio.sleep(0)
            if isinstance(step, Exception):
                raise step
            yield RequestOutput(
                request_id=request_id,
                prompt=None,
                prompt_token_ids=prompt["prompt_token_ids"],
                outputs=list(step),
                finished=False,
                num_cached_tokens=3,
            )
        if self._holds:
            await asyncio.get_running_loop().create_future()


class SpeakingEngine(ScriptedEngine):
    """Says one text, or its tokens, for each choice, token by token; the choices take turns."""

    def __init__(
        self, *texts: str | list[int], finish: str = "stop", formats: OutputFormats
    ) -> None:
        super().__init__()
        self.formats = formats
        self._texts = texts
        self._finish = finish

    async def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        tokenizer = BUNDLED_TOKENIZER
        ids = [tokenizer.encode(text) if isinstance(text, str) else text for text in self._texts]
        detokenizers = [tokenizer.detokenizer(stand_ins=stand_ins) for _ in ids]
        for position in range(max(map(len, ids)) + 1):
            outputs = []
            for index, detokenizer in enumerate(detokenizers):
                new_ids = ids[index][position : position + 1]
                text = detokenizer.push(new_ids)
                if position == len(ids[index]):
                    outputs.append(delta(index, text + detokenizer.finish(), (), self._finish))
                elif new_ids:
                    outputs.append(delta(index, text, new_ids))
            if outputs:
                yield RequestOutput(
                    request_id=request_id,
                    prompt=None,
                    prompt_token_ids=prompt["prompt_token_ids"],
                    outputs=outputs,
                    finished=False,
                    num_cached_tokens=0,
                )


@dataclass
class Answer:
    """What an ASGI application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    writes: list[bytes] = field(default_factory=list)
    """Bodies that were not empty, one for each send."""
    is_complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        return parse_events(self.body)


def parse_events(body: bytes) -> list[Any]:
    """The data of each server-sent event, decoded; `[DONE]` stays text."""
    assert body.endswith(b"\n\n")
    blocks = body.decode().removesuffix("\n\n").split("\n\n")
    assert all(block.startswith("data: ") for block in blocks)
    data = [block.removeprefix("data: ") for block in blocks]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


def new_app(engine: ScriptedEngine, options: HttpOptions | None = None) -> ObservedApp:
    """An application over `engine`."""
    return create_app(
        engine,
        model_names=["scripted", "other-name"],
        model_root="root",
        formats=engine.formats,
        options=options,
    )


async def call(
    engine: ScriptedEngine,
    path: str,
    body: Any,
    *,
    method: str = "POST",
    content_type: str = "application/json",
    headers: Sequence[tuple[str, str]] = (),
    disconnect: asyncio.Event | None = None,
    stalled: asyncio.Event | None = None,
    on_write: Callable[[bytes], None] | None = None,
) -> Answer:
    """Send one request to an application over `engine`.

    With `disconnect` set the connection ends. With `stalled` the client reads nothing: the first
    write sets it and never returns. `on_write` sees each write.
    """
    return await call_app(
        new_app(engine),
        path,
        body,
        method=method,
        content_type=content_type,
        headers=headers,
        disconnect=disconnect,
        stalled=stalled,
        on_write=on_write,
    )


async def call_app(
    app: ASGIApp,
    path: str,
    body: Any,
    *,
    method: str = "POST",
    content_type: str = "application/json",
    headers: Sequence[tuple[str, str]] = (),
    disconnect: asyncio.Event | None = None,
    stalled: asyncio.Event | None = None,
    on_write: Callable[[bytes], None] | None = None,
    pauses: Iterator[int] | None = None,
    query: bytes = b"",
) -> Answer:
    """Send one request to an application; as `call`.

    Each of `pauses` says for how many turns of the event loop a write has to wait.
    """
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    requests = [{"type": "http.request", "body": raw, "more_body": False}]
    answer = Answer()

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        if disconnect is not None:
            await disconnect.wait()
            return {"type": "http.disconnect"}
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert answer.status == 0
            answer.status = message["status"]
            answer.headers = {key.decode(): value.decode() for key, value in message["headers"]}
        else:
            assert answer.status != 0
            if stalled is not None:
                stalled.set()
                await asyncio.get_running_loop().create_future()
            for _ in range(0 if pauses is None else next(pauses, 0)):
                await asyncio.sleep(0)
            if message.get("body"):
                answer.writes.append(message["body"])
                if on_write is not None:
                    on_write(message["body"])
            answer.is_complete = not message.get("more_body", False)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": [
            (b"content-type", content_type.encode()),
            *((key.encode(), value.encode()) for key, value in headers),
        ],
    }
    await app(scope, receive, send)
    return answer
