"""A constraint as one text in llguidance's notation, which is what travels to the engine."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from llguidance import LLMatcher, regex_to_lark
from llguidance.gbnf_to_lark import gbnf_to_lark

from rillm.structured_outputs import MAX_NESTING, StructuredOutputsParams, json_depth_exceeds

WHITESPACE: Final = r" |\r?\n[ \t]{0,64}"
"""Between the parts of JSON: one space, or a line break and an indentation. Where any amount is
allowed, weak models write nothing else until they are cut off."""
_LONE_BACKSLASH: Final = re.compile(r"(?<!\\)(?:\\\\)*\\\Z")
_GBNF_RULE: Final = re.compile(r"^[ \t]*[\w-]+[ \t]*::=", re.MULTILINE)
_OBJECT: Final = {"type": "object"}
_OPTIONS: Final = "x-guidance"
"""Key of a schema under which llguidance looks for options."""
_SUBSCHEMAS: Final = ("properties", "patternProperties", "$defs", "definitions")
"""Keys whose values map names to schemas; elsewhere an object is a schema itself."""
_DATA: Final = frozenset({"const", "enum", "default", "examples", "example"})
"""Keys whose values are not schemas."""


def grammar_source(params: StructuredOutputsParams) -> str:
    """Write a constraint as a grammar of llguidance.

    Args:
        params: of a checked shape.

    Returns:
        The grammar; whether it means anything is for `GrammarChecker` to find.

    Raises:
        InvalidRequestError: the schema's text is not a JSON object or too deep, or the grammar is
            written in neither notation.
    """
    if params.json is not None or params.json_object:
        return _json(params)
    if params.regex is not None:
        if _LONE_BACKSLASH.search(params.regex):
            # The converter would drop it.
            raise params.error("ends in a lone backslash")
        # ASCII, so that whatever another engine takes for a digit or a letter, it takes these.
        return LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(params.regex, 'dws')}/")
    if params.choice is not None:
        return LLMatcher.grammar_from_lark(_alternatives(params.choice))
    assert params.grammar is not None
    return LLMatcher.grammar_from_lark(_lark(params))


def _json(params: StructuredOutputsParams) -> str:
    schema: Any = _OBJECT if params.json is None else params.json
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema)
        except (msgspec.DecodeError, RecursionError) as error:
            raise params.error(f"is not JSON: {error}") from error
        if not isinstance(schema, dict):
            raise params.error("must be a JSON schema: an object, or its text")
        if json_depth_exceeds(schema, MAX_NESTING):
            raise params.error(f"is nested too deeply, must be at most {MAX_NESTING} levels deep")
    if params.disable_additional_properties:
        schema = _closed(schema)
    own = schema.get(_OPTIONS)
    options: dict[str, Any] = {"whitespace_pattern": WHITESPACE}
    if isinstance(own, dict):
        options |= own
    if params.disable_any_whitespace:
        options = options | {"whitespace_flexible": False, "whitespace_pattern": None}
    elif params.whitespace_pattern is not None:
        options["whitespace_pattern"] = params.whitespace_pattern
    schema = schema | {_OPTIONS: options}
    return msgspec.json.encode({"grammars": [{"json_schema": schema}]}).decode()


def _lark(params: StructuredOutputsParams) -> str:
    grammar = params.grammar or ""
    if not _GBNF_RULE.search(grammar):
        return grammar
    try:
        return gbnf_to_lark(grammar)
    except Exception as error:
        # The converter raises nothing more specific.
        raise params.error(f"cannot be read as GBNF: {error}") from error


def _alternatives(choices: list[str]) -> str:
    return "start: " + " | ".join(msgspec.json.encode(each).decode() for each in choices)


def _closed(schema: Any) -> Any:
    """A schema whose objects have only the properties it lists, where it says nothing else."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    close: Callable[[Any], Any] = _closed
    closed = {
        key: value
        if key in _DATA
        else {name: close(each) for name, each in value.items()}
        if key in _SUBSCHEMAS and isinstance(value, dict)
        else close(value)
        for key, value in schema.items()
    }
    if "properties" in schema:
        closed.setdefault("additionalProperties", False)
    return closed
