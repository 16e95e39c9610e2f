"""Keys, logins and limits on SQLite, beside the store.

Two files, because they are worth differently much: what keys and logins there are is synced to the disk before
anybody hears of it, what was asked for in the last minute never is. Two threads, because who is let in must not wait
for a key that is being made; and mostly none, because to let somebody in takes no longer than a change of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import aiosqlite

from .access import Account, Admission, ApiKey, Login, Window
from .clock import Clock, boot_id
from .driver import sqlite3
from .errors import BiltError, KeyAlreadyExists, KeyNotFound
from .group_commit import BUSY_SECONDS, write_alone
from .location import StoreLocation
from .sqlite_file import SqliteFile
from .sqlite_limits import FOREVER, HeldUp, Limits, Used
from .trouble import TROUBLE, is_held_up, unavailable

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Row = tuple[Any, ...]

LAPSED_AT_ONCE = 100

_KEY = "k.id, k.name, k.account, k.project, k.read_only, k.shown, k.created_at, k.revoked_at"
_KEY_BY_DIGEST = f"SELECT {_KEY} FROM api_key AS k WHERE k.digest = ? AND k.revoked_at IS NULL"
_KEY_BY_ID = f"SELECT {_KEY} FROM api_key AS k WHERE k.id = ?"
_LOGIN = f"""
    SELECT {_KEY}, l.id, l.created_at, l.ends_at, l.boot_id, l.ends_mono, l.idle_ms
    FROM login AS l JOIN api_key AS k ON k.n = l.api_key WHERE k.revoked_at IS NULL AND """
_LOGIN_BY_DIGEST = f"{_LOGIN} l.digest = ?"
_LOGIN_BY_ID = f"{_LOGIN} l.id = ? AND k.id = ?"


class RunAtOnce(Protocol[T_co]):
    """Looks and counts; without `wait` it raises `HeldUp` where it would have to wait for another process."""

    def __call__(self, c: sqlite3.Connection, /, *, wait: bool) -> T_co:
        """What was found."""
        ...


class SqliteAccess(SqliteFile):
    """`AccessStore` on two SQLite files. Open it with `async with`."""

    def __init__(self, location: StoreLocation, clock: Clock | None = None) -> None:
        super().__init__(location, location.access, location.access_turn, clock, "access")
        self._limits = Limits(location, self._clock)
        self._reading = threading.Lock()
        """Held by whoever uses the reader or counts, on whatever thread."""

    async def _open_more(self) -> None:
        await self._on(self._reader, lambda _: self._limits.run(lambda _: None))

    def _close_more(self, stack: AsyncExitStack) -> None:
        if self._reader is not None:
            stack.push_async_callback(self._finish, self._reader, lambda _: self._limits.close())

    # -- connections -----------------------------------------------------------------------------

    def _connect_reader(self) -> sqlite3.Connection:
        connection = super()._connect_reader()
        connection.execute("PRAGMA busy_timeout = 0")  # it is used in the event loop
        return connection

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._on(self._writer, lambda c: write_alone(self._turn, c, work))

    async def _on(
        self, connection: aiosqlite.Connection | None, run: Callable[[sqlite3.Connection], T]
    ) -> T:
        if connection is self._reader:
            run = partial(self._by_itself, run)
        return await super()._on(connection, run)

    def _by_itself(self, run: Callable[[sqlite3.Connection], T], c: sqlite3.Connection) -> T:
        with self._reading:
            c.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
            try:
                return run(c)
            finally:
                c.execute("PRAGMA busy_timeout = 0")

    async def _at_once(self, run: RunAtOnce[T]) -> T:
        """Run what every request asks for in the event loop, unless it would have to wait for somebody.

        Going to a thread and back takes as long as the whole look.
        """
        opened: Any = self._reader
        if opened is not None and self._reading.acquire(blocking=False):
            try:
                return run(opened._conn, wait=False)
            except HeldUp:
                pass
            except TROUBLE as error:
                if not is_held_up(error):
                    raise self._unavailable(error) from error
            finally:
                self._reading.release()
        return await self._on(self._reader, partial(run, wait=True))

    def _unavailable(self, error: Exception) -> BiltError:
        new = "make new keys with `bilt-mcp keys create`"
        return unavailable(self._path, error, BUSY_SECONDS, new)

    # -- keys ------------------------------------------------------------------------------------

    async def create_key(
        self, name: str, account: Account, digest: bytes, shown: str, *, read_only: bool
    ) -> ApiKey:
        """See `AccessStore.create_key`."""

        def create(c: sqlite3.Connection) -> Row:
            sql = "SELECT 1 FROM api_key WHERE name = ? AND revoked_at IS NULL"
            if c.execute(sql, (name,)).fetchall():
                raise KeyAlreadyExists(
                    f"There is a key {name} in use. Choose another name, or revoke that one first: "
                    f"bilt-mcp keys revoke {name}"
                )
            key_id, whose = str(uuid4()), (str(account), account.project_id)
            c.execute(
                """INSERT INTO api_key (id, name, account, project, read_only, digest, shown, created_at)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
                (key_id, name, *whose, read_only, digest, shown, self._clock.now()),
            )
            return _only(c.execute(_KEY_BY_ID, (key_id,)))

        return _key_of(await self._write(create))

    async def keys(self) -> Sequence[ApiKey]:
        """See `AccessStore.keys`."""

        def look(c: sqlite3.Connection) -> list[ApiKey]:
            rows = c.execute(f"SELECT {_KEY} FROM api_key AS k ORDER BY k.n").fetchall()
            used = self._limits.run(
                lambda c: [self._limits.used(c, _bucket(row[0])) for row in rows]
            )
            return [_key_of(row, last) for row, last in zip(rows, used, strict=True)]

        return await self._on(self._reader, look)

    async def revoke_key(self, name_or_id: str) -> ApiKey:
        """See `AccessStore.revoke_key`."""

        def revoke(c: sqlite3.Connection) -> Row:
            found = c.execute(
                """SELECT n, id FROM api_key WHERE revoked_at IS NULL AND (id = :which OR name = :which)
                   ORDER BY id = :which DESC LIMIT 1""",
                {"which": name_or_id},
            ).fetchall()
            if not found:
                raise KeyNotFound(
                    "No key in use has this name or id. bilt-mcp keys list has all keys."
                )
            n, key_id = found[0]
            c.execute("DELETE FROM login WHERE api_key = ?", (n,))
            c.execute("UPDATE api_key SET revoked_at = ? WHERE n = ?", (self._clock.now(), n))
            return _only(c.execute(_KEY_BY_ID, (key_id,)))

        return _key_of(await self._write(revoke))

    async def admit(self, digest: bytes, limit: int) -> Admission | None:
        """See `AccessStore.admit`."""
        return await self._at_once(partial(self._admit, digest, limit))

    def _admit(
        self, digest: bytes, limit: int, c: sqlite3.Connection, *, wait: bool
    ) -> Admission | None:
        found = c.execute(_KEY_BY_DIGEST, (digest,)).fetchall()
        if not found:
            return None

        row = found[0]
        bucket = _bucket(row[0])
        counted = self._limits.run(lambda c: self._limits.hit(c, bucket, limit, FOREVER), wait=wait)
        assert counted is not None
        window, used = counted
        return Admission(_key_of(row, used), None, window)

    # -- logins ----------------------------------------------------------------------------------

    async def open_login(self, key_id: str, digest: bytes, seconds: float, idle: float) -> Login:
        """See `AccessStore.open_login`."""
        login_id, idle_ms = str(uuid4()), round(idle * 1000)

        def begin(c: sqlite3.Connection) -> Row:
            now, mono = self._clock.now(), self._clock.monotonic()
            c.execute(
                """DELETE FROM login WHERE id IN
                   (SELECT id FROM login WHERE ends_at <= ? ORDER BY ends_at LIMIT ?)""",
                (now, LAPSED_AT_ONCE),
            )
            length = round(seconds * 1000)
            c.execute(
                """INSERT INTO login (id, digest, api_key, created_at, ends_at, boot_id, ends_mono, idle_ms)
                   SELECT ?, ?, n, ?, ?, ?, ?, ? FROM api_key WHERE id = ? AND revoked_at IS NULL""",
                (login_id, digest, now, now + length, boot_id(), mono + length, idle_ms, key_id),
            )
            begun = c.execute(_LOGIN_BY_ID, (login_id, key_id)).fetchall()
            if not begun:
                raise KeyNotFound("This key is not in use any more.")
            row: Row = begun[0]
            return row

        return _login_of(await self._write(begin))

    async def admit_login(self, digest: bytes, limit: int) -> Admission | None:
        """See `AccessStore.admit_login`."""
        return await self._at_once(partial(self._admit_login, digest, limit))

    def _admit_login(
        self, digest: bytes, limit: int, c: sqlite3.Connection, *, wait: bool
    ) -> Admission | None:
        found = c.execute(_LOGIN_BY_DIGEST, (digest,)).fetchall()
        if not found:
            return None

        row = found[0]
        login = _login_of(row)
        counted = self._limits.run(
            lambda c: self._limits.hit(
                c, _bucket(login.id), limit, login.expires_at, partial(self._goes_on, row)
            ),
            wait=wait,
        )
        return None if counted is None else Admission(login.key, login, counted[0])

    async def end_login(self, digest: bytes) -> None:
        """See `AccessStore.end_login`."""
        await self._write(lambda c: c.execute("DELETE FROM login WHERE digest = ?", (digest,)))

    async def good(self, key_id: str, login_id: str | None = None) -> bool:
        """See `AccessStore.good`."""

        def look(c: sqlite3.Connection) -> bool:
            if login_id is None:
                sql = "SELECT 1 FROM api_key WHERE id = ? AND revoked_at IS NULL"
                return bool(c.execute(sql, (key_id,)).fetchall())
            found = c.execute(_LOGIN_BY_ID, (login_id, key_id)).fetchall()
            if not found:
                return False
            name = _bucket(login_id)
            used = self._limits.run(lambda c: self._limits.used(c, name))
            return self._goes_on(found[0], used)

        return await self._on(self._reader, look)

    def _goes_on(self, row: Row, used: Used | None) -> bool:
        """Whether a login's time is not up: by neither clock, because the wall's can be set, and the other rests."""
        boot: str = row[11]
        begun_at, ends_at, ends_mono, idle = map(int, (row[9], row[10], row[12], row[13]))
        now, mono = self._clock.now(), self._clock.monotonic()
        if now >= ends_at or (boot == boot_id() and mono >= ends_mono):
            return False
        if used is None:
            return now < begun_at + idle
        return now < used.at + idle and (used.mono is None or mono < used.mono + idle)

    # -- limits ----------------------------------------------------------------------------------

    async def hit(self, bucket: str, limit: int) -> Window:
        """See `AccessStore.hit`."""

        def count(c: sqlite3.Connection) -> Window:
            counted = self._limits.hit(c, _bucket(bucket, "other"), limit)
            assert counted is not None
            return counted[0]

        return await self._on(self._reader, lambda _: self._limits.run(count))

    async def look(self, bucket: str, limit: int) -> Window:
        """See `AccessStore.look`."""
        name = _bucket(bucket, "other")
        look = partial(self._limits.look, name=name, limit=limit)
        return await self._on(self._reader, lambda _: self._limits.run(look))


def _bucket(of: str, kind: str = "credential") -> str:
    return f"{kind} {of}"


def _only(cursor: sqlite3.Cursor) -> Row:
    row: Row
    (row,) = cursor.fetchall()
    return row


def _key_of(row: Row, used: Used | None = None) -> ApiKey:
    id_, name, account, project, read_only, shown, created_at, revoked_at = row[:8]
    return ApiKey(
        id=id_,
        name=name,
        account=Account(account, project),
        read_only=bool(read_only),
        shown=shown,
        created_at=created_at,
        revoked_at=revoked_at,
        last_used_at=None if used is None else used.at,
    )


def _login_of(row: Row) -> Login:
    return Login(_key_of(row), row[8], row[10])
