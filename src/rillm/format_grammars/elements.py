"""Values written as elements: those of objects and arrays are elements again."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from rillm.format_grammars.branches import Branches, bounds, members
from rillm.format_grammars.lark import GrammarError, Lark, any_of, literal, many, optional, sequence
from rillm.format_grammars.raw_values import RawValues
from rillm.format_grammars.spelling import Spelling
from rillm.formats.syntax.base import Schema
from rillm.formats.syntax.elements import Elements

_NAME: Final = re.compile(r"[^\s<>/\[\]\"']+")
_ITEM: Final = "item"
_MAX_DEPTH: Final = 48


class ElementValues:
    """The elements of one call."""

    def __init__(
        self, lark: Lark, spelling: Spelling, syntax: Elements, root: Schema, *, is_strict: bool
    ) -> None:
        self._lark = lark
        self._spelling = spelling
        self._syntax = syntax
        self._root = root
        self._is_strict = is_strict
        self._branches = Branches(lark, root, is_strict=is_strict)
        self._rules: dict[str, str] = {}
        self._depth = 0

    def members(self, schema: Schema) -> str:
        """The elements of an object's properties, in their order."""
        found = []
        for name, inner, is_required in members(schema):
            element = self.element(name, inner)
            found.append(element if is_required else optional(element))
        return sequence(*found)

    def element(self, name: str, schema: Any) -> str:
        """One element, with a value that fits a schema."""
        if not _NAME.fullmatch(name):
            raise GrammarError(f"{name!r} cannot be the name of an element")
        key = json.dumps([name, schema], default=str)
        if key not in self._rules:
            if self._depth > _MAX_DEPTH:
                raise GrammarError(f"is nested more than {_MAX_DEPTH} levels deep")
            self._rules[key] = rule = self._lark.declare("e")
            self._depth += 1
            self._lark.define(rule, self._element(name, schema))
            self._depth -= 1
        return self._rules[key]

    def _element(self, name: str, schema: Any) -> str:
        close = f"{self._syntax.element_close[0]}{name}>"
        branches = self._branches.of(schema)
        kinds = {str(each.get("type")) for each in branches}
        leaf = RawValues(
            lark=self._lark,
            spelling=self._spelling,
            root=self._root,
            is_strict=self._is_strict,
            end=(close,),
            excluded=(*self._syntax.element_open, *self._syntax.element_close),
            beside=frozenset(kinds & {"array", "object"}),
        )
        scalars = [each for each in branches if each.get("type") not in ("array", "object")]
        parts = [leaf.one_of(scalars)] if scalars else []
        # Of the two, text without a type of its own is read as an object.
        wanted = "object" if "object" in kinds else "array"
        for each in branches:
            if each.get("type") == wanted:
                inner = self._items(each) if wanted == "array" else self._object(each)
                parts.append(sequence(inner, optional(literal("\n")), self._spelling.mark(close)))
        return sequence(
            self._spelling.mark(f"{self._syntax.element_open[0]}{name}>"), any_of(parts)
        )

    def _items(self, schema: Schema) -> str:
        least, most = bounds(schema, "Items")
        return many(self.element(_ITEM, schema.get("items", True)), "", least, most)

    def _object(self, schema: Schema) -> str:
        return self.members(schema)
