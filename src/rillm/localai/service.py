"""Backend methods to gRPC: a handler for each RPC of the contract, one table of errors."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message_factory import GetMessageClass

from rillm.errors import CapacityError, EngineDeadError, ModelNotFoundError, RequestError
from rillm.localai import backend_pb2
from rillm.localai.backend import Backend
from rillm.localai.model import NotLoadedError

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 50 * 2**20
_MAX_TEXT = 1000

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Any]]


class UnauthenticatedError(Exception):
    """The caller has not shown the token."""


_STATUS: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (NotLoadedError, grpc.StatusCode.FAILED_PRECONDITION),
    (ModelNotFoundError, grpc.StatusCode.NOT_FOUND),
    (RequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (CapacityError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    # LocalAI drops the model on this, and loads it again: the only way to another engine.
    (EngineDeadError, grpc.StatusCode.UNAVAILABLE),
)
"""First match wins; what is not listed is our fault: INTERNAL, with a text that tells nothing."""


def new_server(backend: Backend, token: str | None) -> grpc.aio.Server:
    """A server that answers every RPC of the contract.

    Args:
        backend: its methods are named as the RPCs, in small letters.
        token: what callers have to show; None: nothing.
    """
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            # Another process on the same port is an error, not a second server.
            ("grpc.so_reuseport", 0),
        )
    )
    service = backend_pb2.DESCRIPTOR.services_by_name["Backend"]
    handlers = {}
    for method in service.methods:
        call = getattr(backend, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.name).lower())
        make, handler = (
            (grpc.unary_stream_rpc_method_handler, _streaming(call, token))
            if method.server_streaming
            else (grpc.unary_unary_rpc_method_handler, _answering(call, token))
        )
        handlers[method.name] = make(
            handler,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service.full_name, handlers),)
    )
    return server


def _answering(call: Callable[[Any], Awaitable[Any]], token: str | None) -> Handler:
    return _guarded(lambda request, _: call(request), token)


def _streaming(call: Callable[[Any, Any], Awaitable[None]], token: str | None) -> Handler:
    return _guarded(lambda request, context: call(request, context.write), token)


def _guarded(call: Handler, token: str | None) -> Handler:
    """Check the token, and end a call that fails with the status of its error."""

    async def handle(request: Any, context: Context) -> Any:
        try:
            _check_token(context, token)
            return await call(request, context)
        except Exception as error:  # noqa: BLE001
            failure = error
        return await context.abort(*_status(failure))

    return handle


def _check_token(context: Context, token: str | None) -> None:
    if token is None:
        return
    shown = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    expected = f"Bearer {token}".encode()
    for value in shown:
        given = value if isinstance(value, bytes) else value.encode()
        if hmac.compare_digest(given, expected):
            return
    raise UnauthenticatedError("authorization must be 'Bearer' and the token of this backend")


def _status(error: Exception) -> tuple[grpc.StatusCode, str]:
    for kind, code in _STATUS:
        if isinstance(error, kind):
            text = str(error)
            return code, text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."
    logger.error("a call failed", exc_info=error)
    return grpc.StatusCode.INTERNAL, "the backend failed on this request"
