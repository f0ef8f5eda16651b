"""Reads descriptions of formats from files: TOML with the fields of `rillm.formats.description`.

A file holds an array of tables `format`. A string stands for a tuple of one string, and where a
table is wanted for the table of this name below `shared`; a table with the key `like` is that one
with some fields replaced. A syntax says its `kind`, a header names the function of `routes`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from rillm.formats.description import Format
from rillm.formats.routes import ROUTES
from rillm.formats.syntax.base import CallSyntax
from rillm.formats.syntax.braces import BraceCall
from rillm.formats.syntax.either import Either
from rillm.formats.syntax.elements import Elements
from rillm.formats.syntax.header import HeaderJson
from rillm.formats.syntax.json_calls import JsonArray, JsonCall
from rillm.formats.syntax.python_calls import PythonCalls
from rillm.formats.syntax.tagged import Tagged

SYNTAXES: Final = {
    "json": JsonCall,
    "json_array": JsonArray,
    "header_json": HeaderJson,
    "tags": Tagged,
    "elements": Elements,
    "either": Either,
    "braces": BraceCall,
    "python": PythonCalls,
}
_hints = cache(get_type_hints)


class DescriptionError(ValueError):
    """A description is malformed; the message names the file, the format and the key."""


def load(path: Path) -> tuple[Format, ...]:
    """The formats that one file describes.

    Raises:
        DescriptionError: a key or a name is unknown, or a value of the wrong type.
        tomllib.TOMLDecodeError: the file is no TOML.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    shared, tables = content.pop("shared", {}), content.pop("format", [])
    if content:
        raise DescriptionError(f"{path.name}: unknown key {next(iter(content))!r}")
    return tuple(_Reader(path.name, shared, each).format() for each in tables)


class _Reader:
    """One format's table."""

    def __init__(self, file: str, shared: dict[str, Any], table: dict[str, Any]) -> None:
        self._shared = shared
        self._table = table
        self._where = f"{file}: format {table.get('family', '?')!r}"

    def format(self) -> Format:
        return self._read(Format, self._table, "")  # type: ignore[no-any-return]

    def _read(self, hint: Any, value: Any, key: str) -> Any:
        """The value of a field, of the type that its hint says."""
        if get_origin(hint) is UnionType:
            hint = get_args(hint)[0]
        if get_origin(hint) is Callable:
            return self._choose(ROUTES, value, key)
        if get_origin(hint) is Literal:
            return self._choose({each: each for each in get_args(hint)}, value, key)
        if hint is CallSyntax or dataclasses.is_dataclass(hint):
            return self._object(hint, value, key)
        if get_origin(hint) is tuple:
            items = [value] if isinstance(value, str) else value
            if isinstance(items, list) and all(isinstance(each, str) for each in items):
                return tuple(items)
            raise self._error(key, "must be a string or an array of strings")
        if type(value) is not hint:
            raise self._error(key, f"must be of type {hint.__name__}")
        return value

    def _object(self, hint: Any, value: Any, key: str) -> Any:
        table = {"like": value} if isinstance(value, str) else value
        if not isinstance(table, dict):
            raise self._error(key, "must be a table")
        if "like" in table:
            base = self._choose(self._shared, table["like"], f"{key}.like")
            table = {**base, **{name: table[name] for name in table if name != "like"}}
        if hint is CallSyntax:
            hint = self._choose(SYNTAXES, table.get("kind"), f"{key}.kind")
            table = {name: table[name] for name in table if name != "kind"}
        fields, hints = dataclasses.fields(hint), _hints(hint)
        self._check(table.keys(), fields, key)
        return hint(
            **{name: self._read(hints[name], table[name], f"{key}.{name}") for name in table}
        )

    def _check(self, given: Any, fields: tuple[dataclasses.Field[Any], ...], key: str) -> None:
        for name in given - {each.name for each in fields}:
            raise self._error(f"{key}.{name}", "is unknown")
        for each in fields:
            required = each.default is each.default_factory is dataclasses.MISSING
            if required and each.name not in given:
                raise self._error(f"{key}.{each.name}", "is missing")

    def _choose(self, choices: dict[str, Any], name: Any, key: str) -> Any:
        if not isinstance(name, str) or name not in choices:
            raise self._error(key, f"must be one of {', '.join(choices)}, is {name!r}")
        return choices[name]

    def _error(self, key: str, reason: str) -> DescriptionError:
        return DescriptionError(f"{self._where}: {key.lstrip('.')} {reason}")
