"""`rillm formats`: what formats there are, which a model uses, and what one makes of a text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from rillm.engine_args import BUNDLED_MODEL, EngineArgs
from rillm.errors import ConfigError
from rillm.formats.description import Format
from rillm.formats.events import StreamEvent
from rillm.formats.machine import Machine
from rillm.formats.registry import (
    UnknownFormatError,
    all_formats,
    combine,
    reasoning_formats,
    tool_formats,
)
from rillm.formats.tokens import NO_TOKENS, TokenMarkers, find_tokens
from rillm.model_formats.detect import Match
from rillm.output_formats import detect_formats
from rillm.text.tokenizer import Tokenizer

app = App(
    name="formats",
    help="List the output formats, say which a model uses, or replay a text through one.",
)

_PIECE_COLUMNS = 44


@app.default
def formats(model: str | None = None, /) -> None:
    """List all formats, or say which one a model uses and why.

    Args:
        model: Directory or hub id of a model.
    """
    if model is None:
        _list_formats()
        return
    args = EngineArgs(model=model)
    directory = args.model_directory()
    tokenizer = Tokenizer.from_directory(args.tokenizer_directory(directory))
    detected = detect_formats(directory, tokenizer, model)
    tool, reasoning = detected.tool, detected.reasoning
    _print_match("--tool-call-parser", tool, () if tool is None else tool.format.names)
    reasoning_names = () if reasoning is None else reasoning.format.reasoning_names
    _print_match("--reasoning-parser", reasoning, reasoning_names)


def _list_formats() -> None:
    print(f"{len(tool_formats())} names for --tool-call-parser:\n")
    for each in all_formats():
        if each.names:
            print(f"  {' '.join(each.names):44}  {each.family}")
    print(f"\n{len(reasoning_formats())} names for --reasoning-parser:\n")
    for each in all_formats():
        if each.reasoning_names:
            print(f"  {' '.join(each.reasoning_names):44}  {each.family}")


def _print_match(flag: str, match: Match | None, names: Sequence[str]) -> None:
    if match is None or not names:
        print(f"{flag} none: nothing in the model's files speaks for a format")
    else:
        print(f"{flag} {names[0]}: {match.format.family} ({'; '.join(match.reasons)})")


@app.command
def replay(
    format: str,
    file: Path,
    /,
    *,
    chunks: str = "token",
    tools: Path | None = None,
    model: str | None = None,
    reasoning_first: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show what a format makes of a text, piece by piece.

    Args:
        format: Name of a tool format, of a reasoning format, or two names joined by +.
        file: What the model wrote; - for standard input.
        chunks: Cut the text into tokens (token), characters (char), or pieces of so many
            characters.
        tools: JSON file with the functions offered, as a request has them.
        model: Model whose tokens decide; by default the text decides.
        reasoning_first: The prompt left the reasoning open.
    """
    described = _find(format)
    text = sys.stdin.read() if str(file) == "-" else _read(file)
    tokens, pieces = NO_TOKENS, _pieces_of(text, chunks)
    if chunks == "token":
        tokenizer = Tokenizer.from_directory(
            EngineArgs(model=model or BUNDLED_MODEL).model_directory()
        )
        if model is not None:
            special = tokenizer.special_token_ids
            added = tokenizer.added_tokens.items()
            tokens = find_tokens(described, {name: number in special for name, number in added})
        pieces = _tokens_of(text, tokenizer, tokens)
    start: Literal["reasoning"] | None = "reasoning" if reasoning_first else None
    machine = Machine(described, _read_tools(tools), tokens=tokens, start=start)
    for shown, piece in pieces:
        _print_step(shown, machine.feed(piece))
    _print_step("(end)", machine.finish())


def _find(names: str) -> Format:
    tool_name, _, reasoning_name = names.partition("+")
    try:
        if reasoning_name:
            return combine(tool_name, reasoning_name)
        if tool_name not in tool_formats():
            return combine(None, tool_name)
        return combine(tool_name, tool_name if tool_name in reasoning_formats() else None)
    except UnknownFormatError as error:
        raise ConfigError(str(error)) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _read_tools(path: Path | None) -> list[Any]:
    if path is None:
        return []
    try:
        tools = json.loads(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(tools, list):
        raise ConfigError(f"{path} must hold a list of tools")
    return tools


def _pieces_of(text: str, chunks: str) -> Iterator[tuple[str, str]]:
    """Pieces of characters: each as it is shown and as it is fed."""
    if chunks not in ("token", "char") and not (chunks.isdigit() and int(chunks)):
        raise ConfigError(f"chunks is {chunks!r}, must be token, char or a number from 1 on")
    size = int(chunks) if chunks.isdigit() else 1
    pieces = (text[position : position + size] for position in range(0, len(text), size))
    return ((piece, piece) for piece in pieces)


def _tokens_of(text: str, tokenizer: Tokenizer, tokens: TokenMarkers) -> Iterator[tuple[str, str]]:
    """Pieces of one token each, as above."""
    added = tokenizer.added_tokens
    stand_ins = {added[name]: mark for name, mark in tokens.stand_ins.items()}
    plain = tokenizer.detokenizer(skip_special_tokens=False)
    marked = tokenizer.detokenizer(skip_special_tokens=False, stand_ins=stand_ins)
    for token_id in tokenizer.encode(text, add_special_tokens=False):
        yield plain.push([token_id]), marked.push([token_id])
    yield plain.finish(), marked.finish()


def _print_step(shown: str, events: Sequence[StreamEvent]) -> None:
    if not shown and not events:
        return
    left = shown if shown == "(end)" else json.dumps(shown, ensure_ascii=False)
    lines = [left[i : i + _PIECE_COLUMNS] for i in range(0, len(left), _PIECE_COLUMNS)]
    right = [_describe(event) for event in events]
    for i in range(max(len(lines), len(right))):
        piece = lines[i] if i < len(lines) else ""
        print(f"{piece:{_PIECE_COLUMNS}} | {right[i] if i < len(right) else ''}".rstrip())


def _describe(event: StreamEvent) -> str:
    fields = (json.dumps(getattr(event, name), ensure_ascii=False) for name in event.__slots__)
    return f"{type(event).__name__}({', '.join(fields)})"
