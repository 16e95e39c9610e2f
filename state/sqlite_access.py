"""Keys, logins and limits on SQLite, beside the store.

Two files, because they are worth differently much: what keys and logins there are is synced to the disk before
anybody hears of it, what was asked for in the last minute never is. Two threads, because who is let in must not wait
for a key that is being made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import aiosqlite
import anyio

from .access import Account, Admission, ApiKey, Login, Window
from .clock import Clock, SystemClock, boot_id
from .driver import sqlite3
from .errors import BiltError, KeyAlreadyExists, KeyNotFound, StoreUnavailable
from .group_commit import BUSY_SECONDS, write_alone
from .hop import Hop
from .location import StoreLocation
from .migrate import migrate, refuse_foreign
from .sqlite_base import CLOSED, on_a_thread
from .sqlite_limits import Limits
from .trouble import TROUBLE, unavailable
from .turn import WriteTurn

T = TypeVar("T")
Row = tuple[Any, ...]

USED_MS = 60_000
"""How exactly it is known when a key or a login was last used."""
IDLE_PARTS = 10
"""Of a login that ends sooner when nobody uses it: to a tenth of that time."""
LAPSED_AT_ONCE = 100

_KEY = "k.id, k.name, k.account, k.project, k.read_only, k.shown, k.created_at, k.revoked_at"
_KEY_BY_DIGEST = f"SELECT {_KEY} FROM api_key AS k WHERE k.digest = ? AND k.revoked_at IS NULL"
_KEY_BY_NUMBER = f"SELECT {_KEY} FROM api_key AS k WHERE k.n = ?"
_LOGIN = f"""
    SELECT {_KEY}, l.id, l.created_at, l.ends_at, l.boot_id, l.ends_mono, l.idle_ms
    FROM login AS l JOIN api_key AS k ON k.n = l.api_key WHERE k.revoked_at IS NULL AND """
_LOGIN_BY_DIGEST = f"{_LOGIN} l.digest = ?"
_LOGIN_BY_ID = f"{_LOGIN} l.id = ? AND k.id = ?"
_LAST_USED = "SELECT at, mono FROM seen WHERE id = ?"
_USED = """
    INSERT INTO seen (id, at, mono, until_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET at = max(at, excluded.at), mono = excluded.mono"""


class SqliteAccess:
    """`AccessStore` on two SQLite files. Open it with `async with`."""

    def __init__(self, location: StoreLocation, clock: Clock | None = None) -> None:
        self.location = location
        self._clock: Clock = clock or SystemClock()
        self._turn = WriteTurn(location.access_turn)
        self._hop = Hop()
        self._limits = Limits(location, self._clock)
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None

    async def __aenter__(self) -> Self:
        """Open the files, make or migrate their schemas. Raises `StoreUnavailable`."""
        self.location.prepare()
        try:
            self._hop.open()
            self._writer = await on_a_thread(self._connect_writer)
            self._reader = await on_a_thread(self._connect_reader)
            await self._on(self._reader, lambda _: self._limits.run(lambda _: None))
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
        """Close everything, also when the block was cancelled."""
        with anyio.CancelScope(shield=True):
            await self._close()

    async def _close(self) -> None:
        # Each of them, whatever happens to another.
        async with AsyncExitStack() as stack:
            stack.callback(self._hop.close)
            stack.callback(self._turn.close)
            if self._writer is not None:
                stack.push_async_callback(self._writer.close)
                stack.push_async_callback(self._finish, self._writer, self._close_writer)
            if self._reader is not None:
                stack.push_async_callback(self._reader.close)
                stack.push_async_callback(
                    self._finish, self._reader, lambda _: self._limits.close()
                )
            self._reader = self._writer = None

    async def _finish(
        self, connection: aiosqlite.Connection, close: Callable[[sqlite3.Connection], None]
    ) -> None:
        try:
            await self._on(connection, close)
        except BiltError:
            return  # it is closed all the same, without its turn

    def _close_writer(self, connection: sqlite3.Connection) -> None:
        with self._turn.taken(BUSY_SECONDS):
            connection.close()

    # -- connections -----------------------------------------------------------------------------

    def _connect_writer(self) -> sqlite3.Connection:
        path = self.location.access
        with self._turn.taken(BUSY_SECONDS):
            self.location.make_file(path)
            connection = self._connect()
            try:
                refuse_foreign(connection, str(path))
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                migrate(connection, str(path), "access")
            except BaseException:
                connection.close()
                raise
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self.location.access,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._on(self._writer, lambda c: write_alone(self._turn, c, work))

    async def _on(
        self, connection: aiosqlite.Connection | None, run: Callable[[sqlite3.Connection], T]
    ) -> T:
        if connection is None:
            raise StoreUnavailable(CLOSED)
        try:
            return await self._hop.call(connection, run)
        except TROUBLE as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> BiltError:
        new = "make new keys with `bilt-mcp keys create`"
        return unavailable(self.location.access, error, BUSY_SECONDS, new)

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
            whose = (str(account), account.project_id)
            made = c.execute(
                """INSERT INTO api_key (id, name, account, project, read_only, digest, shown, created_at)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
                (str(uuid4()), name, *whose, read_only, digest, shown, self._clock.now()),
            )
            return _only(c.execute(_KEY_BY_NUMBER, (made.lastrowid,)))

        return _key_of(await self._write(create))

    async def keys(self) -> Sequence[ApiKey]:
        """See `AccessStore.keys`."""

        def look(c: sqlite3.Connection) -> list[ApiKey]:
            rows = c.execute(f"SELECT {_KEY} FROM api_key AS k ORDER BY k.n").fetchall()
            used = self._limits.run(
                lambda limits: dict(limits.execute("SELECT id, at FROM seen").fetchall())
            )
            return [_key_of(row, used.get(row[0])) for row in rows]

        return await self._on(self._reader, look)

    async def revoke_key(self, name_or_id: str) -> ApiKey:
        """See `AccessStore.revoke_key`."""

        def revoke(c: sqlite3.Connection) -> Row:
            found = c.execute(
                """SELECT n FROM api_key WHERE revoked_at IS NULL AND (id = :which OR name = :which)
                   ORDER BY id = :which DESC LIMIT 1""",
                {"which": name_or_id},
            ).fetchall()
            if not found:
                raise KeyNotFound(
                    "No key in use has this name or id. bilt-mcp keys list has all keys."
                )
            (n,) = found[0]
            c.execute("DELETE FROM login WHERE api_key = ?", (n,))
            c.execute("UPDATE api_key SET revoked_at = ? WHERE n = ?", (self._clock.now(), n))
            return _only(c.execute(_KEY_BY_NUMBER, (n,)))

        return _key_of(await self._write(revoke))

    async def admit(self, digest: bytes, limit: int) -> Admission | None:
        """See `AccessStore.admit`."""
        return await self._on(self._reader, partial(self._admit, digest, limit))

    def _admit(self, digest: bytes, limit: int, c: sqlite3.Connection) -> Admission | None:
        found = c.execute(_KEY_BY_DIGEST, (digest,)).fetchall()
        if not found:
            return None

        def count(limits: sqlite3.Connection) -> tuple[Window, int | None]:
            used = self._last_used(limits, row[0])
            self._use(limits, row[0], used, USED_MS, None)
            return self._limits.hit(limits, f"key {row[0]}", limit), used and used[0]

        row = found[0]
        window, used_at = self._limits.run(count)
        return Admission(_key_of(row, used_at), None, window)

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
            begun = c.execute(
                """INSERT INTO login (id, digest, api_key, created_at, ends_at, boot_id, ends_mono, idle_ms)
                   SELECT ?, ?, n, ?, ?, ?, ?, ? FROM api_key WHERE id = ? AND revoked_at IS NULL""",
                (login_id, digest, now, now + length, boot_id(), mono + length, idle_ms, key_id),
            )
            if not begun.rowcount:
                raise KeyNotFound("This key is not in use any more.")
            return _only(c.execute(_LOGIN_BY_ID, (login_id, key_id)))

        row = await self._write(begin)
        await self._on(self._reader, lambda _: self._limits.run(self._forget_lapsed))
        return _login_of(row)

    async def admit_login(self, digest: bytes, limit: int) -> Admission | None:
        """See `AccessStore.admit_login`."""
        return await self._on(self._reader, partial(self._admit_login, digest, limit))

    def _admit_login(self, digest: bytes, limit: int, c: sqlite3.Connection) -> Admission | None:
        found = c.execute(_LOGIN_BY_DIGEST, (digest,)).fetchall()
        if not found:
            return None

        def count(limits: sqlite3.Connection) -> Window | None:
            used = self._last_used(limits, login.id)
            if not self._goes_on(row, used):
                return None
            self._use(limits, login.id, used, min(USED_MS, row[13] // IDLE_PARTS), login.expires_at)
            return self._limits.hit(limits, f"login {login.id}", limit)

        row = found[0]
        login = _login_of(row)
        window = self._limits.run(count)
        return None if window is None else Admission(login.key, login, window)

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
            used = self._limits.run(partial(self._last_used, id_=login_id))
            return self._goes_on(found[0], used)

        return await self._on(self._reader, look)

    def _goes_on(self, row: Row, used: tuple[int, int | None] | None) -> bool:
        """Whether a login's time is not up: by neither clock, because the wall's can be set, and the other rests."""
        begun_at, ends_at, boot, ends_mono, idle = row[9:14]
        now, mono = self._clock.now(), self._clock.monotonic()
        if now >= ends_at or (boot == boot_id() and mono >= ends_mono):
            return False
        used_at, used_mono = used or (begun_at, None)
        return now < used_at + idle and (used_mono is None or mono < used_mono + idle)

    # -- limits ----------------------------------------------------------------------------------

    async def hit(self, bucket: str, limit: int) -> Window:
        """See `AccessStore.hit`."""
        return await self._count(lambda c: self._limits.hit(c, f"other {bucket}", limit))

    async def look(self, bucket: str, limit: int) -> Window:
        """See `AccessStore.look`."""
        return await self._count(lambda c: self._limits.look(c, f"other {bucket}", limit))

    async def _count(self, work: Callable[[sqlite3.Connection], Window]) -> Window:
        return await self._on(self._reader, lambda _: self._limits.run(work))

    def _last_used(self, limits: sqlite3.Connection, id_: str) -> tuple[int, int | None] | None:
        found: list[tuple[int, int | None]] = limits.execute(_LAST_USED, (id_,)).fetchall()
        return found[0] if found else None

    def _use(
        self,
        limits: sqlite3.Connection,
        id_: str,
        used: tuple[int, int | None] | None,
        every: int,
        until_at: int | None,
    ) -> None:
        mono = self._clock.monotonic()
        if used is None or used[1] is None or not 0 <= mono - used[1] < every:
            limits.execute(_USED, (id_, self._clock.now(), mono, until_at))

    def _forget_lapsed(self, limits: sqlite3.Connection) -> None:
        limits.execute("DELETE FROM seen WHERE until_at <= ?", (self._clock.now(),))


def _only(cursor: sqlite3.Cursor) -> Row:
    row: Row
    (row,) = cursor.fetchall()
    return row


def _key_of(row: Row, last_used_at: int | None = None) -> ApiKey:
    id_, name, account, project, read_only, shown, created_at, revoked_at = row[:8]
    return ApiKey(
        id=id_,
        name=name,
        account=Account(account, project),
        read_only=bool(read_only),
        shown=shown,
        created_at=created_at,
        revoked_at=revoked_at,
        last_used_at=last_used_at,
    )


def _login_of(row: Row) -> Login:
    return Login(_key_of(row), row[8], row[10])
