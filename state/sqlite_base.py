"""The store on SQLite: how its file is read and written, and how changes are noticed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

from .clock import Clock
from .driver import sqlite3
from .errors import StoreFull, StoreUnavailable
from .group_commit import GroupCommit
from .location import StoreLocation
from .lookout import Key, Lookout, SessionWatch, Told
from .reserve import give_up_reserve
from .sqlite_file import CLOSED, SqliteFile
from .sqlite_rows import NEWEST_NOW
from .trouble import TROUBLE

T = TypeVar("T")
Row = sqlite3.Row


class SqliteBase(SqliteFile):
    """The file of the sessions, opened."""

    def __init__(self, location: StoreLocation, clock: Clock | None = None) -> None:
        super().__init__(location, location.database, location.turn, clock)
        self._lookout = Lookout(self.version, self._ask_revisions)
        self._writes = GroupCommit(self._turn, self._hop, self._lookout.bump)
        self._reserves = 0
        self._probe: sqlite3.Connection | None = None

    async def _open_more(self) -> None:
        self._probe = self._connect()
        self._lookout.open()

    def _close_more(self, stack: AsyncExitStack) -> None:
        if self._probe is not None:
            stack.callback(self._probe.close)
            self._probe = None
        self._lookout.close()

    # -- connections -----------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.row_factory = sqlite3.Row
        return connection

    def _connect_without_references(self) -> sqlite3.Connection:
        connection = self._connect()
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        connection = super()._connect_reader()
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
