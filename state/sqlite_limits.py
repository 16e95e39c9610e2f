"""Counting what was asked for in the last minute, the same for all processes of a store.

It may be lost, and nothing waits for the disk: a damaged file is made anew, and while the disk is full this process
counts for itself, so that a cancel gets through. What happens is counted on the monotonic clock, so nobody gets
another hundred by setting the time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from .access import Window
from .clock import Clock, boot_id
from .driver import sqlite3
from .location import StoreLocation
from .migrate import migrate, refuse_foreign
from .trouble import TROUBLE, fills_disk, is_damage, is_held_up, unavailable
from .turn import BriefTurn

T = TypeVar("T")

WINDOW_MS = 60_000
PATIENCE_SECONDS = 2.0
"""How long a count waits for another process: it takes some 50 microseconds, so that one must have been stopped."""
IMPATIENT_SECONDS = 0.02
"""How long the next ones wait then, so that they do not all stand in line behind it."""

_COUNT = "SELECT count(*), min(at) FROM hit WHERE bucket = :bucket AND at > :since AND at <= :mono"
_OLD = """
    DELETE FROM hit WHERE n IN (SELECT n FROM hit ORDER BY n LIMIT 3) AND (at <= :since OR at > :mono)"""
"""More than are added, so all go; what is of later is of another boot."""


class Limits:
    """The counts of one process, on one thread: open, use and close it there."""

    def __init__(self, location: StoreLocation, clock: Clock) -> None:
        self._location = location
        self._path = location.limits
        self._clock = clock
        self._turn = BriefTurn(location.limits_turn)
        self._patience = PATIENCE_SECONDS
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._own: sqlite3.Connection | None = None

    def close(self) -> None:
        """Close the file; the last process that does writes its journal into it."""
        try:
            with self._turn.taken(IMPATIENT_SECONDS):
                self._disconnect()
        except TROUBLE:
            self._disconnect()
        finally:
            self._turn.close()
            if self._own is not None:
                self._own.close()

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction that nobody else's comes between. Raises `StoreUnavailable`."""
        try:
            return self._run(work)
        except TROUBLE as error:
            trouble = error
        try:
            if fills_disk(self._path, trouble):
                return self._alone(work)
            if _is_useless(trouble):
                self._throw_away()
                return self._run(work)
        except TROUBLE as error:
            trouble = error
        raise unavailable(
            self._path, trouble, PATIENCE_SECONDS, "counting begins anew"
        ) from trouble

    def hit(self, c: sqlite3.Connection, bucket: str, limit: int) -> Window:
        """Within `run`: count one more, if that is allowed."""
        if limit <= 0:
            return Window(limit, 0, self._clock.now())
        # The time is read within the turn, so nobody's is later than ours who came before.
        mono = self._clock.monotonic()
        values = {"bucket": bucket, "mono": mono, "since": mono - WINDOW_MS}
        count, oldest = c.execute(_COUNT, values).fetchone()
        if count < limit:
            c.execute(_OLD, values)
            c.execute("INSERT INTO hit (bucket, at) VALUES (:bucket, :mono)", values)
        return self._window(limit, limit - count - 1, mono, oldest)

    def look(self, c: sqlite3.Connection, bucket: str, limit: int) -> Window:
        """Within `run`: how it stands."""
        if limit <= 0:
            return Window(limit, 0, self._clock.now())
        mono = self._clock.monotonic()
        values = {"bucket": bucket, "mono": mono, "since": mono - WINDOW_MS}
        count, oldest = c.execute(_COUNT, values).fetchone()
        return self._window(limit, limit - count if count < limit else -1, mono, oldest)

    def _window(self, limit: int, remaining: int, mono: int, oldest: int | None) -> Window:
        begun = mono if oldest is None else oldest
        return Window(limit, max(-1, remaining), self._clock.now() + begun + WINDOW_MS - mono)

    # -- the file --------------------------------------------------------------------------------

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        patience, self._patience = self._patience, PATIENCE_SECONDS
        try:
            with self._turn.taken(patience):
                return _transaction(self._connected(patience), work)
        except TROUBLE as error:
            if is_held_up(error):
                self._patience = IMPATIENT_SECONDS
            raise

    def _connected(self, patience: float) -> sqlite3.Connection:
        if self._connection is not None and self._file != _identity(self._path):
            self._disconnect()  # another process has made it anew
        if self._connection is None:
            self._location.make_file(self._path)
            self._file = _identity(self._path)
            self._connection = self._connect()
        if patience != PATIENCE_SECONDS:
            self._connection.execute(f"PRAGMA busy_timeout = {patience * 1000:.0f}")
        elif self._is_impatient:
            self._connection.execute(f"PRAGMA busy_timeout = {PATIENCE_SECONDS * 1000:.0f}")
        self._is_impatient = patience != PATIENCE_SECONDS
        return self._connection

    _is_impatient = False

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=PATIENCE_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            refuse_foreign(connection, str(self._path))
            connection.execute("PRAGMA journal_mode = WAL")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        migrate(connection, str(self._path), "limits")
        _transaction(connection, _forget_other_boots)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _throw_away(self) -> None:
        with self._turn.taken(PATIENCE_SECONDS):
            self._disconnect()
            if _identity(self._path) != self._file:
                return  # somebody else did
            # The database last: a new one must not find the journal of this one.
            for suffix in ("-wal", "-shm", ""):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _alone(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._own is None:
            self._own = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._prepare(self._own)
        return _transaction(self._own, work)


def _transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.commit()
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise
    return result


def _forget_other_boots(connection: sqlite3.Connection) -> None:
    sql = "UPDATE boot SET boot_id = ? WHERE boot_id <> ?"
    if connection.execute(sql, (boot_id(), boot_id())).rowcount:
        connection.execute("DELETE FROM hit")
        connection.execute("UPDATE seen SET mono = NULL")


def _identity(path: os.PathLike[str]) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _is_useless(error: Exception) -> bool:
    # Our statements are right, so if one is refused it is not our schema.
    return is_damage(error) or getattr(error, "sqlite_errorname", "") == "SQLITE_ERROR"
