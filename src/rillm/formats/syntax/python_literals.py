"""Python literals, converted to JSON as they arrive.

Source: The Python Language Reference, section 2.4 "Literals" and 6.2 "Atoms". Other than there,
strings may hold line breaks, numbers leading zeros, and `true`, `false` and `null` are known.
"""

from __future__ import annotations

import ast
import math
import re
from typing import Final

from rillm.formats.json_text import quote
from rillm.formats.schema import dump
from rillm.formats.source import Emit, Source, Steps
from rillm.formats.syntax.base import Context

WORD: Final = re.compile(r"[\w.+-]*")
"""Characters of numbers, constants and keys."""
_MAX_DEPTH: Final = 100
_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_START: Final = re.compile(r"[+-]?\.?[0-9]")
_CONSTANTS: Final = {
    "True": "true",
    "true": "true",
    "False": "false",
    "false": "false",
    "None": "null",
    "null": "null",
}
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
_SIMPLE_ESCAPES: Final = {
    "\\\\": "\\",
    "\\'": "'",
    '\\"': '"',
    "\\a": "\a",
    "\\b": "\b",
    "\\f": "\f",
    "\\n": "\n",
    "\\r": "\r",
    "\\t": "\t",
    "\\v": "\v",
    "\\\n": "",
    "\\\r": "",
    "\\\r\n": "",
}
_CODED_ESCAPES: Final = frozenset("xuUN01234567")
_SPACE: Final = re.compile(r"[ \t\r\n]+")
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
        character = yield from self._source.skip_space()
        if character in ("'", '"'):
            return (yield from self._string(prefix, emit, is_raw=False))
        if character and character in "[({":
            if depth >= _MAX_DEPTH:
                return False
            self._source.take(self._source.position + 1)
            if character == "[":
                return (yield from self._items(prefix + "[", emit, depth, "]"))
            return (yield from self._group(prefix, emit, depth, ")" if character == "(" else "}"))
        parts: list[str] = []
        following = yield from self._source.run(WORD, parts.append)
        word = "".join(parts)
        if following in ("'", '"') and _STRING_PREFIX.fullmatch(word):
            return (yield from self._string(prefix, emit, is_raw="r" in word.lower()))
        json_text = _word(word) if following else None
        if json_text is not None:
            emit(prefix + json_text)
        return json_text is not None

    def _items(self, prefix: str, emit: Emit, depth: int, closer: str) -> Steps[bool]:
        """Convert what is left of a list, a tuple or a set."""
        source = self._source
        while True:
            if (yield from source.skip_space()) == closer:
                source.take(source.position + 1)
                emit("]" if prefix == ", " else prefix + "]")
                return True
            if not (yield from self.value(prefix, emit, depth + 1)):
                return False
            prefix = ", "
            character = yield from source.skip_space()
            if character == ",":
                source.take(source.position + 1)
            elif character != closer:
                return False

    def _group(self, prefix: str, emit: Emit, depth: int, closer: str) -> Steps[bool]:
        """Convert what its first element tells: a dict or a set, a tuple or a value alone."""
        source = self._source
        if (yield from source.skip_space()) == closer:
            source.take(source.position + 1)
            emit(prefix + ("[]" if closer == ")" else "{}"))
            return True
        parts: list[str] = []
        if not (yield from self.value("", parts.append, depth + 1)):
            return False
        first = "".join(parts)
        character = yield from source.skip_space()
        if character == ":" and closer == "}":
            return (yield from self._entries(prefix + "{", first, emit, depth))
        if character not in (",", closer) or not character:
            return False
        source.take(source.position + 1)
        if character == ",":
            emit(f"{prefix}[{first}")
            return (yield from self._items(", ", emit, depth, closer))
        emit(prefix + (first if closer == ")" else f"[{first}]"))
        return True

    def _entries(self, prefix: str, key: str, emit: Emit, depth: int) -> Steps[bool]:
        """Convert what is left of a dict, from the colon after its first key on."""
        source = self._source
        while True:
            if key[0] in "[{" or (yield from source.skip_space()) != ":":
                return False
            source.take(source.position + 1)
            key = key if key[0] == '"' else f'"{key}"'
            if not (yield from self.value(f"{prefix}{key}: ", emit, depth + 1)):
                return False
            prefix = ", "
            character = yield from source.skip_space()
            if character == ",":
                source.take(source.position + 1)
                character = yield from source.skip_space()
            elif character != "}":
                return False
            if character == "}":
                source.take(source.position + 1)
                emit("}")
                return True
            parts: list[str] = []
            if not (yield from self.value("", parts.append, depth + 1)):
                return False
            key = "".join(parts)

    # Strings

    def _string(self, prefix: str, emit: Emit, *, is_raw: bool) -> Steps[bool]:
        """Convert a string, and those that follow it directly: they are one value."""
        source = self._source
        emit(prefix + '"')
        while True:
            mark = source.take(source.position + 1)
            if (yield from self._is_triple(mark)):
                is_closed = yield from self._body(mark, 3, emit, is_raw)
            else:
                is_closed = yield from self._body(mark, 1, emit, is_raw)
            if not is_closed:
                return False
            if (yield from source.skip_space()) not in ("'", '"'):
                emit('"')
                return True
            is_raw = False

    def _is_triple(self, mark: str) -> Steps[bool]:
        """Whether two more marks follow, which are consumed; an empty string is left."""
        source = self._source
        while True:
            text = source.text[source.position : source.position + 2]
            if text == mark * 2:
                source.take(source.position + 2)
                return True
            if source.ended or text not in ("", mark):
                return False
            yield

    def _body(self, mark: str, length: int, emit: Emit, is_raw: bool) -> Steps[bool]:
        """Convert up to the closing marks; returns whether they came."""
        source = self._source
        plain = (_RAW if is_raw else _PLAIN)[mark]

        def show(text: str) -> None:
            emit(quote(self._spell(text)))

        while True:
            character = yield from source.run(plain, show)
            if not character:
                return False
            if character == "\\":
                decoded = yield from self._escape()
                if decoded is None:
                    return False
                show(decoded)
                continue
            if (yield from self._closes(mark, length, show)):
                return True

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

    def _escape(self) -> Steps[str | None]:
        """Decode one escape, or two that are one character; None if the text ends in it."""
        source = self._source
        while _OPEN_ESCAPE.fullmatch(source.text, source.position):
            if source.ended:
                return None
            yield
        match = _ESCAPE.match(source.text, source.position)
        assert match is not None
        return _unescape(source.take(match.end()))


def _unescape(escape: str) -> str:
    simple = _SIMPLE_ESCAPES.get(escape)
    if simple is not None:
        return simple
    if escape[1] not in _CODED_ESCAPES:
        return escape
    try:
        decoded: str = ast.literal_eval(f'"{escape}"')
    except (SyntaxError, ValueError):
        return escape
    return decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _word(word: str) -> str | None:
    """JSON text of a number or constant; None for any other word."""
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if _JSON_NUMBER.fullmatch(word):
        return word
    if not _NUMBER_START.match(word):
        return None
    for read in (int, _int_of_any_base, _finite):
        try:
            return dump(read(word))
        except ValueError:
            continue
    return None


def _int_of_any_base(word: str) -> int:
    return int(word, 0)


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word} is not JSON")
    return number
