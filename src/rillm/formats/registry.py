"""Formats by name: every file of the folder `catalogue` adds its own, when one is asked for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from rillm.formats.description import Format
from rillm.formats.loader import load

_CATALOGUE: Final = Path(__file__).with_name("catalogue")


class UnknownFormatError(ValueError):
    """No format has this name, or the two halves cannot be mixed."""


@cache
def all_formats() -> tuple[Format, ...]:
    """All descriptions, in the order of their files' names."""
    return tuple(each for path in sorted(_CATALOGUE.glob("*.toml")) for each in load(path))


@cache
def tool_formats() -> dict[str, Format]:
    """Formats by the names of their tool halves."""
    return {name: each for each in all_formats() for name in each.names}


@cache
def reasoning_formats() -> dict[str, Format]:
    """Formats by the names of their reasoning halves."""
    return {name: each for each in all_formats() for name in each.reasoning_names}


def combine(tool_name: str | None, reasoning_name: str | None) -> Format:
    """One format of two halves.

    Args:
        tool_name: of the tool half; None for no calls.
        reasoning_name: of the reasoning half; None for no reasoning.

    Raises:
        UnknownFormatError: no format has the name, or one of the two cannot be mixed.
    """
    return combine_formats(
        None if tool_name is None else find_tool_format(tool_name),
        None if reasoning_name is None else find_reasoning_format(reasoning_name),
    )


def find_tool_format(name: str) -> Format:
    """The format whose tool half has this name.

    Raises:
        UnknownFormatError: there is none.
    """
    return _find("tool-call", name, tool_formats())


def find_reasoning_format(name: str) -> Format:
    """The format whose reasoning half has this name.

    Raises:
        UnknownFormatError: there is none.
    """
    return _find("reasoning", name, reasoning_formats())


def combine_formats(tool: Format | None, reasoning: Format | None) -> Format:
    """As `combine`, of descriptions.

    Raises:
        UnknownFormatError: one of the two cannot be mixed.
    """
    whole = next((each for each in (tool, reasoning) if each is not None and not each.mixes), None)
    if whole is not None:
        other = reasoning if whole is tool else tool
        if other is not None and other is not whole:
            raise UnknownFormatError(
                f"the {whole.family} format has one markup for reasoning and calls, so it cannot "
                f"be mixed with that of {other.family}"
            )
        return whole
    if tool is reasoning and tool is not None:
        return tool
    halves = [each for each in (tool, reasoning) if each is not None]
    return Format(
        names=() if tool is None else tool.names,
        reasoning_names=() if reasoning is None else reasoning.reasoning_names,
        family=" + ".join(each.family for each in halves) or "plain text",
        calls=None if tool is None else tool.calls,
        reasoning=None if reasoning is None else reasoning.reasoning,
        absorbed=tuple(marker for each in halves for marker in each.absorbed),
        citations=tuple(marker for each in halves for marker in each.citations),
        turn=tuple(marker for each in halves for marker in each.turn),
        suffix=next((each.suffix for each in halves if each.suffix), ""),
        example="" if tool is None else tool.example,
    )


def without_calls(format: Format) -> Format:
    """The format for a request that offers no tools: what looks like a call is text."""
    if format.calls is None or not format.mixes:
        return format
    return replace(format, calls=None)


def _find(kind: str, name: str, formats: dict[str, Format]) -> Format:
    try:
        return formats[name]
    except KeyError:
        raise UnknownFormatError(
            f"no {kind} format is named {name!r}, must be one of {', '.join(sorted(formats))}"
        ) from None
