"""Stop strings across pieces of text.

A matcher owns the text that may still become a stop string. It withholds that and nothing more:
the longest end of the text that is a proper prefix of some stop string.

Source: A. Aho, M. Corasick, "Efficient string matching", CACM 18(6), 1975: one automaton for all
strings, time linear in the text whatever the strings are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class StopMatcher:
    """Finds the stop string that completes first in the text of one choice.

    Text that must not be searched (below `min_tokens`) is simply not pushed; no match can then
    begin in it.
    """

    def __init__(self, stop: Sequence[str], *, include_stop: bool = False) -> None:
        """Build the automaton.

        Args:
            stop: stop strings, none empty. Where several end at the same character, the one
                listed first wins.
            include_stop: keep the stop string at the end of the text; then nothing is withheld.
        """
        self._include_stop = include_stop
        self._children: list[dict[str, int]] = [{}]
        self._paths: list[tuple[str, int]] = [("", 0)]
        self._matches: list[int | None] = [None]
        self._stop = tuple(stop)
        for i, string in enumerate(self._stop):
            self._add(i, string)
        self._fallbacks = self._link()
        self._first_characters = frozenset(self._children[0])
        self._state = 0
        self._matched: str | None = None

    def push(self, text: str) -> tuple[str, str | None]:
        """Add text.

        Args:
            text: the next piece.

        Returns:
            The text that is now certain to be output, and the stop string that ended it or None.
            After a match all further text is dropped.
        """
        if self._matched is not None:
            return "", self._matched
        if not self._state and self._first_characters.isdisjoint(text):
            return text, None
        held, num_held = self._paths[self._state]
        end = self._advance(text)
        if self._matched is not None:
            num_kept = num_held + end - (0 if self._include_stop else len(self._matched))
        else:
            num_kept = num_held + len(text) - self._paths[self._state][1]
        if self._include_stop:
            return text[:end], self._matched
        if num_kept <= num_held:
            return held[:num_kept], self._matched
        return held[:num_held] + text[: num_kept - num_held], self._matched

    def finish(self) -> str:
        """End the text.

        Returns:
            The withheld text, which turned out not to be a stop string.
        """
        held, num_held = self._paths[self._state]
        self._state = 0
        if self._include_stop or self._matched is not None:
            return ""
        return held[:num_held]

    def _advance(self, text: str) -> int:
        """Follow `text` up to the first match; return how many characters were taken."""
        children, fallbacks, matches = self._children, self._fallbacks, self._matches
        state = self._state
        for i, character in enumerate(text):
            while state and character not in children[state]:
                state = fallbacks[state]
            state = children[state].get(character, 0)
            match = matches[state]
            if match is not None:
                self._matched = self._stop[match]
                return i + 1
        self._state = state
        return len(text)

    def _add(self, index: int, string: str) -> None:
        state = 0
        for depth, character in enumerate(string, start=1):
            following = self._children[state].get(character)
            if following is None:
                following = len(self._children)
                self._children[state][character] = following
                self._children.append({})
                # A state's path is kept as a prefix of one stop string, not as a string of its
                # own: the sum of those would grow with the square of the length.
                self._paths.append((string, depth))
                self._matches.append(None)
            state = following
        if self._matches[state] is None:
            self._matches[state] = index

    def _link(self) -> list[int]:
        """Set each state's fallback: the longest proper suffix of its path that is a state."""
        fallbacks = [0] * len(self._children)
        queue = deque(self._children[0].values())
        while queue:
            state = queue.popleft()
            for character, child in self._children[state].items():
                fallback = fallbacks[state]
                while fallback and character not in self._children[fallback]:
                    fallback = fallbacks[fallback]
                fallbacks[child] = self._children[fallback].get(character, 0)
                shorter, own = self._matches[fallbacks[child]], self._matches[child]
                if shorter is not None and (own is None or shorter < own):
                    self._matches[child] = shorter
                queue.append(child)
        return fallbacks
