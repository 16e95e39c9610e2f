"""Connections to one SQLite file: how it is opened, how it is written, how changes are noticed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import aiosqlite
import anyio

from .clock import Clock, SystemClock
from .driver import sqlite3
from .errors import BiltError, StoreFull, StoreUnavailable
from .group_commit import BUSY_SECONDS, GroupCommit
from .hop import Hop
from .location import StoreLocation
from .lookout import Key, Lookout, SessionWatch, Told
from .migrate import migrate, refuse_foreign
from .reserve import give_up_reserve
from .sqlite_rows import NEWEST_NOW
from .trouble import TROUBLE, unavailable
from .turn import WriteTurn

T = TypeVar("T")
Row = sqlite3.Row

OLDEST_SQLITE = (3, 37, 0)
"""STRICT tables; RETURNING is older."""
CLOSED = "The store is closed."


class SqliteBase:
    """An open store. Use it as an async context manager: what is not closed keeps the interpreter from exiting."""

    def __init__(self, location: StoreLocation, clock: Clock | None = None) -> None:
        self.location = location
        self._clock: Clock = clock or SystemClock()
        self._turn = WriteTurn(location.turn)
        self._hop = Hop()
        self._lookout = Lookout(self.version, self._ask_revisions)
        self._writes = GroupCommit(self._turn, self._hop, self._lookout.bump)
        self._reserves = 0
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._probe: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        """Open the file, make or migrate its schema. Raises `StoreUnavailable`."""
        self.location.prepare()
        try:
            self._hop.open()
            self._writer = await on_a_thread(self._connect_writer)
            self._reader = await on_a_thread(self._connect_reader)
            self._probe = _connect(self.location)
            self._lookout.open()
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

    async def _close(self) -> None:
        # Each of them, whatever happens to another: a shield does not stop a task's own cancel().
        async with AsyncExitStack() as stack:
            stack.callback(self._hop.close)
            stack.callback(self._turn.close)
            if self._writer is not None:
                # The last one, because the last connection to a database checkpoints it, which takes a turn.
                stack.push_async_callback(self._writer.close)
                stack.push_async_callback(self._close_writer, self._writer)
            if self._reader is not None:
                stack.push_async_callback(self._reader.close)
            if self._probe is not None:
                stack.callback(self._probe.close)
            self._reader = self._writer = self._probe = None
            self._lookout.close()

    async def _close_writer(self, writer: aiosqlite.Connection) -> None:
        def close(connection: sqlite3.Connection) -> None:
            with self._turn.taken(BUSY_SECONDS):
                connection.close()

        with contextlib.suppress(BiltError):  # then it is closed without its turn
            await self._on(writer, close)

    # -- connections -----------------------------------------------------------------------------

    def _connect_writer(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            needed = ".".join(map(str, OLDEST_SQLITE))
            raise StoreUnavailable(
                f"This Python has SQLite {sqlite3.sqlite_version}; the store needs {needed} or newer. "
                "Run bilt-mcp on a newer Python."
            )
        with self._turn.taken(BUSY_SECONDS):
            connection = _connect(self.location)
            try:
                refuse_foreign(connection, str(self.location.database))
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                migrate(connection, str(self.location.database))
            except BaseException:
                connection.close()
                raise
        return connection

    def _connect_without_references(self) -> sqlite3.Connection:
        connection = _connect(self.location)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        connection = _connect(self.location)
        connection.execute("PRAGMA query_only = ON")
        # SQLite's own lower() knows ASCII only.
        connection.create_function("casefold", 1, str.casefold, deterministic=True)
        return connection

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, vital: bool = False) -> T:
        """Run `work` as one write transaction, or as one of many in it: all of it or nothing.

        It is one call on the connection's thread, so a cancelled caller cannot leave it open: it ends by
        itself, and a cancelled caller cannot know whether it did. What is `vital`, because it says that something
        was stopped, finds room on a full disk too: the reserve.
        """
        before = self._reserves
        while True:
            if self._writer is None:
                raise StoreUnavailable(CLOSED)
            try:
                return await self._writes.write(self._writer, work)
            except sqlite3.IntegrityError:
                raise
            except TROUBLE as error:
                trouble = self._unavailable(error)
                if not (vital and isinstance(trouble, StoreFull) and self._more_room(before)):
                    raise trouble from error
                vital = False  # once more, and not for ever

    def _more_room(self, before: int) -> bool:
        if give_up_reserve(self.location.reserve):
            self._reserves += 1
        return self._reserves > before  # or another one of ours gave it up meanwhile

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the reader's connection; it must fetch all it wants before it returns."""
        return await self._on(self._reader, partial(_snapshot, work))

    async def _on(
        self, connection: aiosqlite.Connection | None, run: Callable[[sqlite3.Connection], T]
    ) -> T:
        if connection is None:
            raise StoreUnavailable(CLOSED)
        try:
            return await self._hop.call(connection, run)
        except sqlite3.IntegrityError:
            raise
        except TROUBLE as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> BiltError:
        return unavailable(self.location.database, error, BUSY_SECONDS)

    # -- waiting ---------------------------------------------------------------------------------

    def changes(self) -> int:
        """See `SessionStore.changes`."""
        return self._lookout.changes()

    async def wait_change(self, seen: int, timeout: float, *, urgent: bool = False) -> int:
        """See `SessionStore.wait_change`."""
        return await self._lookout.wait_change(seen, timeout, urgent)

    def watch(self, account: str, session_id: str, *, messages: bool = False) -> SessionWatch:
        """See `SessionStore.watch`."""
        return self._lookout.watch(account, session_id, messages)

    def nudge(self) -> None:
        """See `SessionStore.nudge`."""
        self._lookout.bump()

    def version(self) -> int | None:
        """See `InvocationStore.version`."""
        with contextlib.suppress(sqlite3.Error):
            if self._probe is not None:
                return int(self._probe.execute("PRAGMA data_version").fetchone()[0])
        return None

    def _ask_revisions(self, keys: Collection[Key], told: Told) -> None:
        def look(connection: sqlite3.Connection) -> None:
            found: Mapping[Key, int] | None = None
            with contextlib.suppress(*TROUBLE):
                found = _snapshot(partial(revisions, keys), connection)
            self._hop.back(partial(told, found))

        if self._reader is not None:
            self._hop.there(self._reader, look)


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


def _connect(location: StoreLocation) -> sqlite3.Connection:
    connection = sqlite3.connect(
        location.database, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    return connection


def _snapshot(work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    connection.execute("BEGIN")
    try:
        return work(connection)
    finally:
        connection.rollback()


_TOGETHER = 64
_PLACES = ", ".join("?" * _TOGETHER)
_REVISIONS = f"SELECT id, account, revision, project FROM session WHERE id IN ({_PLACES})"
_PULSES = f"""
    SELECT id, account, revision + coalesce({NEWEST_NOW.format(session="session.n")}, 0) AS revision, project
    FROM session WHERE id IN ({_PLACES})"""


def revisions(keys: Collection[Key], connection: sqlite3.Connection) -> Mapping[Key, int]:
    """The revisions of those of these sessions that there are, and the pulses of those whose messages count."""
    found: dict[Key, int] = {}
    limits = {key[3] for key in keys}
    for messages, sql in ((False, _REVISIONS), (True, _PULSES)):
        ids = list({key[1] for key in keys if key[2] is messages})
        for start in range(0, len(ids), _TOGETHER):
            some = ids[start : start + _TOGETHER]
            # Always as many places, so that it is planned once.
            rows = connection.execute(sql, [*some, *[None] * (_TOGETHER - len(some))]).fetchall()
            for row in rows:
                for only in limits:
                    if only is None or only == _project_id(connection, row["project"]):
                        found[row["account"], row["id"], messages, only] = row["revision"]
    return found


def _project_id(connection: sqlite3.Connection, number: int) -> str:
    row = one(connection, "SELECT id FROM project WHERE n = :n", n=number)
    assert row is not None
    return str(row["id"])


def one(connection: sqlite3.Connection, sql: str, **values: Any) -> Row | None:
    """The first row of a query, or None; every row is fetched, so that no read stays open."""
    rows = connection.execute(sql, values).fetchall()
    return rows[0] if rows else None
