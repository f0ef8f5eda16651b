"""POST /inference/v1/generate: token ids in, token ids out; and ending such requests by id.

Source: vLLM 0.33's scale-out endpoints, in the shape of its Python server, but all that can be
refused is refused before a stream begins. Here they are always on.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rillm.choice_parser import OutputFormat
from rillm.errors import InvalidRequestError
from rillm.output_formats import OutputFormats
from rillm.server.context import answer_stream, answer_whole
from rillm.server.generate_chunks import GenerateAnswer, GenerateChunkEncoder, generate_response
from rillm.server.generate_request import (
    AbortRequest,
    GenerateRequest,
    ParseContext,
    TokenLimits,
    read_parse_context,
    read_sampling_params,
)
from rillm.server.live_requests import LiveRequests
from rillm.server.models import ServedModel
from rillm.server.protocol import (
    StreamOptions,
    decode_json,
    engine_request_id,
    read_body,
    request_id_of,
)
from rillm.server.serving_engine import ServingEngine
from rillm.server.tools import check_reads_calls, read_tools
from rillm.streams import EventStream, Generation
from rillm.text.tokenizer import Tokenizer

_ID_PREFIX: Final = "generate-tokens-"


class Generate:
    """The routes, for one model."""

    def __init__(
        self,
        engine: ServingEngine,
        live: LiveRequests,
        model: ServedModel,
        tokenizer: Tokenizer | None,
        formats: OutputFormats | None,
        reasoning_fields: tuple[str, ...],
        *,
        has_prompt_details: bool = False,
    ) -> None:
        """Prepare the routes.

        Args:
            engine: what generates.
            live: what it works on.
            model: its names.
            tokenizer: None where the engine runs without: output mode `tokens` only.
            formats: how the model writes reasoning and calls; None where all is content.
            reasoning_fields: names under which a message holds its reasoning.
            has_prompt_details: usage says how many prompt tokens came from the prefix cache.
        """
        self._engine = engine
        self._live = live
        self._model = model
        self._tokenizer = tokenizer
        self._formats = formats
        self._reasoning_fields = reasoning_fields
        self._has_prompt_details = has_prompt_details
        self._decoder = msgspec.json.Decoder(GenerateRequest)
        self._abort_decoder = msgspec.json.Decoder(AbortRequest)

    async def create(self, http: Request) -> Response:
        """Answer one request.

        Raises:
            RillmError: the request is refused, or generation failed before its first output.
        """
        request = decode_json(await read_body(http), self._decoder)
        model = self._model.resolve(request.model)
        params = read_sampling_params(request, self._limits())
        await self._engine.check_constraint(params)
        request_id = request_id_of(http, request)
        context = None
        if request.output_mode == "derender":
            context = self._parse_context(request)
        stream = EventStream(
            self._engine,
            [
                Generation(
                    prompt_token_ids=request.token_ids,
                    sampling_params=params,
                    request_id=engine_request_id(request_id),
                    priority=request.priority or 0,
                    cache_salt=request.cache_salt,
                    format=self._format(request, context),
                )
            ],
        )
        answer = self._answer(request, context, request_id, model)
        tokenizer = self._tokenizer
        if request.stream:
            encoder = GenerateChunkEncoder(answer, stream, tokenizer)
            return answer_stream(stream, encoder, request_id)
        return await answer_whole(
            http,
            stream,
            lambda results: generate_response(answer, stream, results, tokenizer),
            request_id,
        )

    async def abort(self, http: Request) -> Response:
        """End requests by the ids that their answers have; unknown ones are ignored.

        Their answers end as others do, with finish reason `abort`.

        Raises:
            MalformedBodyError: the body is not JSON, or has no `request_ids`.
        """
        request = decode_json(await read_body(http), self._abort_decoder)
        names = [name for each in request.request_ids for name in self._live.names(each)]
        await self._engine.abort(names)
        return Response()

    def _limits(self) -> TokenLimits:
        return TokenLimits(
            has_tokenizer=self._tokenizer is not None,
            vocab_size=self._engine.model_config.vocab_size,
            max_model_len=self._engine.max_model_len,
            max_logprobs=self._engine.max_logprobs,
            max_new_tokens=self._engine.generation_config.max_new_tokens,
        )

    def _parse_context(self, request: GenerateRequest) -> ParseContext:
        formats = self._formats
        is_parsed = formats is not None and (formats.reads_calls or formats.format.has_markup)
        if request.parse_context is None and is_parsed:
            raise InvalidRequestError(
                "parse_context is absent, must be an object with output_mode 'derender': `{}` "
                "where no tools were offered",
                param="parse_context",
            )
        return read_parse_context(request)

    def _format(
        self, request: GenerateRequest, context: ParseContext | None
    ) -> OutputFormat | None:
        if context is None:
            return None
        tools = read_tools(context)
        check_reads_calls(tools, self._formats)
        return None if self._formats is None else self._formats.for_prompt(request.token_ids, tools)

    def _answer(
        self, request: GenerateRequest, context: ParseContext | None, request_id: str, model: str
    ) -> GenerateAnswer:
        options = request.stream_options or StreamOptions()
        sampling = request.sampling_params
        num_logprobs = sampling.logprobs
        if sampling.logprob_token_ids is not None:
            num_logprobs = -1
        hides_reasoning = context is not None and context.include_reasoning is False
        return GenerateAnswer(
            id=_ID_PREFIX + request_id,
            created=int(time.time()),
            model=model,
            mode=request.output_mode,
            num_logprobs=num_logprobs,
            return_token_ids=bool(request.return_token_ids),
            include_usage=options.include_usage,
            continuous_usage=options.include_usage and options.continuous_usage_stats,
            has_prompt_details=self._has_prompt_details,
            shows_tokens=not hides_reasoning,
            reasoning_fields=() if hides_reasoning else self._reasoning_fields,
        )
