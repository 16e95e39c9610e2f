"""One SQLite file, opened: a connection that writes and one that reads, each on a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiosqlite
import anyio

from .clock import Clock, SystemClock
from .driver import sqlite3
from .errors import BiltError, StoreUnavailable
from .group_commit import BUSY_SECONDS
from .hop import Hop
from .location import StoreLocation
from .migrate import STORE, migrate, refuse_foreign
from .trouble import TROUBLE, unavailable
from .turn import WriteTurn

T = TypeVar("T")

OLDEST_SQLITE = (3, 37, 0)
"""STRICT tables; RETURNING is older."""
CLOSED = "The store is closed."


class SqliteFile:
    """An open file. Use it as an async context manager: what is not closed keeps the interpreter from exiting."""

    def __init__(
        self,
        location: StoreLocation,
        path: Path,
        turn: Path,
        clock: Clock | None,
        kind: str = STORE,
    ) -> None:
        """`path` is the database, `turn` is held by whoever writes into it, `kind` names its migrations."""
        self.location = location
        self._path = path
        self._kind = kind
        self._clock: Clock = clock or SystemClock()
        self._turn = WriteTurn(turn)
        self._hop = Hop()
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None

    async def __aenter__(self) -> Self:
        """Open the file, make or migrate its schema. Raises `StoreUnavailable`."""
        self.location.prepare()
        try:
            self._hop.open()
            self._writer = await on_a_thread(self._connect_writer)
            self._reader = await on_a_thread(self._connect_reader)
            await self._open_more()
        except TROUBLE as error:
            await self._close()
            raise self._unavailable(error) from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection, also when the block was cancelled."""
        with anyio.CancelScope(shield=True):
            await self._close()

    async def _open_more(self) -> None:
        """What else is to be opened."""

    def _close_more(self, stack: AsyncExitStack) -> None:
        """What of that is to be closed, before the connections."""

    async def _close(self) -> None:
        # Each of them, whatever happens to another: a shield does not stop a task's own cancel().
        async with AsyncExitStack() as stack:
            stack.callback(self._hop.close)
            stack.callback(self._turn.close)
            if self._writer is not None:
                # The last one, because the last connection to a database checkpoints it, which takes a turn.
                stack.push_async_callback(self._writer.close)
                stack.push_async_callback(self._finish, self._writer, self._close_writer)
            if self._reader is not None:
                stack.push_async_callback(self._reader.close)
            self._close_more(stack)
            self._reader = self._writer = None

    async def _finish(
        self, connection: aiosqlite.Connection, close: Callable[[sqlite3.Connection], None]
    ) -> None:
        with contextlib.suppress(BiltError):  # then it is closed without its turn
            await self._on(connection, close)

    def _close_writer(self, connection: sqlite3.Connection) -> None:
        with self._turn.taken(BUSY_SECONDS):
            connection.close()

    # -- connections -----------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )

    def _connect_writer(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            needed = ".".join(map(str, OLDEST_SQLITE))
            raise StoreUnavailable(
                f"This Python has SQLite {sqlite3.sqlite_version}; the store needs {needed} or newer. "
                "Run bilt-mcp on a newer Python."
            )
        with self._turn.taken(BUSY_SECONDS):
            self.location.make_file(self._path)
            connection = self._connect()
            try:
                refuse_foreign(connection, str(self._path))
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                migrate(connection, str(self._path), self._kind)
            except BaseException:
                connection.close()
                raise
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return connection

    async def _on(
        self, connection: aiosqlite.Connection | None, run: Callable[[sqlite3.Connection], T]
    ) -> T:
        """What `run` returns on the connection's thread. Raises `StoreUnavailable`."""
        if connection is None:
            raise StoreUnavailable(CLOSED)
        try:
            return await self._hop.call(connection, run)
        except sqlite3.IntegrityError:
            raise
        except TROUBLE as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> BiltError:
        return unavailable(self._path, error, BUSY_SECONDS)


async def on_a_thread(connect: Callable[[], sqlite3.Connection]) -> aiosqlite.Connection:
    """A connection with a thread of its own, on which `connect` makes it."""
    threads: list[threading.Thread] = []
    made: list[sqlite3.Connection] = []

    def make() -> sqlite3.Connection:
        threads.append(threading.current_thread())
        made.append(connect())
        return made[0]

    try:
        return await aiosqlite.core.Connection(make, 64)
    except BaseException:
        # aiosqlite ends its thread then, but does not wait for it, and forgets what it has made. A thread that
        # outlives the event loop complains on standard error.
        with anyio.move_on_after(2 * BUSY_SECONDS, shield=True):
            while not threads or threads[0].is_alive():  # noqa: ASYNC110 - a thread sets no event
                await anyio.sleep(0.001)
        for unused in made:
            unused.close()
        raise
