"""What a chat request says about tools, checked."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rillm.errors import InvalidRequestError
from rillm.format_grammars.lark import GrammarError
from rillm.output_formats import OutputFormats, ToolOptions
from rillm.parsers.plugin import REQUEST_FIELDS
from rillm.request_options import function_tools, tool_choice
from rillm.sampling_params import SamplingParams, StructuredOutputsParams
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


def is_constrained(
    tools: ToolOptions | None, formats: OutputFormats | None, *, has_form: bool = False
) -> bool:
    """Whether the calls of a request are held to a grammar.

    Args:
        tools: what may be called.
        formats: the model's.
        has_form: whether an answer in place of calls has to be of a given form.

    Raises:
        InvalidRequestError: the request asks for what only a grammar ensures, and none can be
            made of the model's format.
    """
    if tools is None or formats is None or tools.choice == "none":
        return False
    if not (has_form or formats.constrains(tools)):
        return False
    reason = formats.no_tool_grammar
    if reason and tools.asks_for_grammar:
        is_forced = tools.choice == "required"
        what = "tool_choice forces a call" if is_forced else "a function of tools is strict"
        raise InvalidRequestError(
            f"{what}, which cannot be ensured for this model: {reason}",
            param="tool_choice" if is_forced else "tools",
        )
    # Of several calls where one is allowed, the parser leaves out the others as well.
    return not reason


def constrained(
    params: SamplingParams,
    prompt_token_ids: Sequence[int],
    tools: ToolOptions,
    formats: OutputFormats,
    rules: str = "",
) -> SamplingParams:
    """The sampling options of a request whose calls are constrained.

    Args:
        params: without a constraint of their own.
        prompt_token_ids: the rendered conversation.
        tools: what may be called.
        formats: the model's.
        rules: Lark, whose rule `content` is the answer where there is no call; empty for any.

    Raises:
        InvalidRequestError: a function's name or schema cannot be written in the model's format.
    """
    try:
        grammar = formats.tool_grammar(prompt_token_ids, tools, rules)
    except GrammarError as error:
        raise InvalidRequestError(
            f"tools cannot be put into a grammar: {error}", param="tools"
        ) from error
    return msgspec.structs.replace(
        params, structured_outputs=StructuredOutputsParams(grammar=grammar, origin="tools")
    )
