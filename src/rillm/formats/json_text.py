"""JSON as it arrives: passed through character for character, or decoded.

Source: RFC 8259. The scanner follows strings, escapes and brackets; it does not check literals
and numbers, whose text is the model's own.
"""

from __future__ import annotations

import json
import re
from typing import Final

from rillm.formats.source import Emit, Source, Steps

# `<` and the stand-ins of token markers never occur in JSON outside of strings.
_OUTSIDE: Final = re.compile('[^"\\[\\]{}<\ud800-\udfff]+')
_INSIDE: Final = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_PLAIN: Final = re.compile(r'[^"\\]*')
_SCALAR: Final = re.compile(r"[-+.\w]*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_CLOSER: Final = {"{": "}", "[": "]"}
_CONTROLS: Final = {chr(code): json.dumps(chr(code))[1:-1] for code in range(0x20)}
_OPEN_ESCAPE: Final = re.compile(
    r"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?"
)
"""An escape that the next character may continue."""
_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL
)


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
    while (yield from source.run(_PLAIN, emit)) == "\\":
        escape = yield from read_escape(source, _OPEN_ESCAPE, _ESCAPE)
        if escape is None:
            emit(source.take(len(source.text)))
            return False
        emit(_unescape(escape))
    return bool(source.take(source.position + 1))


def _unescape(escape: str) -> str:
    try:
        decoded: str = json.loads(f'"{escape}"')
    except ValueError:
        return escape
    return decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_escape(
    source: Source, open_escape: re.Pattern[str], escape: re.Pattern[str]
) -> Steps[str | None]:
    """Consume one escape, or two that are one character.

    Args:
        source: at the backslash.
        open_escape: what the next character may continue.
        escape: any escape, the longest first.

    Returns:
        The escape; None, with nothing consumed, if the text ends in it.
    """
    while open_escape.fullmatch(source.text, source.position):
        if source.ended:
            return None
        yield
    match = escape.match(source.text, source.position)
    assert match is not None
    return source.take(match.end())


def without_controls(emit: Emit) -> Emit:
    """An `emit` that escapes control characters, for models that write raw newlines in strings.

    Between values they are whitespace and stay.
    """
    in_string = is_escaped = False

    def escaped(text: str) -> None:
        nonlocal in_string, is_escaped
        parts = []
        for character in text:
            if character < " ":
                parts.append(_CONTROLS[character] if in_string else character)
                continue
            parts.append(character)
            if is_escaped:
                is_escaped = False
            elif character == "\\":
                is_escaped = in_string
            elif character == '"':
                in_string = not in_string
        emit("".join(parts))

    return escaped
