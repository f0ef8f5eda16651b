"""What a request says about the form of its answer: `response_format`, `structured_outputs`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rillm.constraints.source import grammar_source
from rillm.errors import InvalidRequestError
from rillm.output_formats import OutputFormats, ToolOptions
from rillm.server.protocol import GenerationRequest, StructuredOutputs
from rillm.structured_outputs import StructuredOutputsParams

_START: Final = re.compile(r"^start(?=\s*[:\[])", re.MULTILINE)
"""The name of a grammar's first rule."""
_TYPES: Final = ("text", "json_object", "json_schema")


def read_constraint(request: GenerationRequest) -> StructuredOutputsParams | None:
    """Check the fields that say what form the answer has.

    Returns:
        The constraint; None where any answer will do.

    Raises:
        InvalidRequestError: a field is not acceptable, or two exclude each other; `param` names it.
    """
    sent = request.structured_outputs
    own = None if sent is None else structured_outputs(sent)
    formatted = _response_format(request.response_format)
    if own is not None and formatted is not None:
        raise InvalidRequestError(
            "response_format is set, must be absent or of type 'text' with structured_outputs",
            param="response_format",
        )
    return own or formatted


def structured_outputs(sent: StructuredOutputs) -> StructuredOutputsParams:
    """The checked form of what was sent.

    Raises:
        InvalidRequestError: not exactly one constraint, or one that is not acceptable.
    """
    return StructuredOutputsParams(**msgspec.structs.asdict(sent))


def check_tools(
    constraint: StructuredOutputsParams | None,
    tools: ToolOptions | None,
    formats: OutputFormats | None,
) -> None:
    """Refuse a form for an answer that may be a call, where the two cannot be put together.

    Raises:
        InvalidRequestError: both were sent, and no grammar can be made of the model's calls.
    """
    if constraint is None or tools is None or tools.choice == "none" or formats is None:
        return
    if formats.no_tool_grammar:
        name = constraint.origin.partition(".")[0]
        raise InvalidRequestError(
            f"{name} is set, must be absent with tools unless tool_choice is 'none': "
            + formats.no_tool_grammar,
            param=name,
        )


def answer_rules(constraint: StructuredOutputsParams) -> str:
    """A constraint as rules in Lark, of which `content` is the answer.

    Raises:
        InvalidRequestError: it cannot be read.
    """
    source = grammar_source(constraint)
    if constraint.json is None and not constraint.json_object:
        return _START.sub("content", source)
    [grammar] = msgspec.json.decode(source)["grammars"]
    return f"content: %json {msgspec.json.encode(grammar['json_schema']).decode()}\n"


def after_reasoning(
    constraint: StructuredOutputsParams, formats: OutputFormats | None, token_ids: Sequence[int]
) -> StructuredOutputsParams:
    """The constraint on all of an output whose answer is constrained.

    Args:
        constraint: on the answer.
        formats: of what the model writes before and around it.
        token_ids: the rendered conversation.

    Raises:
        InvalidRequestError: the constraint cannot be read.
    """
    if formats is None:
        return constraint
    grammar = formats.answer_grammar(token_ids, answer_rules(constraint))
    if grammar is None:
        return constraint
    return StructuredOutputsParams(grammar=grammar, origin=constraint.origin)


def _response_format(sent: dict[str, Any] | None) -> StructuredOutputsParams | None:
    if sent is None:
        return None
    kind = sent.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputsParams(json_object=True, origin="response_format")
    if kind != "json_schema":
        raise InvalidRequestError(
            f"response_format.type is {kind!r}, must be one of {', '.join(_TYPES)}",
            param="response_format.type",
        )
    described = sent.get("json_schema")
    if not isinstance(described, dict):
        raise InvalidRequestError(
            "response_format.json_schema must be an object with type 'json_schema'",
            param="response_format.json_schema",
        )
    if not isinstance(described.get("name"), str):
        raise InvalidRequestError(
            "response_format.json_schema.name must be a string",
            param="response_format.json_schema.name",
        )
    schema = described.get("schema")
    path = "response_format.json_schema.schema"
    if schema is None:
        return StructuredOutputsParams(json_object=True, origin=path)
    if not isinstance(schema, dict):
        raise InvalidRequestError(f"{path} must be an object", param=path)
    return StructuredOutputsParams(json=schema, origin=path)
