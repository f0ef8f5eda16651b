"""What is kept of a response, and how it is found again."""

from __future__ import annotations

import logging
import sqlite3
from typing import Any, Final

import msgspec

from rillm.errors import InvalidRequestError, ItemNotFoundError
from rillm.server.responses.answer import SERVER_ERROR, UNFINISHED
from rillm.server.responses.background import BackgroundRuns
from rillm.server.responses.items import Item, is_response_id, response_of
from rillm.server.responses.store import ResponseStore

_INTERRUPTED: Final = {
    "code": SERVER_ERROR,
    "message": "The server was stopped while it made this response.",
}

logger = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """A response with the conversation it answers."""

    response: dict[str, Any]
    input: list[Item]
    """All items before the output, those of previous responses first; no instructions."""

    @property
    def items(self) -> list[Item]:
        """The conversation, the answer included."""
        return [*self.input, *self.response["output"]]


class KeptResponses:
    """The responses that are kept, or being made in the background."""

    def __init__(self, store: ResponseStore, runs: BackgroundRuns) -> None:
        """Join them.

        Args:
            store: of those that have ended, and the first state of those in the background.
            runs: those in the background.
        """
        self._store = store
        self._runs = runs
        self._decoder = msgspec.json.Decoder(Kept)

    async def keep(self, kept: Kept) -> None:
        """Put a response into the store; a store that fails takes nothing else down."""
        try:
            await self._store.put(kept.response["id"], msgspec.json.encode(kept))
        except sqlite3.Error:
            logger.exception("response %s could not be kept", kept.response["id"])

    async def find(self, id: str, param: str = "response_id") -> Kept:
        """A response by its id.

        Args:
            id: perhaps of none.
            param: where the id was sent.

        Raises:
            ItemNotFoundError: it is not kept.
        """
        kept, _ = await self._find(id, param)
        return kept

    async def history(self, id: str | None) -> tuple[list[Item], int]:
        """The items that a request goes on from, and how many bytes they have.

        Args:
            id: the previous response's; None: there is none.

        Raises:
            ItemNotFoundError: it is not kept.
            InvalidRequestError: it has not ended yet.
        """
        if id is None:
            return [], 0
        kept, num_bytes = await self._find(id, "previous_response_id")
        if kept.response["status"] in UNFINISHED:
            raise InvalidRequestError(
                f"previous_response_id is {id!r}: that response has not ended yet",
                param="previous_response_id",
            )
        return kept.items, num_bytes

    async def referenced(self, ids: list[str], history: list[Item]) -> dict[str, Item]:
        """The items that are kept of those referred to, by their ids.

        Args:
            ids: of items.
            history: looked at first.
        """
        found = {item["id"]: item for item in history if "id" in item}
        for response_id in {response_of(id) for id in ids if id not in found}:
            record = None if response_id is None else await self._store.get(response_id)
            if record is not None:
                items = self._decoder.decode(record).items
                found |= {item["id"]: item for item in items if "id" in item}
        return found

    async def delete(self, id: str) -> None:
        """Forget a response; one that is still being made ends.

        Raises:
            ItemNotFoundError: it is not kept.
        """
        await self.find(id)
        await self._runs.remove(id)
        await self._store.delete(id)

    async def _find(self, id: str, param: str) -> tuple[Kept, int]:
        record = await self._store.get(id) if is_response_id(id) else None
        if record is None:
            raise ItemNotFoundError(
                f"{param} is {id!r}: no such response is kept; it was never made, not stored, "
                "deleted, or has become too old",
                param=param,
            )
        kept = self._decoder.decode(record)
        if (run := self._runs.live(id)) is not None:
            kept = Kept(run.response, kept.input)
        elif kept.response["status"] in UNFINISHED:
            failed = {"status": "failed", "error": _INTERRUPTED}
            kept = Kept(kept.response | failed, kept.input)
        return kept, len(record)
