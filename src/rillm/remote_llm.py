"""RemoteLLM: engines behind HTTP, with the interface of `AsyncLLM`.

A frontend without weights: prompts are checked and tokenized here, tokens come from any server
that speaks `/inference/v1/generate` (another rillm, or vLLM started with its scale-out endpoints),
and text, stop strings and logprobs are made of them here, by the same request state as beside a
local engine. So a face cannot tell the two apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

import httpx2
import msgspec

from rillm.constraints.checker import GrammarChecker
from rillm.engine.messages import StepStats
from rillm.engine_args import RemoteEngineArgs
from rillm.errors import (
    CapacityError,
    EngineDeadError,
    EngineError,
    EngineGenerateError,
    InvalidRequestError,
    RillmError,
)
from rillm.http_client import Client, TransferError
from rillm.input_processor import InputProcessor, Limits, ProcessedRequest, PromptType
from rillm.models.config import GenerationConfig, ModelConfig, read_generation_config
from rillm.output_processor import RequestState
from rillm.outputs import RequestOutput
from rillm.remote_answer import EnoughError, RemoteAnswer
from rillm.remote_stream import RemoteStream
from rillm.sampling_params import MAX_SEQUENCES, SamplingParams
from rillm.text.tokenizer import Tokenizer
from rillm.token_wire import generate_body

_GENERATE: Final = "/inference/v1/generate"
_ABORT: Final = "/inference/v1/abort_requests"
_RETRY_S: Final = 1.0
_CONNECT_TIMEOUT_S: Final = 5.0
_ABORT_TIMEOUT_S: Final = 5.0
_MAX_IDLE_CONNECTIONS: Final = 64
_LAST_CHOICE_S: Final = 5.0
"""How long an engine that did not answer is asked after all others."""

logger = logging.getLogger(__name__)


class RemoteLLM:
    """Engines elsewhere, a tokenizer here, and any number of streams.

    Attributes:
        args: the settings.
        directory: of the model's files.
        tokenizer: the model's.
        model_config: the model's.
        generation_config: the sampling defaults that the model recommends.
        max_model_len: longest prompt plus output in tokens; final once an engine has answered.
        ready_info: what an engine says of its model; None before one has answered.
    """

    def __init__(self, args: RemoteEngineArgs) -> None:
        """Read the model's files; nothing is sent yet.

        Args:
            args: the settings.

        Raises:
            ConfigError: the model's configuration or tokenizer cannot be read, or a URL or the
                key cannot be used.
        """
        self.args = args
        self.directory = args.model_directory()
        self.model_config = ModelConfig.from_directory(self.directory)
        self.tokenizer = Tokenizer.from_directory(args.tokenizer_directory(self.directory))
        self.generation_config: GenerationConfig = read_generation_config(self.directory)
        self.max_model_len: int = self.model_config.max_position_embeddings
        self.ready_info: object | None = None
        self._grammars = GrammarChecker(
            lambda: self.tokenizer.markers, self.model_config.vocab_size
        )
        self._inputs = InputProcessor(
            self.model_config,
            self.generation_config,
            self.tokenizer,
            max_logprobs=args.max_logprobs,
            seed=args.seed,
        )
        key = args.engine_api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # As streams do: past the proxies of the environment.
        self._client = httpx2.AsyncClient(
            headers=headers,
            trust_env=False,
            timeout=httpx2.Timeout(None, connect=_CONNECT_TIMEOUT_S),
        )
        self._urls = [url.rstrip("/") for url in args.engine]
        # A token may take as long as it takes: a prefill before it can be long.
        self._clients = {
            url: Client(
                url,
                headers=headers,
                timeout_s=None,
                connect_timeout_s=_CONNECT_TIMEOUT_S,
                max_idle_connections=_MAX_IDLE_CONNECTIONS,
            )
            for url in self._urls
        }
        self._failed_at = dict.fromkeys(self._urls, -_LAST_CHOICE_S)
        self._turns = itertools.count()
        self._learning = asyncio.Lock()
        self._live: dict[str, RemoteStream] = {}
        self._complained: set[str] = set()
        self._is_closed = False

    @property
    def max_logprobs(self) -> int:
        """Most alternatives a request may ask for."""
        return self._inputs.max_logprobs

    @property
    def errored(self) -> bool:
        """Whether this frontend has been shut down; engines come and go."""
        return self._is_closed

    @property
    def is_restarting(self) -> bool:
        """Never: the engines tell their own."""
        return False

    @property
    def num_restarts(self) -> int:
        """None: the engines count their own."""
        return 0

    @property
    def engine_stats(self) -> StepStats | None:
        """None: the engines tell their own."""
        return None

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.tokenizer

    def get_num_unfinished_requests(self) -> int:
        """Requests that wait for an engine or are answered by one."""
        return len(self._live)

    async def wait_ready(self) -> None:
        """Wait until an engine serves, and learn how long a context it takes."""
        async with self._learning:
            while self.ready_info is None:
                for url in self._urls:
                    card = await self._model_card(url)
                    if card is not None:
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
            CapacityError: no engine has room, or none answers.
            EngineGenerateError: an engine failed on this request.
            EngineDeadError: this frontend has been shut down.
        """
        stream = await self.open_stream(
            prompt, sampling_params, request_id, priority=priority, stand_ins=stand_ins
        )
        async with aclosing(stream.read()) as outputs:
            async for output in outputs:
                yield output

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """End live requests; their streams yield a last output with finish reason `abort`.

        They end at once. Their engines are told, too, since something between could keep the
        connections open.
        """
        names = [request_id] if isinstance(request_id, str) else list(request_id)
        found = [self._live[name] for name in names if name in self._live]
        by_url: dict[str, list[str]] = {}
        for stream in found:
            stream.abort()
            if stream.url is not None:
                by_url.setdefault(stream.url, []).append(stream.name_there)
        await asyncio.gather(*(self._tell_abort(url, ids) for url, ids in by_url.items()))

    def shutdown(self) -> None:
        """End all streams with an error, and take no more requests. Idempotent."""
        self._is_closed = True
        self._grammars.close()
        for stream in self._live.values():
            stream.fail(EngineDeadError("the frontend has been shut down"))
            stream.stop()

    async def aclose(self) -> None:
        """Shut down, and close all connections."""
        self.shutdown()
        await self._client.aclose()
        for client in self._clients.values():
            client.close()

    async def check_constraint(self, sampling_params: SamplingParams) -> None:
        """Refuse what no output can be constrained to, as `generate` would.

        Raises:
            InvalidRequestError: `structured_outputs` cannot be used; `param` names its field.
        """
        await self._grammars.check(sampling_params)

    async def open_stream(
        self,
        prompt: PromptType,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> RemoteStream:
        """Submit one request; as `AsyncLLM.open_stream`.

        What the engine refuses is raised by the stream.

        Raises:
            InvalidRequestError: the prompt or a parameter is not acceptable here.
            EngineDeadError: this frontend has been shut down.
        """
        if request_id in self._live:
            raise InvalidRequestError(
                f"request_id {request_id!r} is in use by a live request", param="request_id"
            )
        stream = RemoteStream(request_id, self._close)
        # Taken before the first pause, so that nobody else can take the same id meanwhile.
        self._live[request_id] = stream
        try:
            if self._is_closed:
                raise EngineDeadError("the frontend has been shut down")
            await self.wait_ready()
            limits = Limits(max_model_len=self.max_model_len, max_num_seqs=MAX_SEQUENCES)
            grammar = await self._grammars.check(sampling_params)
            processed = self._inputs.process(0, prompt, sampling_params, limits, priority, grammar)
            state = RequestState(processed, request_id, self.tokenizer, stand_ins=stand_ins)
            stream.begin(processed, state)
            if not stream.is_aborted:
                stream.task = asyncio.create_task(self._feed(stream, processed, priority))
        except BaseException:
            self._live.pop(request_id, None)
            raise
        return stream

    def _close(self, stream: RemoteStream) -> None:
        self._live.pop(stream.request_id, None)
        stream.stop()

    async def _feed(self, stream: RemoteStream, processed: ProcessedRequest, priority: int) -> None:
        """Fill a stream from the first engine that says anything."""
        try:
            await self._ask_in_turn(stream, msgspec.json.encode(generate_body(processed, priority)))
        except RillmError as error:
            stream.fail(error)
        except Exception:
            logger.exception("request %s failed", stream.request_id)
            stream.fail(EngineGenerateError("the frontend failed on this request"))

    async def _ask_in_turn(self, stream: RemoteStream, body: bytes) -> None:
        error: RillmError = CapacityError("no engine answers at present")
        for url in self._next_urls():
            try:
                await self._ask(url, body, stream)
                stream.end()
                return
            except (TransferError, CapacityError, EngineError) as failure:
                # What broke after the last token does no harm.
                if stream.has_finish:
                    stream.end()
                    return
                if stream.has_begun:
                    raise EngineGenerateError(f"{url} failed: {failure!r}") from failure
                logger.warning("engine %s failed: %r", url, failure)
                if isinstance(failure, RillmError):
                    error = failure
                else:
                    self._failed_at[url] = time.monotonic()
        raise error

    def _next_urls(self) -> list[str]:
        """All engines in the order to ask them: in turn, those that did not answer last."""
        first = next(self._turns) % len(self._urls)
        now = time.monotonic()
        return sorted(
            self._urls[first:] + self._urls[:first],
            key=lambda url: now - self._failed_at[url] < _LAST_CHOICE_S,
        )

    async def _ask(self, url: str, body: bytes, stream: RemoteStream) -> None:
        stream.url = url
        headers = {
            "X-Request-Id": stream.wire_id,
            # Leaving is how this end aborts, whatever the engine's default is.
            "X-On-Disconnect": "abort",
        }
        receiver = RemoteAnswer(stream)
        with contextlib.suppress(EnoughError):
            await self._clients[url].ask(_GENERATE, body, receiver, headers)
            receiver.end()

    async def _model_card(self, url: str) -> dict[str, Any] | None:
        """What an engine says of its model; None while it does not serve."""
        try:
            health = await self._client.get(f"{url}/health")
            models = await self._client.get(f"{url}/v1/models")
            if health.is_success and models.is_success:
                card: dict[str, Any] = models.json()["data"][0]
                return card
            reason = f"status {health.status_code}"
        except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
            reason = repr(error)
        # Once, however long it takes.
        if url not in self._complained:
            self._complained.add(url)
            logger.info("engine %s does not serve yet: %s", url, reason)
        return None

    async def _tell_abort(self, url: str, names: list[str]) -> None:
        try:
            await self._client.post(
                url + _ABORT, json={"request_ids": names}, timeout=_ABORT_TIMEOUT_S
            )
        except httpx2.HTTPError as error:
            logger.warning("engine %s was not told of an abort: %r", url, error)
