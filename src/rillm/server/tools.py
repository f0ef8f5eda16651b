"""What a chat request says about tools, checked."""

from __future__ import annotations

from rillm.errors import InvalidRequestError
from rillm.output_formats import OutputFormats, ToolOptions
from rillm.parsers.plugin import REQUEST_FIELDS
from rillm.request_options import function_tools, tool_choice
from rillm.server.generate_request import ParseContext
from rillm.server.protocol import ChatCompletionRequest


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
    functions = function_tools(request.tools)
    choice, function = tool_choice(request.tool_choice, functions)
    return ToolOptions(
        tools=functions,
        choice=choice,
        function=function,
        parallel=request.parallel_tool_calls is not False,
        request={name: getattr(request, name, None) for name in REQUEST_FIELDS},
    )
