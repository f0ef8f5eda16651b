"""Token ids to text, piece by piece, never half a character.

A detokenizer owns what is undecided between two tokens of one choice. It emits text as soon as no
later token can change it; the concatenated pieces are the text of all tokens, however they were
cut into calls.

Malformed UTF-8 becomes U+FFFD, one for each maximal ill-formed part, as in
`bytes.decode("utf-8", "replace")` and as the Unicode Standard recommends (section 3.9, "U+FFFD
Substitution of Maximal Subparts").
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from rillm.text.pieces import PieceTable

_REPLACEMENT: Final = "\ufffd"
_LONGEST_INCOMPLETE_BYTES: Final = 3
_MAX_HELD_TOKENS: Final = 8
"""A character is at most four byte tokens; a tail that stays malformed for longer is text."""
_NUM_CONTEXT_TOKENS: Final = 8

_new_utf8_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer(Protocol):
    """The text of one choice, incrementally."""

    @property
    def is_steady(self) -> bool:
        """Whether the text of the next token depends on nothing before it."""
        ...

    def push(self, token_ids: Sequence[int]) -> str:
        """Add tokens.

        Args:
            token_ids: the next token ids; ids outside the vocabulary add nothing.

        Returns:
            The text that has become certain, possibly none.
        """
        ...

    def finish(self) -> str:
        """End the text.

        Returns:
            What was held back, an incomplete character as U+FFFD.
        """
        ...


class ByteDetokenizer:
    """For decoders that concatenate bytes: a table and a UTF-8 state."""

    __slots__ = ("_decoder", "_holds_bytes", "_pieces", "_strips_space")

    def __init__(
        self,
        pieces: PieceTable,
        *,
        strips_first_space: bool,
        prompt_token_ids: Sequence[int] = (),
    ) -> None:
        """Start after a prompt.

        Args:
            pieces: what each token id adds.
            strips_first_space: whether a text loses one space at its start.
            prompt_token_ids: tokens before the first one pushed. The text goes on where theirs
                ends, in the middle of a character if need be.
        """
        self._pieces = pieces
        self._decoder = _new_utf8_decoder("replace")
        self._strips_space = strips_first_space
        self._holds_bytes = False
        self._skip_prompt(prompt_token_ids)

    @property
    def is_steady(self) -> bool:
        """See `Detokenizer`."""
        return not self._holds_bytes and not self._strips_space

    def push(self, token_ids: Sequence[int]) -> str:
        """Add tokens; see `Detokenizer`."""
        pieces = self._pieces
        text = ""
        for token_id in token_ids:
            piece = pieces[token_id]
            if type(piece) is str and not self._holds_bytes:
                text += piece
            else:
                text += self._decode(piece)
        if self._strips_space and text:
            self._strips_space = False
            return text.removeprefix(" ")
        return text

    def finish(self) -> str:
        """End the text; see `Detokenizer`."""
        self._holds_bytes = False
        return self._decoder.decode(b"", final=True)

    def _decode(self, piece: str | bytes) -> str:
        text = self._decoder.decode(piece.encode() if isinstance(piece, str) else piece)
        self._holds_bytes = self._decoder.getstate()[0] != b""
        return text

    def _skip_prompt(self, token_ids: Sequence[int]) -> None:
        tail = b""
        for token_id in reversed(token_ids):
            piece = self._pieces[token_id]
            tail = (piece.encode() if isinstance(piece, str) else piece) + tail
            if len(tail) >= _LONGEST_INCOMPLETE_BYTES:
                break
        if tail:
            self._strips_space = False
            self._decode(tail)


class WindowDetokenizer:
    """For any other decoder: decodes the last few tokens again and emits what is new.

    Exact for decoders in which a token's text depends on its neighbours and on whether it is the
    first, such as WordPiece and Metaspace: the window always starts with a token that was emitted.
    """

    __slots__ = ("_decode", "_emitted_text", "_is_visible", "_num_emitted", "_window")

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        is_visible: Callable[[int], bool],
        prompt_token_ids: Sequence[int] = (),
    ) -> None:
        """Start after a prompt.

        Args:
            decode: the tokenizer's own function for a whole list of ids.
            is_visible: whether an id is in the vocabulary and not hidden.
            prompt_token_ids: tokens before the first one pushed; a character they cut is not
                completed, as their bytes are not known here.
        """
        self._decode = decode
        self._is_visible = is_visible
        context = itertools.islice(
            filter(is_visible, reversed(prompt_token_ids)), _NUM_CONTEXT_TOKENS
        )
        self._window = list(context)[::-1]
        self._num_emitted = len(self._window)
        self._emitted_text = decode(self._window)

    @property
    def is_steady(self) -> bool:
        """See `Detokenizer`; the window is what the text depends on."""
        return False

    def push(self, token_ids: Sequence[int]) -> str:
        """Add tokens; see `Detokenizer`."""
        return "".join([self._push_one(token_id) for token_id in token_ids])

    def finish(self) -> str:
        """End the text; see `Detokenizer`."""
        return self._emit(self._decode(self._window))

    def _push_one(self, token_id: int) -> str:
        if not self._is_visible(token_id):
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        num_held = len(self._window) - self._num_emitted
        if text.endswith(_REPLACEMENT) and num_held < _MAX_HELD_TOKENS:
            return ""
        return self._emit(text)

    def _emit(self, text: str) -> str:
        new_text = text[len(self._emitted_text) :]
        if new_text or len(self._window) - self._num_emitted >= _MAX_HELD_TOKENS:
            self._window = self._window[self._num_emitted :]
            self._num_emitted = len(self._window)
            self._emitted_text = self._decode(self._window)
        return new_text


class StandInDetokenizer:
    """Puts other text for some tokens, around a detokenizer of all the others."""

    __slots__ = ("_inner", "_stand_ins")

    def __init__(self, inner: Detokenizer, stand_ins: Mapping[int, str]) -> None:
        """Start a text.

        Args:
            inner: of the same choice.
            stand_ins: token ids to their text.
        """
        self._inner = inner
        self._stand_ins = stand_ins

    @property
    def is_steady(self) -> bool:
        """See `Detokenizer`."""
        return self._inner.is_steady

    def push(self, token_ids: Sequence[int]) -> str:
        """Add tokens; see `Detokenizer`."""
        stand_ins = self._stand_ins
        if stand_ins.keys().isdisjoint(token_ids):
            return self._inner.push(token_ids)
        parts: list[str] = []
        start = 0
        for i, token_id in enumerate(token_ids):
            if token_id in stand_ins:
                # Bytes that wait for others will not be completed across such a token.
                parts += [self._inner.push(token_ids[start:i]), self._inner.finish()]
                parts.append(stand_ins[token_id])
                start = i + 1
        parts.append(self._inner.push(token_ids[start:]))
        return "".join(parts)

    def finish(self) -> str:
        """End the text; see `Detokenizer`."""
        return self._inner.finish()
