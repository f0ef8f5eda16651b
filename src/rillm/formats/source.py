"""The text of one choice as it arrives, consumed from left to right.

Everything that parses is a generator over one `Source`: it consumes what is certain and yields
where it needs more. Since a generator sees characters only through the primitives below, and
each of them waits where the next character could change its answer, the result cannot depend on
how the text was cut.

A primitive waits for nothing but characters that can matter: the text before the start of a
possible marker is handed on at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A parser: yields when it needs more text, returns its result."""

Emit = Callable[[str], None]

_NOTHING: Final = r"(?!)"
_NOT_SPACE: Final = re.compile(r"[^ \t\r\n]")


class Markers:
    """A set of literals that end a stretch of text: first match wins, the longest on a tie."""

    __slots__ = ("_extendable", "_match", "_match_whole", "_search", "_search_whole", "literals")

    def __init__(self, literals: Iterable[str]) -> None:
        """Compile the set; empty literals are ignored."""
        self.literals = frozenset(filter(None, literals))
        self._extendable = frozenset(
            short
            for short in self.literals
            if any(long != short and long.startswith(short) for long in self.literals)
        )
        longest_first = sorted(self.literals, key=len, reverse=True)
        pattern = re.compile("|".join(map(_with_beginnings, longest_first)) or _NOTHING)
        self._search, self._match = pattern.search, pattern.match
        pattern = re.compile("|".join(map(re.escape, longest_first)) or _NOTHING)
        self._search_whole, self._match_whole = pattern.search, pattern.match

    def find(self, text: str, start: int, ended: bool) -> tuple[int, str | None]:
        """Look for the first literal.

        Args:
            text: where to look.
            start: position of the first character that counts.
            ended: whether nothing follows `text`.

        Returns:
            The position up to which the text holds no marker, and the literal that begins there;
            None where it holds none, or none that is certain yet.
        """
        match = self._search_whole(text, start) if ended else self._search(text, start)
        if match is None:
            return len(text), None
        return match.start(), self._certain(match, ended)

    def at(self, text: str, start: int, ended: bool) -> tuple[bool, str | None]:
        """Look whether the text goes on with a literal.

        Returns:
            Whether it does or still may, and the literal once it is certain.
        """
        match = self._match_whole(text, start) if ended else self._match(text, start)
        if match is None:
            return start == len(text) and not ended and bool(self.literals), None
        return True, self._certain(match, ended)

    def _certain(self, match: re.Match[str], ended: bool) -> str | None:
        """The literal that was found; None where more text decides which one it is, if any."""
        literal = match[0]
        if literal not in self.literals:
            return None
        if literal in self._extendable and match.end() == len(match.string) and not ended:
            return None
        return literal


def _with_beginnings(literal: str) -> str:
    """A pattern of a literal and, at the end of the text, of its beginnings."""
    pattern = ""
    for character in reversed(literal[1:]):
        pattern = rf"(?:\Z|{re.escape(character)}{pattern})"
    return re.escape(literal[0]) + pattern


class Source:
    """What has arrived and not been consumed, and whether more can come."""

    __slots__ = ("_raw", "ended", "is_cut", "position", "text")

    def __init__(self) -> None:
        self.text = ""
        self.position = 0
        self.ended = False
        self.is_cut = False
        """Whether the end was forced on the model, so that it had more to say."""
        self._raw: list[str] | None = None

    def push(self, text: str) -> None:
        """Add text; what was consumed is forgotten."""
        if self.position < len(self.text):
            text = self.text[self.position :] + text
        self.text = text
        self.position = 0

    def keep_raw(self, consumed: str = "") -> None:
        """Start to remember what is consumed, from `consumed` on, in case it means nothing."""
        self._raw = [consumed]

    def drop_raw(self) -> str:
        """Stop remembering; returns all that was consumed since `keep_raw`."""
        raw, self._raw = self._raw, None
        return "".join(raw or ())

    def take(self, end: int) -> str:
        """Consume up to position `end`."""
        taken = self.text[self.position : end]
        self.position = end
        if self._raw is not None and taken:
            self._raw.append(taken)
        return taken

    def until(self, markers: Markers, emit: Emit) -> Steps[str | None]:
        """Hand text on until a marker, which is consumed.

        Returns:
            The marker, or None at the end of the text.
        """
        while True:
            end, literal = markers.find(self.text, self.position, self.ended)
            if end > self.position:
                emit(self.take(end))
            if literal is not None:
                self.take(self.position + len(literal))
                return literal
            if self.ended:
                return None
            yield

    def give_back(self, literal: str) -> None:
        """Undo the consumption of the literal that was consumed last."""
        self.position -= len(literal)
        if self._raw is not None:
            self._raw.pop()

    def collect(self, markers: Markers) -> Steps[tuple[str, str | None]]:
        """As `until`, but returns the text before the marker as well."""
        parts: list[str] = []
        marker = yield from self.until(markers, parts.append)
        return "".join(parts), marker

    def accept(self, markers: Markers) -> Steps[str | None]:
        """Consume a marker if the text goes on with one."""
        while True:
            is_possible, literal = markers.at(self.text, self.position, self.ended)
            if literal is not None:
                self.take(self.position + len(literal))
                return literal
            if not is_possible:
                return None
            yield

    def accept_after_space(self, markers: Markers) -> Steps[str | None]:
        """Consume JSON whitespace, and a marker if the text goes on with one."""
        yield from self.skip_space()
        return (yield from self.accept(markers))

    def skip_space(self) -> Steps[str]:
        """Consume JSON whitespace; returns the next character, empty at the end of the text."""
        while True:
            match = _NOT_SPACE.search(self.text, self.position)
            if match is not None:
                self.take(match.start())
                return match[0]
            self.take(len(self.text))
            if self.ended:
                return ""
            yield

    def accept_one(self, characters: str) -> Steps[str]:
        """Consume whitespace, then the next character if it is one of these.

        Returns:
            The character, empty if it is another one and was left.
        """
        character = yield from self.skip_space()
        return self.take(self.position + 1) if character and character in characters else ""

    def run(self, pattern: re.Pattern[str], emit: Emit) -> Steps[str]:
        """Hand on the characters that `pattern`, one character class repeated, matches.

        Returns:
            The character that ended the run, not consumed; empty at the end of the text.
        """
        while True:
            match = pattern.match(self.text, self.position)
            if match is not None and match.end() > self.position:
                emit(self.take(match.end()))
            if self.position < len(self.text):
                return self.text[self.position]
            if self.ended:
                return ""
            yield

    def word(self, pattern: re.Pattern[str]) -> Steps[tuple[str, str]]:
        """As `run`, but returns the characters of the run as well, before what ended it."""
        parts: list[str] = []
        following = yield from self.run(pattern, parts.append)
        return "".join(parts), following

    def next_character(self) -> Steps[str]:
        """Return the next character without consuming it; empty at the end of the text."""
        while self.position >= len(self.text):
            if self.ended:
                return ""
            yield
        return self.text[self.position]
