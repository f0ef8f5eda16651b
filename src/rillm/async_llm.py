"""AsyncLLM: prompts in, streams of outputs out, in the caller's event loop.

Joins the text layer to the engine's client: checks and tokenizes prompts, gives each request a
state of its own, and hands every stream what is new in it. Knows neither HTTP nor tensors.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path

from rillm.admission import Admission
from rillm.constraints.checker import GrammarChecker, read_markers
from rillm.embedding import EmbeddingOutput, pooled_prompt, pooling_params
from rillm.engine.client import EngineClient
from rillm.engine.config import EngineInfo
from rillm.engine.messages import StepStats, TokenDelta
from rillm.engine_args import AsyncEngineArgs, EngineArgs
from rillm.errors import EngineDeadError, EngineError, EngineGenerateError, InvalidRequestError
from rillm.input_processor import InputProcessor, Limits, PromptType
from rillm.models.config import GenerationConfig, ModelConfig, read_generation_config
from rillm.output_processor import RequestState
from rillm.output_stream import OutputStream
from rillm.outputs import RequestOutput
from rillm.sampling_params import SamplingParams
from rillm.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class AsyncLLM:
    """An engine with a model, a tokenizer and any number of streams.

    The core starts loading when the object is made; requests made before it is ready wait.
    """

    def __init__(self, args: EngineArgs) -> None:
        """Start an engine; may be called inside or before a running event loop.

        Raises:
            ConfigError: the model's configuration or tokenizer cannot be read.
        """
        self._admission = Admission(args.max_num_seqs, args.max_waiting_requests)
        self.directory: Path = args.model_directory()
        directory = self.directory
        # First of all, so that the core loads while the tokenizer is read here.
        config = args.engine_config(directory)
        self.model_config: ModelConfig = ModelConfig.from_directory(directory)
        self._client = EngineClient(
            config, in_process=args.in_process, supervision=args.supervision()
        )
        try:
            self.tokenizer: Tokenizer | None = (
                None
                if args.skip_tokenizer_init
                else Tokenizer.from_directory(args.tokenizer_directory(directory))
            )
            self.generation_config: GenerationConfig = read_generation_config(directory)
        except BaseException:
            self._client.shutdown()
            raise
        self.args = args
        self._inputs = InputProcessor(
            self.model_config,
            self.generation_config,
            self.tokenizer,
            max_logprobs=args.max_logprobs,
            seed=args.seed,
        )
        self._grammars = GrammarChecker(self._markers, self.model_config.vocab_size)
        self._live: dict[str, _Stream] = {}
        self._logs_requests = isinstance(args, AsyncEngineArgs) and args.enable_log_requests

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> AsyncLLM:
        """Start an engine with these settings.

        Raises:
            ConfigError: a setting or the model is not acceptable.
        """
        return cls(engine_args)

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus output in tokens; final once the engine is ready."""
        info = self._client.info
        if info is not None:
            return info.max_model_len
        return self.args.max_model_len or self.model_config.max_position_embeddings

    @property
    def max_logprobs(self) -> int:
        """Most alternatives a request may ask for."""
        return self._inputs.max_logprobs

    @property
    def ready_info(self) -> EngineInfo | None:
        """What the engine decided when it loaded; None before."""
        return self._client.info

    @property
    def errored(self) -> bool:
        """Whether the engine has stopped for good."""
        return self._client.error is not None

    @property
    def is_restarting(self) -> bool:
        """Whether the engine has died and is being started again; requests wait meanwhile."""
        return self._client.is_restarting

    @property
    def num_restarts(self) -> int:
        """Times that the engine was started again."""
        return self._client.num_restarts

    @property
    def is_running(self) -> bool:
        """Whether requests are accepted."""
        return not self.errored

    @property
    def dead_error(self) -> BaseException | None:
        """Why the engine has stopped."""
        return self._client.error

    def get_num_unfinished_requests(self) -> int:
        """Requests that are waiting or running."""
        return len(self._client.journal)

    def get_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            InvalidRequestError: the engine runs without one.
        """
        if self.tokenizer is None:
            raise InvalidRequestError("this engine runs without a tokenizer")
        return self.tokenizer

    @property
    def engine_stats(self) -> StepStats:
        """Counters of the engine after its newest step."""
        return self._client.stats

    async def wait_ready(self) -> EngineInfo:
        """Wait until the model is loaded.

        Raises:
            ConfigError: it cannot be, and the operator can change that.
            EngineDeadError: the engine stopped.
        """
        return await self._client.wait_ready()

    async def check_health(self) -> None:
        """Raise if the engine has stopped.

        Raises:
            EngineDeadError: it has.
        """
        error = self._client.error
        if error is not None:
            raise error if isinstance(error, EngineDeadError) else EngineDeadError(str(error))

    async def reset_prefix_cache(self) -> None:
        """Forget all cached prefixes."""
        self._client.reset_prefix_cache()

    async def generate(
        self,
        prompt: PromptType,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        priority: int = 0,
        stand_ins: Mapping[int, str] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Stream one request.

        Nothing happens before the first step of the iteration. Leaving the iteration, or
        cancelling its task, aborts the request.

        Args:
            prompt: text, token ids, or a dict with `prompt` or `prompt_token_ids` and
                optionally `cache_salt`.
            sampling_params: what is asked of the sampler and the text.
            request_id: the caller's name for it, not in use by a live request.
            priority: lower runs earlier.
            stand_ins: text to put for some token ids in the outputs' text, whether they are
                special or not.

        Yields:
            Outputs of the kind the sampling params name; the last one has `finished` set.

        Raises:
            InvalidRequestError: the prompt, a parameter or the request id is not acceptable.
            CapacityError: too many requests wait already.
            EngineGenerateError: the engine failed on this request.
            EngineDeadError: the engine has stopped.
        """
        stream = await self.open_stream(
            prompt, sampling_params, request_id, priority=priority, stand_ins=stand_ins
        )
        async with aclosing(stream.read()) as outputs:
            async for output in outputs:
                yield output

    async def embed(self, prompt: PromptType) -> EmbeddingOutput:
        """Embed one prompt: the mean of the model's last hidden states over its tokens.

        Cancelling the task aborts the request.

        Args:
            prompt: as for `generate`; longer ones are computed in chunks between other work.

        Raises:
            InvalidRequestError: the prompt is not acceptable.
            CapacityError: too many requests wait already.
            EngineGenerateError: the engine failed on this request.
            EngineDeadError: the engine has stopped.
        """
        with self._admission.enter(self._client.journal.num_open_choices):
            info = await self._client.wait_ready()
        limits = Limits(max_model_len=info.max_model_len, max_num_seqs=info.max_num_seqs)
        request_id = self._client.new_request_id()
        processed = self._inputs.process(request_id, prompt, pooling_params(), limits)
        return await pooled_prompt(self._client, processed.request)

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """End live requests; their streams yield a last output with finish reason `abort`."""
        for name in [request_id] if isinstance(request_id, str) else list(request_id):
            stream = self._live.get(name)
            if stream is not None:
                self._client.abort(stream.engine_id)
                stream.abort()

    def shutdown(self) -> None:
        """Stop the engine and wait until its process is gone. Idempotent."""
        self._grammars.close()
        self._client.shutdown()

    async def aclose(self) -> None:
        """Stop the engine as `shutdown` does, while the event loop goes on."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.shutdown)

    def __del__(self) -> None:
        # An object whose construction failed has no client.
        client = getattr(self, "_client", None)
        if client is not None:
            client.shutdown()

    def _markers(self) -> Mapping[int, str]:
        if self.tokenizer is not None:
            return self.tokenizer.markers
        return read_markers(self.args.tokenizer_directory(self.directory))

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
    ) -> OutputStream:
        """Submit one request.

        Args:
            prompt: as `generate`, like all others.
            sampling_params: as above.
            request_id: as above.
            priority: as above.
            stand_ins: as above.

        Returns:
            Its outputs, to be closed by the caller.

        Raises:
            InvalidRequestError: the prompt, a parameter or the request id is not acceptable.
            CapacityError: too many requests wait already.
            EngineDeadError: the engine has stopped.
        """
        if not isinstance(request_id, str) or not request_id:
            raise InvalidRequestError("request_id must be a non-empty string", param="request_id")
        if request_id in self._live:
            raise InvalidRequestError(
                f"request_id {request_id!r} is in use by a live request", param="request_id"
            )
        stream = _Stream(request_id, self._client.new_request_id(), self._client, self._close)
        # Taken before the first pause, so that nobody else can take the same id meanwhile.
        self._live[request_id] = stream
        try:
            with self._admission.enter(self._client.journal.num_open_choices):
                info = await self._client.wait_ready()
                limits = Limits(max_model_len=info.max_model_len, max_num_seqs=info.max_num_seqs)
                grammar = await self._grammars.check(sampling_params)
            processed = self._inputs.process(
                stream.engine_id, prompt, sampling_params, limits, priority, grammar
            )
            stream.state = RequestState(
                processed,
                request_id,
                self.tokenizer,
                stream_interval=self.args.stream_interval,
                keeps_metrics=not self.args.disable_log_stats,
                stand_ins=stand_ins,
            )
            if stream.is_aborted:
                stream.state.abort()
            else:
                stream.is_single = processed.request.n == 1
                self._client.submit(processed.request, stream.put)
                stream.is_submitted = True
        except BaseException:
            del self._live[request_id]
            raise
        if self._logs_requests:
            logger.info(
                "request %s: %d prompt tokens, %s",
                request_id,
                len(processed.request.prompt_token_ids),
                processed.params,
            )
        return stream

    def _close(self, stream: _Stream) -> None:
        self._live.pop(stream.request_id, None)
        if stream.state.is_finished:
            self._client.finish(stream.engine_id)
        else:
            self._client.abort(stream.engine_id)
        if self._logs_requests:
            logger.info("request %s: closed", stream.request_id)


class _Stream(OutputStream):
    """One request of the engine beside this process, or in it."""

    __slots__ = ("_client", "_is_woken", "engine_id", "is_aborted", "is_single", "is_submitted")

    def __init__(
        self,
        request_id: str,
        engine_id: int,
        client: EngineClient,
        release: Callable[[_Stream], None],
    ) -> None:
        super().__init__(request_id, release)
        self.engine_id = engine_id
        self.is_aborted = False
        self.is_submitted = False
        self.is_single = False
        """Whether there is one choice."""
        self._client = client
        self._is_woken = False

    def put(self, delta: TokenDelta | EngineError) -> None:
        """Take what the engine produced; called from the event loop."""
        if isinstance(delta, EngineError):
            self.fail(delta)
            return
        if self.has_told(delta):
            return
        if delta.error is not None:
            self._error = EngineGenerateError(delta.error)
        elif self.state.add(delta):
            self._client.abort_choice(self.engine_id, delta.choice)
        if self.is_single:
            # While what belongs to it is in the processor's cache.
            self.on_ready()
        # Once a step, with what all choices have got in it.
        elif not self._is_woken:
            self._is_woken = True
            self._client.after_step(self.wake)

    def wake(self) -> None:
        """Let the reader look."""
        self._is_woken = False
        self.on_ready()

    def abort(self) -> None:
        """End all open choices, at once or as soon as there are any."""
        self.is_aborted = True
        if self.is_submitted:
            self.state.abort()
            self.wake()
