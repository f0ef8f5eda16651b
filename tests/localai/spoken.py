"""A backend over gRPC, in this process, whose engine says given texts cut in given ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from contract import Client, predict_options
from generated_outputs import GeneratingEngine

from rillm.embedding import EmbeddingOutput
from rillm.engine.config import EngineInfo
from rillm.engine_args import EngineArgs
from rillm.input_processor import PromptType, TokensPrompt
from rillm.localai.backend import Backend
from rillm.localai.backend_pb2 import ModelOptions, PredictOptions
from rillm.localai.model import LoadedModel, ModelHost
from rillm.localai.request import read_predict_options
from rillm.localai.service import new_server
from rillm.localai.settings import ModelSettings
from rillm.output_formats import choose_formats
from rillm.outputs import CompletionOutput, RequestOutput
from rillm.sampling_params import SamplingParams
from rillm.streams import Generation
from rillm.text.tokenizer import Tokenizer

DIRECTORY = EngineArgs().model_directory()
TOKENIZER = Tokenizer.from_directory(DIRECTORY)


class SpokenEngine(GeneratingEngine):
    """Says token ids to every request, `sizes` of them at a time, over and over.

    Args:
        said: token ids, or a text of which they are made.
        sizes: tokens of each output; empty: all at once.
        finish: the finish reason.
        error: raised after `num_before_error` outputs.
        holds: wait for ever in place of the end.
    """

    tokenizer = TOKENIZER
    errored = False
    ready_info: EngineInfo | None = None

    def __init__(
        self,
        said: str | Sequence[int],
        *,
        sizes: Sequence[int] = (1,),
        finish: str = "stop",
        error: Exception | None = None,
        num_before_error: int = 0,
        holds: bool = False,
    ) -> None:
        self.said = TOKENIZER.encode(said) if isinstance(said, str) else list(said)
        self._sizes = sizes
        self._finish = finish
        self._error = error
        self._num_before_error = num_before_error
        self._holds = holds
        self.seen: list[tuple[TokensPrompt, SamplingParams]] = []

    async def wait_ready(self) -> None:
        pass

    async def aclose(self) -> None:
        self.errored = True

    def shutdown(self) -> None:
        self.errored = True

    async def embed(self, prompt: PromptType) -> EmbeddingOutput:
        raise NotImplementedError

    def _pieces(self) -> list[list[int]]:
        pieces: list[list[int]] = []
        at = 0
        while at < len(self.said):
            size = self._sizes[len(pieces) % len(self._sizes)] if self._sizes else len(self.said)
            pieces.append(self.said[at : at + size])
            at += size
        return pieces

    async def generate(
        self,
        prompt: TokensPrompt,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        self.seen.append((prompt, sampling_params))
        detokenizer = TOKENIZER.detokenizer(stand_ins=stand_ins)
        for number, token_ids in enumerate([*self._pieces(), []]):
            await asyncio.sleep(0)
            if self._error is not None and number == self._num_before_error:
                raise self._error
            is_last = not token_ids
            if is_last and self._holds:
                await asyncio.get_running_loop().create_future()
            text = detokenizer.push(token_ids) + (detokenizer.finish() if is_last else "")
            yield RequestOutput(
                request_id=request_id,
                prompt=None,
                prompt_token_ids=prompt["prompt_token_ids"],
                outputs=[
                    CompletionOutput(
                        0, text, token_ids, finish_reason=self._finish if is_last else None
                    )
                ],
                finished=is_last,
            )


class TestedBackend(Backend):
    """A backend that shows what a request is to the engine."""

    async def generation(self, options: dict[str, Any]) -> Generation:
        request = PredictOptions.FromString(predict_options(**options).SerializeToString())
        return read_predict_options(request, self._host.model()).generation


@asynccontextmanager
async def loaded_backend(engine: SpokenEngine, *options: str) -> AsyncIterator[TestedBackend]:
    """A backend, without gRPC, that has loaded `engine` with these options."""

    def start(settings: ModelSettings) -> LoadedModel:
        chosen = choose_formats(
            DIRECTORY,
            TOKENIZER,
            "bundled",
            tool_name=settings.tool_parser,
            reasoning_name=settings.reasoning_parser,
            tool_plugin=settings.tool_parser_plugin,
        )
        return LoadedModel(settings, engine, TOKENIZER, chosen)

    host = ModelHost(start)
    backend = TestedBackend(host)
    result = await backend.load_model(ModelOptions(Model="spoken", Options=options))
    assert result.success, result.message
    try:
        yield backend
    finally:
        await host.unload()


@asynccontextmanager
async def speaking(engine: SpokenEngine, *options: str) -> AsyncIterator[Client]:
    """A client of such a backend over gRPC."""
    async with loaded_backend(engine, *options) as backend:
        server = new_server(backend, None)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield Client(f"127.0.0.1:{port}")
        finally:
            await server.stop(0)
