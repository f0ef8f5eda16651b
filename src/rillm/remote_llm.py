"""RemoteLLM: an engine behind HTTP, with the interface of `AsyncLLM`.

A frontend without weights: prompts are checked and tokenized here, tokens come from any server
that speaks `/inference/v1/generate` (another rillm, or vLLM started with its scale-out endpoints),
and text, stop strings and logprobs are made of them here, by the same request state as beside a
local engine. So a face cannot tell the two apart.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec

from rillm.engine_args import BUNDLED_MODEL, EngineArgs
from rillm.errors import (
    CapacityError,
    EngineDeadError,
    EngineError,
    EngineGenerateError,
    InvalidRequestError,
)
from rillm.input_processor import InputProcessor, Limits, ProcessedRequest, PromptType
from rillm.models.config import GenerationConfig, ModelConfig, read_generation_config
from rillm.output_processor import RequestState
from rillm.outputs import RequestOutput
from rillm.sampling_params import SamplingParams
from rillm.text.tokenizer import Tokenizer
from rillm.token_wire import Answer, answer_deltas, generate_body, read_stream

_RETRY_S: Final = 1.0
_MAX_SEQUENCES: Final = 16384
"""What one request may ask for; the engine knows its own limit."""
_CONNECT_TIMEOUT_S: Final = 5.0

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class RemoteEngineArgs:
    """Which engines, and whose tokenizer."""

    engine: list[str]
    """URLs of servers with the token endpoint, all of one model; tried in turn."""
    model: str = BUNDLED_MODEL
    """Directory or hub id of the model's configuration and tokenizer; weights are not read."""
    served_model_name: str | list[str] | None = None
    """Names the model answers to; by default what `model` says."""
    engine_api_key: str | None = None
    """Sent to the engines as a bearer token."""
    max_logprobs: int = 20
    """Most alternatives a request may ask for; -1: the whole vocabulary."""
    seed: int | None = None
    """Makes requests without a seed of their own repeatable in order of arrival."""


class RemoteLLM:
    """Engines elsewhere, a tokenizer here, and any number of streams.

    Attributes:
        directory: of the model's files.
        generation_config: the sampling defaults that the model recommends.
    """

    def __init__(
        self, args: RemoteEngineArgs, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """Read the model's files; nothing is sent yet.

        Args:
            args: the settings.
            transport: how requests travel; None for the network.

        Raises:
            ConfigError: the model's configuration or tokenizer cannot be read.
        """
        files = EngineArgs(model=args.model, served_model_name=args.served_model_name)
        self.args = files
        self.directory: Path = files.model_directory()
        self.model_config = ModelConfig.from_directory(self.directory)
        self.tokenizer = Tokenizer.from_directory(self.directory)
        self.generation_config: GenerationConfig = read_generation_config(self.directory)
        self.ready_info: object | None = None
        self.errored = False
        self.max_model_len = self.model_config.max_position_embeddings
        self._inputs = InputProcessor(
            self.model_config,
            self.generation_config,
            self.tokenizer,
            max_logprobs=args.max_logprobs,
            seed=args.seed,
        )
        headers = {"Authorization": f"Bearer {args.engine_api_key}"} if args.engine_api_key else {}
        self._client = httpx2.AsyncClient(
            headers=headers,
            transport=transport,
            # A token may take as long as it takes: a prefill before it can be long.
            timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
        )
        self._urls = [url.rstrip("/") for url in args.engine]
        self._turns = itertools.count()

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.tokenizer

    async def wait_ready(self) -> None:
        """Wait until an engine answers, and learn how long a context it takes."""
        while self.ready_info is None:
            for url in self._urls:
                try:
                    response = await self._client.get(f"{url}/v1/models")
                    response.raise_for_status()
                except httpx2.HTTPError as error:
                    logger.info("engine %s is not ready: %s", url, error)
                    continue
                card = response.json()["data"][0]
                self.max_model_len = card.get("max_model_len") or self.max_model_len
                self.ready_info = card
                return
            await asyncio.sleep(_RETRY_S)

    async def generate(
        self,
        prompt: PromptType,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Stream one request; as `AsyncLLM.generate`.

        Raises:
            InvalidRequestError: the prompt or a parameter is not acceptable, here or there.
            CapacityError: no engine has room.
            EngineGenerateError: an engine failed on this request.
            EngineDeadError: no engine answers.
        """
        await self.wait_ready()
        limits = Limits(max_model_len=self.max_model_len, max_num_seqs=_MAX_SEQUENCES)
        processed = self._inputs.process(0, prompt, sampling_params, limits, priority)
        state = RequestState(processed, request_id, self.tokenizer, stand_ins=stand_ins)
        async with aclosing(self._answers(processed, request_id, priority)) as answers:
            async for answer in answers:
                for delta in answer_deltas(answer):
                    # A stop string is found here. The engine goes on until the connection is
                    # closed, which it is when no choice is left.
                    state.add(delta)
                output = state.take()
                if output is not None:
                    yield output
                if state.is_finished:
                    return
        raise EngineGenerateError("an engine ended a stream before its last token")

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _answers(
        self, processed: ProcessedRequest, request_id: str, priority: int
    ) -> AsyncGenerator[Answer, None]:
        """What an engine says, from the first one that says anything."""
        body = msgspec.json.encode(generate_body(processed, priority))
        first = next(self._turns)
        error: EngineError | CapacityError = EngineDeadError("there is no engine")
        for offset in range(len(self._urls)):
            url = self._urls[(first + offset) % len(self._urls)]
            has_begun = False
            try:
                async with aclosing(self._ask(url, body, request_id)) as answers:
                    async for answer in answers:
                        has_begun = True
                        yield answer
                return
            except (httpx2.TransportError, EngineError, CapacityError) as failure:
                if has_begun:
                    raise _failure_midway(failure) from failure
                logger.warning("engine %s failed, trying the next: %s", url, failure)
                error = (
                    failure
                    if isinstance(failure, EngineError | CapacityError)
                    else EngineDeadError(f"{url} does not answer")
                )
        raise error

    async def _ask(self, url: str, body: bytes, request_id: str) -> AsyncGenerator[Answer, None]:
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        async with self._client.stream(
            "POST", f"{url}/inference/v1/generate", content=body, headers=headers
        ) as response:
            if response.status_code != httpx2.codes.OK:
                raise _refusal(response.status_code, await response.aread())
            if "event-stream" not in response.headers.get("content-type", ""):
                yield msgspec.json.decode(await response.aread(), type=Answer)
                return
            async with aclosing(read_stream(response.aiter_bytes())) as answers:
                async for answer in answers:
                    yield answer


def _failure_midway(failure: Exception) -> EngineError:
    if isinstance(failure, EngineError):
        return failure
    return EngineGenerateError("the connection to the engine broke")


def _refusal(status: int, body: bytes) -> Exception:
    """What an engine's refusal means for the caller."""
    try:
        error: dict[str, Any] = msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        error = {"message": f"the engine answered with status {status}"}
    message = str(error.get("message"))
    if status in (httpx2.codes.SERVICE_UNAVAILABLE, httpx2.codes.TOO_MANY_REQUESTS):
        return CapacityError(message)
    if httpx2.codes.is_client_error(status):
        param = error.get("param")
        return InvalidRequestError(message, param=param if isinstance(param, str) else None)
    return EngineGenerateError(message)
