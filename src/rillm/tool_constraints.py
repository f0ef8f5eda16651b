"""Which requests have their calls held to a grammar, and what their sampling options are then."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rillm.errors import InvalidRequestError
from rillm.format_grammars.lark import GrammarError
from rillm.output_formats import OutputFormats, ToolOptions
from rillm.sampling_params import SamplingParams, StructuredOutputsParams
from rillm.structured_outputs import MAX_CONSTRAINT_BYTES


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
        InvalidRequestError: a function's name or schema cannot be written in the model's format,
            or all of them are too much.
    """
    num_bytes = len(msgspec.json.encode(tools.callable))
    if num_bytes > MAX_CONSTRAINT_BYTES:
        raise InvalidRequestError(
            f"tools has {num_bytes} bytes, must have at most {MAX_CONSTRAINT_BYTES} where calls "
            "are held to their schemas",
            param="tools",
        )
    try:
        grammar = formats.tool_grammar(prompt_token_ids, tools, rules)
    except GrammarError as error:
        raise InvalidRequestError(
            f"tools cannot be put into a grammar: {error}", param="tools"
        ) from error
    return msgspec.structs.replace(
        params, structured_outputs=StructuredOutputsParams(grammar=grammar, origin="tools")
    )
