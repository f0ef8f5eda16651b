"""Python literals, converted to JSON as they arrive.

Source: The Python Language Reference, section 2.4 "Literals" and 6.2 "Atoms". Other than there,
strings may hold line breaks, numbers leading zeros, and `true`, `false` and `null` are known.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from typing import Final

from rillm.formats.json_text import quote, read_escape
from rillm.formats.schema import dump
from rillm.formats.source import Emit, Markers, Source, Steps
from rillm.formats.syntax.base import Context

WORD: Final = re.compile(r"[\w.+-]*")
"""Characters of numbers, constants and keys."""
_MAX_DEPTH: Final = 100
_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_START: Final = re.compile(r"[+-]?\.?[0-9]")
_CONSTANTS: Final = {"True": "true", "False": "false", "None": "null"}
_CONSTANTS_OF_JSON: Final = frozenset(_CONSTANTS.values())
_STRING_PREFIX: Final = re.compile(r"[rRuUfFbB]{0,2}")
_PLAIN: Final = {'"': re.compile(r'[^"\\]+'), "'": re.compile(r"[^'\\]+")}
_RAW: Final = {'"': re.compile(r'[^"]+'), "'": re.compile(r"[^']+")}
_OPEN_ESCAPE: Final = re.compile(
    r"\\(?:\r|x[0-9a-fA-F]?|u[0-9a-fA-F]{0,3}|U[0-9a-fA-F]{0,7}|[0-3][0-7]?|[4-7]"
    r"|N(?:\{[\w -]{0,80})?|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?"
)
"""An escape that the next character may continue."""
_ESCAPE: Final = re.compile(
    r"\\(?:\r\n|x[0-9a-fA-F]{2}|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|[0-7]{1,2}|N\{[^}]*\}|.)",
    re.DOTALL,
)
_KNOWN_ESCAPES: Final = frozenset("\\'\"abfnrtv\n\rxuUN01234567")
_MAX_ESCAPES: Final = 1024
_SPACE: Final = re.compile(r"[ \t\r\n]+")
_TRIPLE: Final = {mark: Markers((mark * 2,)) for mark in "'\""}
"""What makes a quotation mark three of them."""
_AFTER_VALUE: Final = frozenset(",)]}:'\"")


class PythonLiterals:
    """Literals, converted to JSON."""

    def __init__(self, context: Context, *, repairs_quotes: bool) -> None:
        """Read from the source of `context`.

        Args:
            context: the choice.
            repairs_quotes: whether a quotation mark that no end of the value follows is a part
                of the string.
        """
        self._source: Source = context.source
        self._spell = context.sink.spell
        self._repairs_quotes = repairs_quotes

    def value(self, prefix: str, emit: Emit, depth: int) -> Steps[bool]:
        """Convert one value.

        Args:
            prefix: JSON text that goes before it, once it is certain that there is a value.
            emit: takes JSON text.
            depth: how many containers it is in.

        Returns:
            Whether it is whole. Some of it may have been emitted if not.
        """
        source = self._source
        character = yield from source.skip_space()
        if character in ("'", '"'):
            return (yield from self._string(prefix, emit, is_raw=False))
        if depth < _MAX_DEPTH and (yield from source.accept_one("[({")):
            if character == "[":
                return (yield from self._items(prefix + "[", emit, depth + 1, "]"))
            closer = ")" if character == "(" else "}"
            return (yield from self._group(prefix, emit, depth + 1, closer))
        word, following = yield from source.word(WORD)
        if following in ("'", '"') and _STRING_PREFIX.fullmatch(word):
            return (yield from self._string(prefix, emit, is_raw="r" in word.lower()))
        json_text = _word(word) if following else None
        if json_text is not None:
            emit(prefix + json_text)
        return json_text is not None

    def goes_on(self, closer: str) -> Steps[bool]:
        """Consume a comma after a value; returns false if neither it nor `closer` follows."""
        if (yield from self._source.accept_one(",")):
            return True
        return (yield from self._source.skip_space()) == closer

    def _held_value(self, depth: int) -> Steps[str | None]:
        """JSON text of a value of which nothing is emitted; None if it is not whole."""
        parts: list[str] = []
        is_whole = yield from self.value("", parts.append, depth)
        return "".join(parts) if is_whole else None

    def _items(self, prefix: str, emit: Emit, depth: int, closer: str) -> Steps[bool]:
        """Convert what is left of a list, a tuple or a set."""
        while not (yield from self._source.accept_one(closer)):
            is_whole = yield from self.value(prefix, emit, depth)
            if not is_whole or not (yield from self.goes_on(closer)):
                return False
            prefix = ", "
        emit("]" if prefix == ", " else prefix + "]")
        return True

    def _group(self, prefix: str, emit: Emit, depth: int, closer: str) -> Steps[bool]:
        """Convert what its first element tells: a dict or a set, a tuple or a value alone."""
        source = self._source
        if (yield from source.accept_one(closer)):
            emit(prefix + ("[]" if closer == ")" else "{}"))
            return True
        first = yield from self._held_value(depth)
        if first is None:
            return False
        if closer == "}" and (yield from source.skip_space()) == ":":
            return (yield from self._entries(prefix + "{", first, emit, depth))
        mark = yield from source.accept_one("," + closer)
        if mark == ",":
            emit(f"{prefix}[{first}")
            return (yield from self._items(", ", emit, depth, closer))
        if mark:
            emit(prefix + (first if closer == ")" else f"[{first}]"))
        return bool(mark)

    def _entries(self, prefix: str, key: str | None, emit: Emit, depth: int) -> Steps[bool]:
        """Convert what is left of a dict, from the colon after its first key on."""
        source = self._source
        while key is not None and key[0] not in "[{" and (yield from source.accept_one(":")):
            key = key if key[0] == '"' else f'"{key}"'
            is_whole = yield from self.value(f"{prefix}{key}: ", emit, depth)
            if not is_whole or not (yield from self.goes_on("}")):
                return False
            if (yield from source.accept_one("}")):
                emit("}")
                return True
            prefix = ", "
            key = yield from self._held_value(depth)
        return False

    # Strings

    def _string(self, prefix: str, emit: Emit, *, is_raw: bool) -> Steps[bool]:
        """Convert a string, and those that follow it directly: they are one value."""
        source = self._source
        emit(prefix + '"')
        while True:
            mark = source.take(source.position + 1)
            is_triple = (yield from source.accept(_TRIPLE[mark])) is not None
            is_closed = yield from self._body(mark, 3 if is_triple else 1, emit, is_raw)
            if not is_closed:
                return False
            if (yield from source.skip_space()) not in ("'", '"'):
                emit('"')
                return True
            is_raw = False

    def _body(self, mark: str, length: int, emit: Emit, is_raw: bool) -> Steps[bool]:
        """Convert up to the closing marks; returns whether they came."""
        source = self._source
        plain = (_RAW if is_raw else _PLAIN)[mark]

        def show(text: str) -> None:
            emit(quote(self._spell(text)))

        while character := (yield from source.run(plain, show)):
            if character == mark:
                if (yield from self._closes(mark, length, show)):
                    return True
                continue
            escape = yield from read_escape(source, _OPEN_ESCAPE, _ESCAPE)
            if escape is None:
                return False
            show(_unescape(escape))
        return False

    def _closes(self, mark: str, length: int, show: Emit) -> Steps[bool]:
        """Consume quotation marks; returns whether they close the string, shows them if not."""
        source = self._source
        taken: list[str] = []
        while len(taken) < length and (yield from source.next_character()) == mark:
            taken.append(source.take(source.position + 1))
        is_end = len(taken) == length
        if length == 1 and self._repairs_quotes:
            following = yield from source.run(_SPACE, taken.append)
            is_end = not following or following in _AFTER_VALUE
        if not is_end:
            show("".join(taken))
        return is_end


@lru_cache(_MAX_ESCAPES)
def _unescape(escape: str) -> str:
    """The character that an escape stands for; the escape itself where there is none."""
    if escape[1] not in _KNOWN_ESCAPES:
        return escape
    try:
        decoded: str = ast.literal_eval(f'"{escape}"')
    except (SyntaxError, ValueError):
        return escape
    return decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _word(word: str) -> str | None:
    """JSON text of a number or constant; None for any other word."""
    word = _CONSTANTS.get(word, word)
    if word in _CONSTANTS_OF_JSON or _JSON_NUMBER.fullmatch(word):
        return word
    if not _NUMBER_START.match(word):
        return None
    for read in (int, _int_of_any_base, float):
        try:
            return dump(read(word))
        except ValueError:
            continue
    return None


def _int_of_any_base(word: str) -> int:
    return int(word, 0)
