"""The ASGI application: the route table over one engine's client."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rillm import __version__
from rillm.server.chat import ChatCompletions
from rillm.server.completions import Completions
from rillm.server.errors import HANDLED, error_response
from rillm.server.health import Health
from rillm.server.models import ServedModel
from rillm.server.serving_engine import ServingEngine
from rillm.server.sse import RAW_SEND


def create_app(engine: ServingEngine, *, model_names: Sequence[str], model_root: str) -> ASGIApp:
    """Make the application.

    Args:
        engine: the engine's; it may still be loading, requests then wait.
        model_names: what callers may call the model, the first one to be shown; at least one.
        model_root: the name or path the weights come from.
    """
    model = ServedModel(model_names, model_root, engine)
    fingerprint = f"rillm-{__version__}"
    chat = ChatCompletions(engine, model, fingerprint)
    completions = Completions(engine, model, fingerprint)
    health = Health(engine)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat.create, methods=["POST"]),
            Route("/v1/completions", completions.create, methods=["POST"]),
            Route("/v1/models", model.list_models),
            Route("/v1/models/{model:path}", model.get_model),
            Route("/health", health.get_health),
            Route("/ping", health.get_health, methods=["GET", "POST"]),
            Route("/version", health.get_version),
        ],
        exception_handlers=dict.fromkeys([*HANDLED, Exception], error_response),
    )

    async def with_raw_send(scope: Scope, receive: Receive, send: Send) -> None:
        scope[RAW_SEND] = send
        await app(scope, receive, send)

    return with_raw_send
