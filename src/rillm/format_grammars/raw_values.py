"""Values written as text up to a marker, whose types the schema says."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import Any, Final

from rillm.format_grammars.branches import Branches, bounds, pattern_of
from rillm.format_grammars.lark import ANY, GrammarError, Lark, any_of, literal, optional, sequence
from rillm.format_grammars.literals import INTEGER, NUMBER, Literals, has_limits
from rillm.format_grammars.spelling import Spelling
from rillm.formats import schema as schemas
from rillm.formats.syntax.base import Schema
from rillm.formats.values import Trim

_SPACE: Final = r"[\s\x1c-\x1f]*"
"""What Python's `strip` takes off."""
_NUMERAL: Final = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_READ_AS: Final = {
    "null": "(?i:null|none)",
    "integer": _NUMERAL,
    "number": _NUMERAL,
    "boolean": "(?i:true|false|1|0)",
    "object": r"[\[{](?s:.*)",
    "array": r"[\[{](?s:.*)",
}
"""Texts that are not strings where a value may be of another type as well."""
_WORDS: Final = {
    "null": '"null"',
    "boolean": '"true" | "false"',
    "integer": INTEGER,
    "number": NUMBER,
}
_CDATA: Final = "<![CDATA["
_LINE: Final = literal("\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawValues:
    """Values up to one marker."""

    lark: Lark
    spelling: Spelling
    root: Schema
    is_strict: bool
    end: tuple[str, ...]
    """Markers that end a value; the first is the one that is written."""
    excluded: tuple[str, ...] = ()
    """Other markers that no value can hold."""
    trim: Trim = "none"
    is_xml: bool = False
    beside: frozenset[str] = frozenset()
    """Types of values that are written in another way, but read in this one as well."""

    def value(self, schema: Any) -> str:
        """A value that fits a schema, and the marker after it."""
        return self.one_of(self._branches(schema))

    def one_of(self, branches: list[dict[str, Any]]) -> str:
        """As `value`, of the alternatives of a schema."""
        if {} in branches:
            return self.text([{}])
        texts, others = split(branches)
        if not texts:
            return self.json(others)
        words = [each for each in others if is_word(each)]
        structures = [each for each in others if each not in words]
        if not structures:
            return self.text(texts, words)
        if self.trim == "none":
            return any_of([self.text(texts, words, structures), self._json(structures)])
        both = [self.text(texts, words, structures), self._json(structures)]
        return sequence(optional(_LINE), any_of(both))

    def labelled(self, schema: Any) -> tuple[str | None, str | None]:
        """As `value`, of markup that says whether a value is a string: one of each, if possible."""
        branches = self._branches(schema)
        if {} in branches:
            return self.text([{}]), None
        texts, others = split(branches)
        return self.text(texts) if texts else None, self.json(others) if others else None

    def json(self, branches: list[dict[str, Any]]) -> str:
        """A value that is no string, and the marker after it."""
        before = "" if self.trim == "none" else optional(_LINE)
        return sequence(before, self._json(branches))

    def text(
        self,
        texts: list[dict[str, Any]],
        words: list[dict[str, Any]] | None = None,
        structures: list[dict[str, Any]] | None = None,
    ) -> str:
        """A string, and the marker after it.

        Args:
            texts: what it may be.
            words: other values that stand in its place, each of a few characters.
            structures: yet others, which their first character tells from it.
        """
        others = [*(words or ()), *(structures or ())]
        kinds = {*map(_kind_of, others), *self.beside}
        read_as = {_READ_AS[kind] for kind in kinds}
        if structures:
            read_as |= {r"[-0-9](?s:.*)"} if kinds & {"integer", "number"} else set()
            # The first character decides, so it is no space.
            read_as |= {r"[\s](?s:.*)"}
        outside = [f"~/{_SPACE}({each}){_SPACE}/" for each in sorted(read_as)]
        bodies = []
        for each in texts:
            if "enum" in each:
                known = [self._constant(value) for value in each["enum"] if self._is_exact(value)]
                bodies += [" & ".join([value, *outside]) for value in known]
            else:
                bodies.append(" & ".join([self._body(each), *outside]))
        bodies += [each for word in words or () for each in _word(word)]
        if not bodies:
            raise GrammarError("none of the texts that the schema allows can be written")
        union = " | ".join(f"({each})" for each in dict.fromkeys(bodies))
        body = ANY if bodies == [ANY] else f"({union})"
        return self.spelling.until(self.lark, "TEXT", self.end[:1], self._forbidden(), body)

    def _branches(self, schema: Any) -> list[dict[str, Any]]:
        return Branches(self.lark, self.root, is_strict=self.is_strict).of(schema)

    def _json(self, branches: list[dict[str, Any]]) -> str:
        excluded = self.spelling.literals((*self.end, *self._forbidden()))
        if self.is_xml:
            excluded |= {"&", "<"}
        style = Literals(self.lark, self.root, is_strict=self.is_strict, excluded=sorted(excluded))
        after = "" if self.trim == "none" else optional(_LINE)
        values = any_of(map(style.branch, branches))
        return sequence(values, after, self.spelling.mark(self.end[0]))

    def _forbidden(self) -> tuple[str, ...]:
        more = (_CDATA,) if self.is_xml else ()
        return (*self.end[1:], *self.excluded, *more)

    def _body(self, schema: Schema) -> str:
        """The regular expression of the strings that fit a schema, with what is trimmed off."""
        least, most = bounds(schema, "Length")
        pattern = pattern_of(schema, is_strict=self.is_strict)
        if (least, most) == (0, None) and pattern == ANY:
            return ANY
        parts = [pattern] if pattern != ANY else []
        if (least, most) != (0, None):
            parts.append(f"/(?s:.){{{least},{'' if most is None else most}}}/")
        if self.trim == "strip":
            parts += ["~/\\s(?s:.*)/", "~/(?s:.*)\\s/"]
        if self.trim == "newline":
            parts += ["~/\\n(?s:.*)/", "~/(?s:.*)\\n/"]
        if self.is_xml:
            parts.append("~/(?s:.*)&(?s:.*)/")
        body = " & ".join([ANY, *parts])
        return body if self.trim == "none" else f"(/\\n?/ ({body}) /\\n?/)"

    def _is_exact(self, value: Any) -> bool:
        """Whether a constant can be written."""
        if not isinstance(value, str):
            return True
        written = html.escape(value, quote=False) if self.is_xml else value
        is_whole = self.trim == "none" or value == value.strip()
        forbidden = self.spelling.literals((*self.end, *self._forbidden()))
        return is_whole and not any(each in written for each in forbidden)

    def _constant(self, value: Any) -> str:
        if not isinstance(value, str):
            return literal(json.dumps(value, ensure_ascii=False))
        written = html.escape(value, quote=False) if self.is_xml else value
        return literal(written) if self.trim == "none" else f"(/\\n?/ {literal(written)} /\\n?/)"


def split(branches: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The alternatives that are strings, and all others."""
    texts: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for each in branches:
        if "enum" not in each:
            (texts if each["type"] == "string" else others).append(each)
            continue
        strings = [value for value in each["enum"] if isinstance(value, str)]
        rest = [value for value in each["enum"] if not isinstance(value, str)]
        texts += [{"enum": strings}] if strings else []
        others += [{"enum": [value]} for value in rest]
    return texts, others


def is_word(schema: Schema) -> bool:
    """Whether values are single words, numbers without limits included."""
    if "enum" in schema:
        return not isinstance(schema["enum"][0], list | dict)
    return schema["type"] in _WORDS and not has_limits(schema)


def _kind_of(schema: Schema) -> str:
    if "enum" in schema:
        return min(schemas.types(schema) or {"string"})
    return str(schema.get("type", "string"))


def _word(schema: Schema) -> list[str]:
    if "enum" in schema:
        return [literal(json.dumps(value)) for value in schema["enum"]]
    return [_WORDS[schema["type"]]]
