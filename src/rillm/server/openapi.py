"""GET /openapi.json and /docs: the routes, described from the table and the types that serve them.

Bodies are the structs that requests are decoded into, so the document cannot drift from them.
Answers are described by the keys clients rely on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from rillm import __version__
from rillm.server.anthropic.errors import AnthropicErrorBody
from rillm.server.anthropic.protocol import CountTokensRequest, MessagesRequest
from rillm.server.deadline import MAX_TIMEOUT_S, TIMEOUT_HEADER
from rillm.server.derender_request import ChatDerenderRequest, CompletionDerenderRequest
from rillm.server.docs_page import docs_page
from rillm.server.errors import JSON, ErrorBody
from rillm.server.generate_request import AbortRequest, GenerateRequest
from rillm.server.options import HttpOptions
from rillm.server.paths import is_open
from rillm.server.protocol import ChatCompletionRequest, CompletionRequest
from rillm.server.responses.request import ResponsesRequest
from rillm.server.tokenize import DetokenizeRequest, TokenizeRequest

_REF: Final = "#/components/schemas/{name}"
_REQUEST_ID: Final = {"$ref": "#/components/parameters/RequestId"}
_REQUEST_TIMEOUT: Final = {"$ref": "#/components/parameters/RequestTimeout"}
_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_LIST: Final = {"type": "array", "items": {"type": "object"}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


_USAGE: Final = _object(
    prompt_tokens=_COUNT,
    completion_tokens=_COUNT,
    total_tokens=_COUNT,
    prompt_tokens_details={"type": ["object", "null"]},
    completion_tokens_details={"type": ["object", "null"]},
)
_MESSAGES: Final = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {"role": {"enum": ["system", "developer", "user", "assistant", "tool"]}},
    },
}
"""Stricter than the struct: what a message must hold is checked by who renders it."""
_CARD: Final = _object(
    id=_TEXT, object={"const": "model"}, created=_COUNT, owned_by=_TEXT, max_model_len=_COUNT
)
_ANTHROPIC_CARD: Final = _object(
    id=_TEXT, type={"const": "model"}, display_name=_TEXT, created_at=_TEXT
)
_RENDERED: Final = _object(
    request_id=_TEXT, token_ids={"type": "array", "items": _COUNT}, sampling_params={}
)
_RESPONSE: Final = _object(
    id=_TEXT,
    object={"const": "response"},
    created_at=_COUNT,
    status={"enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]},
    model=_TEXT,
    output=_LIST,
    usage={"type": ["object", "null"]},
)
_CANCELLED: Final = _object(id=_TEXT, object={"const": "request"}, status={"const": "cancelled"})
_EVENTS: Final = "text/event-stream"
_DERENDERED: Final = {
    "oneOf": [
        _object(id=_TEXT, object=_TEXT, created=_COUNT, model=_TEXT, choices=_LIST, usage=_USAGE),
        _object(chunk={"type": "object"}, stream_state={"type": "object"}),
    ]
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What the document says of a route besides its path."""

    summary: str
    body: type | None = None
    """The struct its request is decoded into."""
    answer: dict[str, Any] | None = None
    """JSON schema of its answer; None: the answer is empty."""
    is_stream: bool = False
    """With `stream: true` the answer is a stream of events."""
    media_type: str = JSON
    error: type = ErrorBody
    """The struct of its refusals."""
    statuses: tuple[int, ...] = ()
    """Statuses with an answer of the same form, besides 200."""


OPERATIONS: Final[dict[str, Operation]] = {
    "/v1/chat/completions": Operation(
        summary="Messages in, an assistant's message out.",
        body=ChatCompletionRequest,
        answer=_object(
            id=_TEXT,
            object={"const": "chat.completion"},
            created=_COUNT,
            model=_TEXT,
            choices=_LIST,
            usage=_USAGE,
        ),
        is_stream=True,
    ),
    "/v1/completions": Operation(
        summary="Text or token ids in, their continuation out.",
        body=CompletionRequest,
        answer=_object(
            id=_TEXT,
            object={"const": "text_completion"},
            created=_COUNT,
            model=_TEXT,
            choices=_LIST,
            usage=_USAGE,
        ),
        is_stream=True,
    ),
    "/v1/messages": Operation(
        summary="Anthropic's API: messages in, content blocks out.",
        body=MessagesRequest,
        answer=_object(
            id=_TEXT,
            type={"const": "message"},
            role={"const": "assistant"},
            model=_TEXT,
            content=_LIST,
            stop_reason=_TEXT,
            stop_sequence={"type": ["string", "null"]},
            usage=_object(input_tokens=_COUNT, output_tokens=_COUNT),
        ),
        is_stream=True,
        error=AnthropicErrorBody,
    ),
    "/v1/messages/count_tokens": Operation(
        summary="How many tokens the prompt of such a request has.",
        body=CountTokensRequest,
        answer=_object(input_tokens=_COUNT),
        error=AnthropicErrorBody,
    ),
    "/v1/responses": Operation(
        summary="Items in, a model's turn out, kept if wanted.",
        body=ResponsesRequest,
        answer=_RESPONSE,
        is_stream=True,
    ),
    "/v1/responses/{response_id}": Operation(
        summary="A response that is kept: the whole of it, its events, or forget it.",
        answer=_object(id=_TEXT, object=_TEXT),
        is_stream=True,
    ),
    "/v1/responses/{response_id}/cancel": Operation(
        summary="End a response that is being made in the background.", answer=_RESPONSE
    ),
    "/v1/responses/{response_id}/input_items": Operation(
        summary="The items that a response answers.",
        answer=_object(object={"const": "list"}, data=_LIST, has_more={"type": "boolean"}),
    ),
    "/v1/chat/completions/render": Operation(
        summary="What a conversation is to an engine: a body for the token endpoint.",
        body=ChatCompletionRequest,
        answer=_RENDERED,
    ),
    "/v1/completions/render": Operation(
        summary="What prompts are to an engine: bodies for the token endpoint.",
        body=CompletionRequest,
        answer={"type": "array", "items": _RENDERED},
    ),
    "/v1/chat/completions/derender": Operation(
        summary="The token endpoint's answer in, an assistant's message out; or chunk by chunk.",
        body=ChatDerenderRequest,
        answer=_DERENDERED,
    ),
    "/v1/completions/derender": Operation(
        summary="The token endpoint's answers in, text out; or chunk by chunk.",
        body=CompletionDerenderRequest,
        answer=_DERENDERED,
    ),
    "/tokenize": Operation(
        summary="Text or messages in, token ids out.",
        body=TokenizeRequest,
        answer=_object(
            count=_COUNT,
            max_model_len=_COUNT,
            tokens={"type": "array", "items": _COUNT},
            token_strs={"type": ["array", "null"]},
        ),
    ),
    "/detokenize": Operation(
        summary="Token ids in, text out.", body=DetokenizeRequest, answer=_object(prompt=_TEXT)
    ),
    "/tokenizer_info": Operation(
        summary="What the tokenizer's files say.", answer=_object(tokenizer_class=_TEXT)
    ),
    "/inference/v1/generate": Operation(
        summary="Token ids in, token ids out.",
        body=GenerateRequest,
        answer=_object(request_id=_TEXT, choices=_LIST),
        is_stream=True,
    ),
    "/inference/v1/abort_requests": Operation(
        summary="End requests of the token endpoint by id.", body=AbortRequest
    ),
    "/v1/requests/{id}": Operation(
        summary="End a request of any kind, and forget its stream.", answer=_CANCELLED
    ),
    "/v1/requests/{id}/cancel": Operation(
        summary="End a request of any kind; its stream ends with its usage.", answer=_CANCELLED
    ),
    "/v1/streams/{name}": Operation(
        summary="Read on a stream whose connection has broken.", answer=_TEXT, media_type=_EVENTS
    ),
    "/v1/models": Operation(
        summary="The models served here; with the header `anthropic-version` in Anthropic's shape.",
        answer={
            "oneOf": [
                _object(object={"const": "list"}, data={"type": "array", "items": _CARD}),
                _object(data={"type": "array", "items": _ANTHROPIC_CARD}, has_more={}),
            ]
        },
    ),
    "/v1/models/{model}": Operation(
        summary="One model; as above.", answer={"oneOf": [_CARD, _ANTHROPIC_CARD]}
    ),
    "/health": Operation(
        summary="Whether the engine serves.", answer=_object(status=_TEXT), statuses=(503,)
    ),
    "/ready": Operation(
        summary="Whether the model is loaded.",
        answer=_object(ready={"type": "boolean"}),
        statuses=(503,),
    ),
    "/ping": Operation(
        summary="The same as /health.", answer=_object(status=_TEXT), statuses=(503,)
    ),
    "/load": Operation(
        summary="How many requests are being answered.", answer=_object(server_load=_COUNT)
    ),
    "/version": Operation(summary="Which rillm this is.", answer=_object(version=_TEXT)),
    "/metrics": Operation(summary="Counts for Prometheus.", answer=_TEXT, media_type="text/plain"),
    "/openapi.json": Operation(summary="This document.", answer=_object(openapi=_TEXT)),
    "/docs": Operation(summary="This document as a page.", answer=_TEXT, media_type="text/html"),
    "/": Operation(
        summary="The playground: a page to talk to the model.", answer=_TEXT, media_type="text/html"
    ),
    "/playground/{file}": Operation(
        summary="What that page is made of.", answer=_TEXT, media_type="*/*"
    ),
}
"""By path; a route that is not here is described by the first line of its docstring."""


class Documentation:
    """The routes that describe all routes."""

    def __init__(self, routes: Sequence[Route], options: HttpOptions) -> None:
        """Describe `routes` when first asked: whoever makes the list may still add to it."""
        self._routes = routes
        self._options = options

    async def get_document(self, _: Request) -> Response:
        """An OpenAPI 3.1 document of every route."""
        return Response(msgspec.json.encode(self._document), media_type=JSON)

    async def get_page(self, _: Request) -> Response:
        """The same as a page that needs nothing from elsewhere."""
        return HTMLResponse(docs_page(self._document))

    @functools.cached_property
    def _document(self) -> dict[str, Any]:
        return openapi_document(self._routes, self._options)


def openapi_document(routes: Sequence[Route], options: HttpOptions) -> dict[str, Any]:
    """Describe the routes.

    Args:
        routes: of the application.
        options: say where it is mounted, and whether it wants keys.

    Returns:
        An OpenAPI 3.1 document, of JSON types only.
    """
    paths: dict[str, Any] = {}
    for route in routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        operation = OPERATIONS.get(path) or Operation(summary=_docstring(route), answer={})
        for method in sorted((route.methods or set()) - {"HEAD"}):
            described = _operation(path, operation, has_keys=bool(options.api_key))
            described["operationId"] = f"{method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', path)}"
            paths.setdefault(path, {})[method.lower()] = described
    components: dict[str, Any] = {
        "schemas": _schemas(),
        "parameters": {
            "RequestId": {
                "name": "X-Request-Id",
                "in": "header",
                "description": "Name of the request; the answer carries it, and the log.",
                "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
            },
            "RequestTimeout": {
                "name": TIMEOUT_HEADER,
                "in": "header",
                "description": "Seconds after which the request ends with an error.",
                "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_TIMEOUT_S},
            },
        },
    }
    if options.api_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "rillm", "version": __version__},
        "servers": [{"url": options.root_path or "/"}],
        "paths": paths,
        "components": components,
    }


def _docstring(route: Route) -> str:
    return (route.endpoint.__doc__ or route.name).strip().splitlines()[0]


def _operation(path: str, operation: Operation, *, has_keys: bool) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    described: dict[str, Any] = {"summary": operation.summary}
    if operation.body is not None:
        parameters += [_REQUEST_ID, _REQUEST_TIMEOUT]
        schema = {"$ref": _REF.format(name=operation.body.__name__)}
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    if parameters:
        described["parameters"] = parameters
    is_guarded = has_keys and not is_open(path)
    if is_guarded:
        described["security"] = [{"key": []}]
    described["responses"] = _responses(path, operation, is_guarded=is_guarded)
    return described


def _responses(path: str, operation: Operation, *, is_guarded: bool) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content[operation.media_type] = {"schema": operation.answer}
    if operation.is_stream:
        content[_EVENTS] = {"schema": _TEXT}
    answer = {"description": "Answered."} | ({"content": content} if content else {})
    responses = {"200": answer}
    responses |= {str(each): answer | {"description": "Not now."} for each in operation.statuses}
    refusals = {}
    if operation.body is not None:
        refusals = {
            400: "A field cannot be served; `param` names it.",
            404: "No such model.",
            413: "The body is too large.",
            429: "The API key has reached its limit.",
            500: "The engine failed.",
            503: "No room at present.",
            504: "The time that the request has set is over.",
        }
    elif "{" in path:
        refusals = {404: "There is none of that name."}
    if is_guarded:
        refusals[401] = "No valid API key was shown."
    error = {JSON: {"schema": {"$ref": _REF.format(name=operation.error.__name__)}}}
    for status, description in sorted(refusals.items()):
        responses[str(status)] = {"description": description, "content": error}
    return responses


def _schemas() -> dict[str, Any]:
    """The schemas of all bodies, without the fields that are there to be refused."""
    bodies = [each.body for each in OPERATIONS.values() if each.body is not None]
    errors = {each.error for each in OPERATIONS.values()}
    _, schemas = msgspec.json.schema_components([*bodies, *errors], ref_template=_REF)
    for body in bodies:
        properties = schemas[body.__name__]["properties"]
        for name in getattr(body, "UNSUPPORTED", ()):
            properties.pop(name, None)
    schemas[ChatCompletionRequest.__name__]["properties"]["messages"] = _MESSAGES
    return schemas
