"""A store in an SQLite file: what is kept outlives the server."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from rillm.errors import ConfigError
from rillm.server.responses.store import StoreBounds

VERSION: Final = 1
"""Of the tables; a file with another is refused."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS responses (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    written REAL NOT NULL,
    size INTEGER NOT NULL,
    record BLOB NOT NULL
);
"""

_DELETE_OLDEST: Final = (
    "DELETE FROM responses WHERE number = (SELECT min(number) FROM responses) RETURNING size"
)

T = TypeVar("T")


class SqliteStore:
    """Keeps records in a file. Its one thread does what waits for the disk.

    It counts what is in the file by itself: no other store may write there.
    """

    def __init__(
        self, path: Path, bounds: StoreBounds, clock: Callable[[], float] = time.time
    ) -> None:
        """Open the file, or make it.

        Args:
            path: of the file; its directory must exist.
            bounds: of what is kept.
            clock: seconds since the epoch.

        Raises:
            ConfigError: the file cannot be used.
        """
        self._path = path
        self._bounds = bounds
        self._clock = clock
        self._connection = self._open()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="response-store")
        query = "SELECT count(*), coalesce(sum(size), 0) FROM responses"
        self._count, self._num_bytes = self._connection.execute(query).fetchone()

    async def put(self, id: str, record: bytes) -> None:
        """Keep a record."""
        await self._run(lambda: self._put(id, record))

    async def get(self, id: str) -> bytes | None:
        """The record, if it is kept."""
        return await self._run(lambda: self._get(id))

    async def delete(self, id: str) -> bool:
        """Forget a record."""
        return await self._run(lambda: self._delete(id))

    def close(self) -> None:
        """Write all that was asked for, and let go of the file. Idempotent."""
        self._thread.shutdown()
        self._connection.close()

    def __del__(self) -> None:
        # One that could not be opened has nothing to close. Whatever was asked for holds the store,
        # so all has been written, and it may be the store's own thread that gives it up last.
        if hasattr(self, "_thread"):
            self._thread.shutdown(wait=False)
            self._connection.close()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> sqlite3.Connection:
        shown = repr(str(self._path))
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise ConfigError(f"response_store {shown} cannot be used: {error}") from error
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise ConfigError(
                    f"response_store {shown} has tables of version {version}, must be {VERSION}"
                )
            connection.executescript(_TABLES)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.Error as error:
            connection.close()
            raise ConfigError(f"response_store {shown} cannot be used: {error}") from error
        except ConfigError:
            connection.close()
            raise
        return connection

    def _put(self, id: str, record: bytes) -> None:
        now, size = self._clock(), len(record)
        execute = self._connection.execute
        count, num_bytes = self._count, self._num_bytes
        with self._connection:
            execute("BEGIN")
            old = execute("DELETE FROM responses WHERE id = ? RETURNING size", (id,)).fetchall()
            if size <= self._bounds.max_bytes:
                execute(
                    "INSERT INTO responses (id, written, size, record) VALUES (?, ?, ?, ?)",
                    (id, now, size, record),
                )
                count, num_bytes = count + 1, num_bytes + size
            count -= len(old)
            num_bytes -= sum(each for (each,) in old)
            while count and self._is_beyond(count, num_bytes, now):
                ((each,),) = execute(_DELETE_OLDEST).fetchall()
                count, num_bytes = count - 1, num_bytes - each
        self._count, self._num_bytes = count, num_bytes

    def _is_beyond(self, count: int, num_bytes: int, now: float) -> bool:
        """Whether the oldest record has to go."""
        if count > self._bounds.max_count or num_bytes > self._bounds.max_bytes:
            return True
        query = "SELECT written FROM responses ORDER BY number LIMIT 1"
        ((written,),) = self._connection.execute(query).fetchall()
        return bool(written < now - self._bounds.max_age)

    def _get(self, id: str) -> bytes | None:
        oldest = self._clock() - self._bounds.max_age
        query = "SELECT record FROM responses WHERE id = ? AND written >= ?"
        rows = self._connection.execute(query, (id, oldest)).fetchall()
        return rows[0][0] if rows else None

    def _delete(self, id: str) -> bool:
        query = "DELETE FROM responses WHERE id = ? RETURNING size, written"
        rows = self._connection.execute(query, (id,)).fetchall()
        for size, _ in rows:
            self._count, self._num_bytes = self._count - 1, self._num_bytes - size
        return any(written >= self._clock() - self._bounds.max_age for _, written in rows)
