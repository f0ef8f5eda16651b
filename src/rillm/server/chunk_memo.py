"""What tokens became, so that it need not be made again.

In a steady state (`rillm.streams.EventStream.steady_state`) a token that comes alone becomes the
same text, the same event and so the same bytes each time. Most tokens of most streams come so.
Which bytes, the usual way has found out when it met the token first: nothing here knows how to
detokenize, parse or encode.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

from rillm.formats.events import ContentDelta, ReasoningDelta
from rillm.streams import ChoiceDelta

_MAX_TABLES: Final = 32
_MAX_TOKENS: Final = 1 << 16
"""Of one table; at about 200 bytes each."""


class PlainForm(NamedTuple):
    """How chunks look that tell a piece of text and nothing else."""

    head: bytes
    """What every chunk of the stream begins with."""
    rest: Hashable
    """What the rest depends on, besides the text."""


class ChunkMemo:
    """Tables of one model: token id to the end of its chunk."""

    def __init__(self) -> None:
        self._tables: dict[Hashable, dict[int, bytes]] = {}

    def table(self, state: Hashable, form: Hashable) -> dict[int, bytes]:
        """The table of a steady state and a form's `rest`; the oldest makes way for a new one."""
        key = (state, form)
        table = self._tables.get(key)
        if table is None:
            if len(self._tables) >= _MAX_TABLES:
                del self._tables[next(iter(self._tables))]
            table = self._tables[key] = {}
        return table


def remember(
    table: dict[int, bytes], deltas: Sequence[ChoiceDelta], head: bytes, chunk: bytes
) -> None:
    """Note what a token became, if that was text and nothing else.

    Args:
        table: of the state before the token and after it.
        deltas: what the stream told.
        head: with which every chunk of the stream begins.
        chunk: the deltas, encoded.
    """
    if len(deltas) != 1 or len(table) >= _MAX_TOKENS or not chunk.startswith(head):
        return
    token_ids, events = deltas[0].token_ids, deltas[0].events
    if len(token_ids) == len(events) == 1 and type(events[0]) in (ContentDelta, ReasoningDelta):
        table[token_ids[0]] = chunk[len(head) :]
