"""The ASGI application: the route table over one engine's client."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from rillm import __version__
from rillm.output_formats import OutputFormats
from rillm.server.anthropic.routes import Messages
from rillm.server.auth import ApiKeys
from rillm.server.chat import ChatCompletions
from rillm.server.completions import Completions
from rillm.server.context import TextContext
from rillm.server.derender import Derender
from rillm.server.errors import HANDLED, error_response
from rillm.server.generate import Generate
from rillm.server.health import Health
from rillm.server.intake import Intake
from rillm.server.kept_streams import KeptStreams
from rillm.server.live_requests import Requests
from rillm.server.metrics import ServerMetrics
from rillm.server.models import ServedModel
from rillm.server.observed import ObservedApp, ObservedEngine
from rillm.server.openapi import Documentation
from rillm.server.options import HttpOptions
from rillm.server.playground import Playground
from rillm.server.prometheus import MetricsRoute
from rillm.server.render import Render
from rillm.server.responses.routes import Responses, open_store
from rillm.server.resume import STREAMS_PATH, Resume, ResumedPosts
from rillm.server.serving_engine import ServingEngine
from rillm.server.tokenize import Tokenize


def create_app(
    engine: ServingEngine,
    *,
    model_names: Sequence[str],
    model_root: str,
    formats: OutputFormats | None = None,
    reasoning_fields: tuple[str, ...] = ("reasoning_content",),
    tokens_only: bool = False,
    has_prompt_details: bool = False,
    options: HttpOptions | None = None,
) -> ObservedApp:
    """Make the application.

    Args:
        engine: the engine's; it may still be loading, requests then wait.
        model_names: what callers may call the model, the first one to be shown; at least one.
        model_root: the name or path the weights come from.
        formats: how the model writes reasoning and calls; None where all it writes is content.
        reasoning_fields: names under which a chat message holds its reasoning.
        tokens_only: the engine has no tokenizer: no routes that speak text.
        has_prompt_details: usage of the token endpoint says how many prompt tokens came from the
            prefix cache.
        options: what an operator has chosen; None for the defaults.

    Raises:
        ConfigError: responses cannot be kept where the options say.
    """
    options = options or HttpOptions()
    metrics = ServerMetrics(engine.max_model_len)
    streams = KeptStreams(options.resume_seconds, options.resume_bytes)
    intake = Intake(metrics, options)
    outermost = ObservedApp(metrics, intake, options, streams)
    engine = ObservedEngine(engine, metrics, intake)
    model = ServedModel(model_names, model_root, engine)
    generate = Generate(
        engine,
        engine.live,
        model,
        None if tokens_only else engine.get_tokenizer(),
        formats,
        reasoning_fields,
        has_prompt_details=has_prompt_details,
    )
    health = Health(engine, intake)
    shown = MetricsRoute(metrics, engine, model.names[0], has_aliases=options.metrics_aliases)
    routes = [
        *([] if tokens_only else _text_routes(engine, model, formats, reasoning_fields, options)),
        Route("/inference/v1/generate", generate.create, methods=["POST"]),
        Route("/inference/v1/abort_requests", generate.abort, methods=["POST"]),
        *_request_routes(engine, streams),
        Route("/v1/models", model.list_models),
        Route("/v1/models/{model:path}", model.get_model),
        Route("/health", health.get_health),
        Route("/ready", health.get_ready),
        Route("/ping", health.get_health, methods=["GET", "POST"]),
        Route("/load", health.get_load),
        Route("/version", health.get_version),
        Route("/metrics", shown.get_metrics),
    ]
    documentation = Documentation(routes, options)
    routes += [
        Route("/openapi.json", documentation.get_document),
        Route("/docs", documentation.get_page),
    ]
    outermost.app = Starlette(
        routes=routes,
        middleware=_middleware(options),
        exception_handlers=dict.fromkeys([*HANDLED, Exception], error_response),
    )
    return outermost


def _request_routes(engine: ObservedEngine, streams: KeptStreams) -> list[Route]:
    """What can be done with a request of any kind while it is answered, and with its stream."""
    requests = Requests(engine, engine.live, streams)
    return [
        Route("/v1/requests/{id:path}/cancel", requests.cancel, methods=["POST"]),
        Route("/v1/requests/{id:path}", requests.delete, methods=["DELETE"]),
        Route(STREAMS_PATH + "{name:path}", Resume(streams).get),
    ]


def _text_routes(
    engine: ServingEngine,
    model: ServedModel,
    formats: OutputFormats | None,
    reasoning_fields: tuple[str, ...],
    options: HttpOptions,
) -> list[Route]:
    """What needs a tokenizer."""
    context = TextContext(
        engine=engine,
        tokenizer=engine.get_tokenizer(),
        model=model,
        fingerprint=f"rillm-{__version__}",
        formats=formats,
        reasoning_fields=reasoning_fields,
        has_metrics=options.enable_per_request_metrics,
    )
    chat = ChatCompletions(context)
    completions = Completions(context)
    messages = Messages(context, options)
    render = Render(context)
    derender = Derender(context)
    tokenize = Tokenize(context)
    playground = Playground()
    routes = [
        Route("/v1/chat/completions", chat.create, methods=["POST"]),
        Route("/v1/completions", completions.create, methods=["POST"]),
        Route("/v1/messages", messages.create, methods=["POST"]),
        Route("/v1/messages/count_tokens", messages.count_tokens, methods=["POST"]),
        *_response_routes(context, options),
        Route("/v1/chat/completions/render", render.render_chat, methods=["POST"]),
        Route("/v1/completions/render", render.render_completion, methods=["POST"]),
        Route("/v1/chat/completions/derender", derender.derender_chat, methods=["POST"]),
        Route("/v1/completions/derender", derender.derender_completion, methods=["POST"]),
        Route("/tokenize", tokenize.tokenize, methods=["POST"]),
        Route("/detokenize", tokenize.detokenize, methods=["POST"]),
        Route("/", playground.get_page),
        Route("/playground/{file}", playground.get_file),
    ]
    if options.enable_tokenizer_info_endpoint:
        routes.append(Route("/tokenizer_info", tokenize.get_info))
    return routes


def _response_routes(context: TextContext, options: HttpOptions) -> list[Route]:
    responses = Responses(context, open_store(options))
    path = "/v1/responses/{response_id}"
    return [
        Route("/v1/responses", responses.create, methods=["POST"]),
        Route(path, responses.retrieve),
        Route(path, responses.delete, methods=["DELETE"]),
        Route(f"{path}/cancel", responses.cancel, methods=["POST"]),
        Route(f"{path}/input_items", responses.list_input_items),
    ]


def _middleware(options: HttpOptions) -> list[Middleware]:
    """Only what is asked for: pages of other origins, then keys, so that a refusal is readable."""
    middleware = []
    if options.allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=options.allowed_origins,
                allow_methods=options.allowed_methods,
                allow_headers=options.allowed_headers,
                allow_credentials=options.allow_credentials,
                expose_headers=("X-Request-Id", "Request-Id"),
            )
        )
    if options.api_key:
        middleware.append(Middleware(ApiKeys, keys=options.api_key))
    middleware.append(Middleware(ResumedPosts))
    return middleware
