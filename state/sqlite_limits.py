"""Counting what was asked for in the last minute, the same for all processes of a store.

It may be lost, and nothing waits for the disk: a damaged file is made anew, and while the disk is full this process
counts for itself, so that a cancel gets through. What happens is counted on the monotonic clock, so nobody gets
another hundred by setting the time.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

FOREVER = 1 << 62
"""A time after all others."""

_GET = "SELECT hits, used_at, used_mono FROM bucket WHERE name = ?"
_PUT = """
    INSERT INTO bucket (name, hits, used_at, used_mono, keep_until) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE
    SET hits = excluded.hits, used_at = excluded.used_at, used_mono = excluded.used_mono"""


@dataclass(frozen=True)
class Used:
    """When a bucket was last hit: milliseconds since 1970, and on the monotonic clock if that was in this boot."""

    at: int
    mono: int | None


class HeldUp(Exception):
    """Another process is counting right now."""


class Limits:
    """The counts of one process: for one thread at a time."""

    def __init__(self, location: StoreLocation, clock: Clock) -> None:
        self._location = location
        self._path = location.limits
        self._clock = clock
        self._turn = BriefTurn(location.limits_turn)
        self._patience = PATIENCE_SECONDS
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._own: sqlite3.Connection | None = None
        self._swept = -WINDOW_MS
        self._waits = PATIENCE_SECONDS

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

    def run(self, work: Callable[[sqlite3.Connection], T], *, wait: bool = True) -> T:
        """Run `work` in a transaction that nobody else's comes between. Raises `StoreUnavailable`.

        Without `wait` it raises `HeldUp` where it would have to wait for another process.
        """
        try:
            return self._run(work) if wait else self._run_at_once(work)
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

    def hit(
        self,
        c: sqlite3.Connection,
        name: str,
        limit: int,
        keep_until: int | None = None,
        good: Callable[[Used | None], bool] = lambda _: True,
    ) -> tuple[Window, Used | None] | None:
        """Within `run`: count one more in a bucket, if that is allowed; and when it was last hit before.

        None, and nothing is counted, when `good` does not find it so. `limit` 0: there is none. `keep_until`, in
        milliseconds since 1970: how long to know when it was last used.
        """
        # The time is read within the turn, so nobody's is later than ours who came before.
        mono = self._clock.monotonic()
        hits, used = self._bucket(c, name, mono)
        if not good(used):
            return None
        window = self._window(hits, limit, mono, 1)
        if not window.exceeded:
            if limit > 0:
                hits.append(mono)
            c.execute(_PUT, (name, hits.tobytes(), self._clock.now(), mono, keep_until))
            self._sweep(c, mono)
        return window, used

    def look(self, c: sqlite3.Connection, name: str, limit: int) -> Window:
        """Within `run`: how it stands."""
        mono = self._clock.monotonic()
        return self._window(self._bucket(c, name, mono)[0], limit, mono, 0)

    def used(self, c: sqlite3.Connection, name: str) -> Used | None:
        """Within `run`: when a bucket was last hit, as far as that is known."""
        return self._bucket(c, name, self._clock.monotonic())[1]

    def _bucket(
        self, c: sqlite3.Connection, name: str, mono: int
    ) -> tuple[array[int], Used | None]:
        hits: array[int] = array("q")
        found = c.execute(_GET, (name,)).fetchall()
        if not found:
            return hits, None
        kept, used_at, used_mono = found[0]
        hits.frombytes(kept)
        # What is of later was on a clock of another boot.
        counts = hits[bisect_right(hits, mono - WINDOW_MS) : bisect_right(hits, mono)]
        return counts, Used(used_at, used_mono)

    def _window(self, hits: Sequence[int], limit: int, mono: int, more: int) -> Window:
        now = self._clock.now()
        if limit <= 0:
            return Window(limit, 0, now)
        left = limit - len(hits)
        if left <= 0:
            # Those before this one are more than are allowed, since the limit was lowered.
            return Window(limit, -1, now + hits[-left] + WINDOW_MS - mono)
        begun = hits[0] if hits else mono
        return Window(limit, left - more, now + begun + WINDOW_MS - mono)

    def _sweep(self, c: sqlite3.Connection, mono: int) -> None:
        """Delete what no longer matters, once a minute."""
        if 0 <= mono - self._swept < WINDOW_MS:
            return
        self._swept = mono
        c.execute(
            """DELETE FROM bucket WHERE keep_until <= :now
               OR (keep_until IS NULL AND (used_mono IS NULL OR used_mono <= :since))""",
            {"now": self._clock.now(), "since": mono - WINDOW_MS},
        )

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

    def _run_at_once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._turn.taken(0):
                return _transaction(self._connected(0), work)
        except TROUBLE as error:
            if is_held_up(error):
                raise HeldUp from error
            raise

    def _connected(self, patience: float) -> sqlite3.Connection:
        if self._connection is not None and self._file != _identity(self._path):
            self._disconnect()  # another process has made it anew
        if self._connection is None:
            self._location.make_file(self._path)
            self._file = _identity(self._path)
            self._connection = self._connect()
            self._waits = PATIENCE_SECONDS
        if patience != self._waits:
            self._connection.execute(f"PRAGMA busy_timeout = {patience * 1000:.0f}")
            self._waits = patience
        return self._connection

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
        connection.execute("UPDATE bucket SET hits = x'', used_mono = NULL")


def _identity(path: os.PathLike[str]) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _is_useless(error: Exception) -> bool:
    # Our statements are right, so if one is refused it is not our schema.
    return is_damage(error) or getattr(error, "sqlite_errorname", "") == "SQLITE_ERROR"
