"""Grammars as text, in llguidance's dialect of Lark.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md. Its lexer follows all
lexemes that may come next at once and takes the longest that fits. So alternatives that begin
alike are written as one terminal, and text up to a marker as a lazy rule, which ends at the first
marker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

ANY: Final = "/(?s:.*)/"
"""Any text. Negations are always intersected with it: alone they match what is no UTF-8."""

_JSON_LAYOUT: Final = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}
"""JSON on one line: a model that may write any whitespace can write nothing else for long."""


MAX_WORK: Final = 200_000
"""Most work that one grammar may be: a schema whose references multiply is no grammar."""


class GrammarError(ValueError):
    """Something cannot be written in a format, or cannot be put into a grammar."""


class Lark:
    """Collects rules. Expressions are strings; equal ones share a rule."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._work_left = MAX_WORK

    def spend(self, work: int) -> None:
        """Count work: about the number of keys looked at, or a sixteenth of characters written.

        Raises:
            GrammarError: it has been more than `MAX_WORK`.
        """
        self._work_left -= work
        if self._work_left < 0:
            raise GrammarError("is too much to make a grammar of: make it simpler")

    def rule(self, hint: str, body: str) -> str:
        """Name an expression."""
        return self._named(hint.lower(), body)

    def terminal(self, hint: str, body: str) -> str:
        """Name a regular expression."""
        return self._named(hint.upper(), body)

    def lazy(self, hint: str, body: str) -> str:
        """Name a regular expression that matches no more than it must."""
        return self._named(f"{hint.lower()}[lazy]", self.terminal(hint, body))

    def declare(self, hint: str) -> str:
        """Name a rule that `define` gives its body, for what contains itself."""
        name = f"{hint}_{len(self._bodies)}"
        self._bodies[name] = ""
        return name

    def define(self, name: str, body: str) -> None:
        """Give a declared rule its body."""
        self.spend(1 + len(body) // 16)
        self._bodies[name] = body

    def text(self, start: str) -> str:
        """The whole grammar, of which `start` is the expression that all of the output fits."""
        lines = ["start: " + start]
        lines += [f"{name}: {body}" for name, body in self._bodies.items()]
        return "\n".join(lines) + "\n"

    def _named(self, hint: str, body: str) -> str:
        name = self._names.get(hint + body)
        if name is None:
            self.spend(1 + len(body) // 16)
            base, _, options = hint.partition("[")
            name = f"{base}_{len(self._bodies)}"
            self._bodies[name + ("[" + options if options else "")] = body
            self._names[hint + body] = name
        return name


def literal(text: str) -> str:
    """Exactly this text."""
    return json.dumps(text, ensure_ascii=False)


def regex(pattern: str) -> str:
    """A regular expression."""
    escaped = False
    parts = []
    for character in pattern:
        is_slash = character == "/" and not escaped
        parts.append("\\/" if is_slash else _CONTROLS.get(character, character))
        escaped = character == "\\" and not escaped
    return f"/{''.join(parts)}/"


_CONTROLS: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def sequence(*parts: str) -> str:
    """One after the other."""
    return " ".join(part for part in parts if part)


def any_of(parts: Iterable[str]) -> str:
    """One of several.

    Raises:
        GrammarError: there are none.
    """
    distinct = list(dict.fromkeys(parts))
    if not distinct:
        raise GrammarError("no value can be written that the schema allows")
    some = [each for each in distinct if each]
    union = some[0] if len(some) == 1 else f"({' | '.join(some)})"
    return union if len(some) == len(distinct) else optional(union) if some else ""


def optional(part: str) -> str:
    """This, or nothing."""
    return f"({part})?"


def many(part: str, separator: str = "", least: int = 1, most: int | None = None) -> str:
    """Several, with something between them."""
    if most is not None and most < max(least, 1):
        return ""
    rest = repeated(
        sequence(separator, part), max(least - 1, 0), None if most is None else most - 1
    )
    return sequence(part, rest) if least else optional(sequence(part, rest))


def repeated(part: str, least: int = 0, most: int | None = None) -> str:
    """Some number of the same."""
    if most == 0:
        return ""
    return f"({part})" + ("*" if (least, most) == (0, None) else f"{{{least},{most or ''}}}")


def without(literals: Iterable[str]) -> str:
    """The regular expression of texts that hold none of the literals."""
    distinct = sorted(set(filter(None, literals)))
    if not distinct:
        return ANY
    return f"({ANY} & ~({ANY} ({' | '.join(map(literal, distinct))}) {ANY}))"


def json_value(schema: dict[str, Any], *, is_lenient: bool) -> str:
    """A JSON value that fits a schema.

    Args:
        schema: in llguidance's own hands.
        is_lenient: whether keywords that it does not know are left out.
    """
    options = {**_JSON_LAYOUT, "lenient": True} if is_lenient else _JSON_LAYOUT
    return "%json " + json.dumps({"x-guidance": options, **schema}, ensure_ascii=False)
