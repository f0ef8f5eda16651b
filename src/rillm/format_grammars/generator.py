"""The grammar of an output: what a request's tools and a model's format allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rillm.format_grammars.calls import Tool
from rillm.format_grammars.frames import Choice, FrameWriter, Start
from rillm.format_grammars.lark import GrammarError, Lark
from rillm.format_grammars.messages import MessageWriter
from rillm.format_grammars.spelling import Spelling
from rillm.formats.description import Format

_NOTHING: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


def unsupported(format: Format) -> str:
    """Why no grammar can be made of a format's calls; empty if one can."""
    if format.from_checkpoint or not (format.example or format.calls is None):
        return "the checkpoint declares how calls are read, not how they are written"
    if not format.reads_calls:
        return "calls are not told from text"
    return ""


def tool_grammar(
    format: Format,
    tools: Iterable[Mapping[str, Any]],
    choice: Choice = "required",
    *,
    rules: str = "",
    is_parallel: bool = True,
    start: Start | None = None,
    spelling: Spelling | None = None,
) -> str:
    """The grammar of an output with calls.

    Args:
        format: what the model writes.
        tools: the functions that may be called, as the chat completions protocol has them.
        choice: whether there must be a call; then there is no other text.
        rules: as in `content_grammar`, of an answer in place of calls; empty for any text, with
            calls or without.
        is_parallel: whether there may be several.
        start: where the prompt ends; None for where the format's outputs begin.
        spelling: which markers are tokens; None for none.

    Returns:
        Lark, as llguidance has it.

    Raises:
        GrammarError: the format, a name or a schema cannot be written.
    """
    reason = unsupported(format)
    if reason:
        raise GrammarError(reason)
    lark = Lark()
    writer = _writer(format, spelling or Spelling(), lark)
    start = start or start_of(format)
    functions = read_tools(tools)
    if choice == "required":
        return lark.text(writer.required(start, functions, is_parallel=is_parallel))
    content = "content" if rules else ""
    return lark.text(writer.auto(start, functions, content, is_parallel=is_parallel)) + rules


def content_grammar(
    format: Format,
    rules: str,
    *,
    start: Start | None = None,
    spelling: Spelling | None = None,
) -> str | None:
    """The grammar of an answer of a given form, after reasoning of any.

    Args:
        format: what the model writes.
        rules: Lark, with a rule `content` for the answer. Other names are the caller's own if
            they do not end in `_` and digits.
        start: as above.
        spelling: as above.

    Returns:
        Lark; None if all of the output is the answer, so that nothing goes around it.
    """
    lark = Lark()
    output = _writer(format, spelling or Spelling(), lark).answer(
        start or start_of(format), "content"
    )
    return lark.text(output) + rules if output != "content" else None


def start_of(format: Format) -> Start:
    """Where outputs begin of whose prompt nothing is known."""
    if format.header is not None:
        return Start("header" if format.header.starts_open else "content")
    is_open = format.reasoning is not None and format.reasoning.starts_open
    return Start("reasoning" if is_open else "content")


def read_tools(tools: Iterable[Mapping[str, Any]]) -> list[Tool]:
    """The functions of a request."""
    found = []
    for tool in tools:
        function = tool.get("function", tool)
        schema = function.get("parameters")
        found.append(Tool(function["name"], schema or _NOTHING, bool(function.get("strict"))))
    return found


def _writer(format: Format, spelling: Spelling, lark: Lark) -> FrameWriter | MessageWriter:
    writer = FrameWriter if format.header is None else MessageWriter
    return writer(format, spelling, lark)
