"""What a chat request says about tools, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rillm.errors import InvalidRequestError
from rillm.output_formats import OutputFormats, ToolOptions
from rillm.parsers.plugin import REQUEST_FIELDS
from rillm.server.generate_request import ParseContext
from rillm.server.protocol import ChatCompletionRequest

_CHOICES = ("auto", "none", "required")


def check_reads_calls(tools: ToolOptions | None, formats: OutputFormats | None) -> None:
    """Refuse tools that the model's calls could not be told of.

    Raises:
        InvalidRequestError: calls are allowed, and their format is not known.
    """
    if tools is None or tools.choice == "none":
        return
    if formats is None or not formats.reads_calls:
        raise InvalidRequestError(
            "tools needs a model whose tool-call format is known: start the server with "
            "--tool-call-parser, or pass tool_choice 'none'",
            param="tools",
        )


def read_tools(request: ChatCompletionRequest | ParseContext) -> ToolOptions | None:
    """Check the fields that have to do with tools.

    Tools of other types than `function` are left out: clients send what other servers run
    themselves.

    Returns:
        The functions offered and how they may be called; None where no tools were sent.

    Raises:
        InvalidRequestError: a field is not acceptable; `param` names it.
    """
    if request.tools is None:
        if request.tool_choice not in (None, "none", "auto"):
            raise InvalidRequestError(
                f"tool_choice is {request.tool_choice!r}, must be 'none', 'auto' or absent "
                "without tools",
                param="tool_choice",
            )
        return None
    if not request.tools:
        raise InvalidRequestError("tools is empty, must hold a tool or be absent", param="tools")
    functions = [tool for i, tool in enumerate(request.tools) if _is_function(tool, f"tools[{i}]")]
    return ToolOptions(
        tools=functions,
        choice=_choice(request.tool_choice, functions),
        parallel=request.parallel_tool_calls is not False,
        request={name: getattr(request, name, None) for name in REQUEST_FIELDS},
    )


def _is_function(tool: Mapping[str, Any], path: str) -> bool:
    kind = tool.get("type")
    if not isinstance(kind, str):
        raise InvalidRequestError(f"{path}.type must be 'function'", param=f"{path}.type")
    if kind != "function":
        return False
    function = tool.get("function")
    if not isinstance(function, dict):
        raise InvalidRequestError(f"{path}.function must be an object", param=f"{path}.function")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidRequestError(
            f"{path}.function.name must be a non-empty string", param=f"{path}.function.name"
        )
    if not isinstance(function.get("parameters", {}), dict | None):
        raise InvalidRequestError(
            f"{path}.function.parameters must be a JSON schema, an object",
            param=f"{path}.function.parameters",
        )
    return True


def _choice(
    choice: str | Mapping[str, Any] | None, functions: Sequence[Mapping[str, Any]]
) -> Literal["auto", "none"]:
    """How the output is read: a forced call is written as a free one is."""
    if choice is None or choice in _CHOICES:
        return "none" if choice == "none" else "auto"
    if not isinstance(choice, Mapping) or choice.get("type") != "function":
        raise InvalidRequestError(
            f"tool_choice is {choice!r}, must be one of {', '.join(_CHOICES)}, or name a function",
            param="tool_choice",
        )
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, Mapping) else None
    offered = [each["function"]["name"] for each in functions]
    if name not in offered:
        raise InvalidRequestError(
            f"tool_choice names the function {name!r}, must be one of {', '.join(offered)}",
            param="tool_choice",
        )
    return "auto"
