"""JSON as it arrives: passed through character for character, or decoded.

Source: RFC 8259. The scanner follows strings, escapes and brackets; it does not check literals
and numbers, whose text is the model's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from rillm.formats.source import Emit, Source, Steps

# `<` and the stand-ins of token markers never occur in JSON outside of strings.
_OUTSIDE: Final = re.compile('[^"\\[\\]{}<\ud800-\udfff]+')
_INSIDE: Final = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_PLAIN: Final = re.compile(r'[^"\\]*')
_SCALAR: Final = re.compile(r"[-+.\w]*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CLOSER: Final = {"{": "}", "[": "]"}
_CONTROLS: Final = {code: f"\\u{code:04x}" for code in range(0x20)} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}
_ESCAPE_LENGTH: Final = 2
_UNICODE_LENGTH: Final = 6


def quote(text: str) -> str:
    """A JSON string of `text`, without its quotation marks; other scripts stay as they are."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def json_value(source: Source, emit: Emit, emit_last: Emit) -> Steps[bool]:
    """Pass one value through, character for character.

    Args:
        source: at the value, or at whitespace before it, which is dropped.
        emit: takes the value's text but for its end.
        emit_last: takes the last character of an object or array, all of another value.

    Returns:
        Whether the value was complete. What cannot go on a value is not consumed.
    """
    first = yield from source.skip_space()
    if first in _CLOSER:
        return (yield from _container(source, emit, emit_last))
    parts: list[str] = []
    if first == '"':
        is_whole = yield from _string(source, parts.append)
        emit_last("".join(parts))
        return is_whole
    yield from source.run(_SCALAR, parts.append)
    emit_last("".join(parts))
    return bool(parts)


def _container(source: Source, emit: Emit, emit_last: Emit) -> Steps[bool]:
    expected: list[str] = []
    in_string = False
    while True:
        text, i = source.text, source.position
        while i < len(text):
            if in_string:
                i = _end(_INSIDE, text, i)
                if i == len(text) or text[i] == "\\":
                    break
                in_string = False
                i += 1
                continue
            i = _end(_OUTSIDE, text, i)
            if i == len(text):
                break
            character = text[i]
            if character == '"':
                in_string = True
            elif character in _CLOSER:
                expected.append(_CLOSER[character])
            elif character != expected[-1]:
                emit(source.take(i))
                return False
            else:
                expected.pop()
                if not expected:
                    emit(source.take(i))
                    emit_last(source.take(i + 1))
                    return True
            i += 1
        emit(source.take(i if not source.ended else len(text)))
        if source.ended:
            return False
        yield


def _end(pattern: re.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    return start if match is None else match.end()


def _string(source: Source, emit: Emit) -> Steps[bool]:
    """Pass a string through, its quotation marks included."""
    emit(source.take(source.position + 1))
    while True:
        end = _end(_INSIDE, source.text, source.position)
        emit(source.take(end))
        if end < len(source.text) and source.text[end] == '"':
            emit(source.take(end + 1))
            return True
        if source.ended:
            emit(source.take(len(source.text)))
            return False
        yield


def json_string(source: Source) -> Steps[str | None]:
    """Read a string and decode it; None when it is cut or malformed."""
    parts: list[str] = []
    if not (yield from _string(source, parts.append)):
        return None
    quoted = "".join(parts)
    try:
        decoded: str = json.loads(quoted, strict=False)
    except ValueError:
        return None
    # An escape that is half a character must not be taken for a stand-in.
    return decoded if _SURROGATE.findall(decoded) == _SURROGATE.findall(quoted) else None


def unquoted(source: Source, emit: Emit) -> Steps[bool]:
    """Pass the decoded text of a string through: JSON written inside a JSON string.

    Returns:
        Whether the string was closed.
    """
    source.take(source.position + 1)
    while True:
        character = yield from source.run(_PLAIN, emit)
        if character == '"':
            source.take(source.position + 1)
            return True
        if not character or not (yield from _escape(source, emit)):
            return False


def _escape(source: Source, emit: Emit) -> Steps[bool]:
    """Decode one escape, or two that are one character."""
    wanted = _ESCAPE_LENGTH
    while True:
        text = source.text[source.position : source.position + 2 * _UNICODE_LENGTH]
        if len(text) >= _ESCAPE_LENGTH and text[1] == "u":
            wanted = _UNICODE_LENGTH
            if len(text) >= _UNICODE_LENGTH and text[2:4].lower() in _HIGH_SURROGATES:
                wanted = 2 * _UNICODE_LENGTH
        if len(text) >= wanted or source.ended:
            break
        yield
    if wanted > _UNICODE_LENGTH and not _LOW_SURROGATE.match(text, _UNICODE_LENGTH):
        wanted = _UNICODE_LENGTH
    escape = source.take(source.position + wanted)
    try:
        decoded: str = json.loads(f'"{escape}"')
    except ValueError:
        emit(escape)
        return len(escape) == wanted
    emit(decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return True


_HIGH_SURROGATES: Final = frozenset({"d8", "d9", "da", "db"})
_LOW_SURROGATE: Final = re.compile(r"\\u[dD][c-fC-F]")


def without_controls(emit: Emit) -> Callable[[str], None]:
    """An `emit` that escapes control characters, for models that write raw newlines in strings.

    Between values they are whitespace: there the escape would be wrong, so spaces are put.
    """
    state = _StringState()

    def escaped(text: str) -> None:
        if text.isprintable():
            state.follow(text)
            emit(text)
            return
        parts: list[str] = []
        for piece in re.split("([\x00-\x1f]+)", text):
            if piece and piece[0] < " ":
                piece = piece.translate(_CONTROLS) if state.in_string else piece
            else:
                state.follow(piece)
            parts.append(piece)
        emit("".join(parts))

    return escaped


class _StringState:
    """Whether the text so far ends inside a string."""

    def __init__(self) -> None:
        self.in_string = False
        self._is_escaped = False

    def follow(self, text: str) -> None:
        for character in text:
            if self._is_escaped:
                self._is_escaped = False
            elif character == "\\":
                self._is_escaped = self.in_string
            elif character == '"':
                self.in_string = not self.in_string
