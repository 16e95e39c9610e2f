"""The store on SQLite: what it may keep, and how sessions that are old enough go."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence

import anyio.to_thread

from .driver import sqlite3
from .errors import StoreFull
from .group_commit import write_alone
from .settings import StoreSettings, read_settings
from .sqlite_base import one
from .sqlite_rows import NOT_FINAL
from .sqlite_writes import SharedWrites
from .trouble import TROUBLE
from .turn import WriteTurn

MOST_AT_ONCE = 500
"""Messages that one transaction deletes: some ten milliseconds, so that nobody waits long for his turn."""
LEAST_FREE_BYTES = 33_554_432
"""What must be free on the disk to accept a workflow: its output takes some ten megabytes at most."""

_OVER = f"""account <> '' AND updated_at < :before
    AND EXISTS (SELECT 1 FROM workflow WHERE session = session.n)
    AND NOT EXISTS (
        SELECT 1 FROM workflow
        WHERE session = session.n AND {NOT_FINAL})"""

_HIDDEN = "updated_at = -1 AND account = ''"


class PruneVerbs(SharedWrites):
    """A part of `SessionStore`, whose docstrings are the contract."""

    def settings(self) -> StoreSettings:
        """See `SessionStore.settings`."""
        return read_settings(self.location.settings)

    def _refuse_when_full(self, c: sqlite3.Connection, settings: StoreSettings) -> None:
        row = one(
            c,
            """SELECT (SELECT bytes FROM kept_total) + page_size * (page_count - freelist_count) AS bytes
               FROM pragma_page_size, pragma_page_count, pragma_freelist_count""",
        )
        assert row is not None
        held, most = int(row["bytes"]), settings.max_bytes
        if held >= most:
            raise StoreFull(
                f"Nothing was started: the store {self.location.database} holds {held // 1_000_000} MB, and "
                f"{most // 1_000_000} MB is its limit. Set keep_days (old sessions are then deleted) or a higher "
                f"max_megabytes in {self.location.settings}, then send the message again.",
                used_bytes=held,
                limit_bytes=most,
            )
        free = shutil.disk_usage(self.location.folder).free
        if free < LEAST_FREE_BYTES:
            raise StoreFull(
                f"Nothing was started: the disk that holds the store {self.location.database} has only "
                f"{free // 1_000_000} MB free, and {LEAST_FREE_BYTES // 1_000_000} MB are needed to keep what a "
                "workflow prints. Make room, then send the message again.",
                free_bytes=free,
            )

    async def keep_files(self, workflow_id: str, size: int) -> None:
        """See `SessionStore.keep_files`."""
        sql = """INSERT INTO kept_files (workflow, bytes) VALUES (:id, :bytes)
                 ON CONFLICT (workflow) DO UPDATE SET bytes = excluded.bytes WHERE bytes <> excluded.bytes"""
        await self._write(lambda c: one(c, sql, id=workflow_id, bytes=size))

    async def hide_old(self, epoch: int, before: int) -> int:
        """See `SessionStore.hide_old`."""
        found = await self._read(
            lambda c: one(c, f"SELECT 1 FROM session WHERE {_OVER} LIMIT 1", before=before)
        )
        if found is None:
            return 0  # spares the writers a lock

        def hide(c: sqlite3.Connection) -> int:
            if not self._fenced(c, epoch):
                return 0
            # Every look at a session names its account, so it is gone for all at once; its rows go in pieces.
            hidden = c.execute(
                f"""UPDATE session SET account = '', updated_at = -1 WHERE n IN (
                        SELECT n FROM session WHERE {_OVER} LIMIT {MOST_AT_ONCE}) RETURNING n""",
                {"before": before},
            )
            return len(hidden.fetchall())

        return await self._write(hide)

    async def delete_hidden(self, epoch: int) -> bool:
        """See `SessionStore.delete_hidden`."""
        hidden = await self._read(
            lambda c: one(c, f"SELECT 1 FROM session WHERE {_HIDDEN} LIMIT 1")
        )
        if hidden is None:
            return False
        # A statement on a connection cannot be given up half-way; the caller waits for this little one.
        deleted = await anyio.to_thread.run_sync(self._delete_piece, epoch)
        self.nudge()
        return deleted

    def _delete_piece(self, epoch: int) -> bool:
        # Without the look for rows that refer to a deleted one: for that, SQLite would read every message.
        try:
            turn = contextlib.closing(
                WriteTurn(self.location.turn)
            )  # another thread than the writer's
            with contextlib.closing(self._connect_without_references()) as connection, turn as mine:
                return write_alone(mine, connection, lambda c: self._delete_some(c, epoch))
        except TROUBLE as error:
            raise self._unavailable(error) from error

    def _delete_some(self, c: sqlite3.Connection, epoch: int) -> bool:
        row = one(c, f"SELECT n FROM session WHERE {_HIDDEN} ORDER BY n LIMIT 1")
        if row is None or not self._fenced(c, epoch):
            return False
        session = row["n"]
        gone = c.execute(
            """DELETE FROM message WHERE id IN (SELECT id FROM message WHERE session = ? ORDER BY id LIMIT ?)""",
            (session, MOST_AT_ONCE),
        )
        if gone.rowcount == MOST_AT_ONCE:
            return True
        of_it = "SELECT n FROM workflow WHERE session = ?"
        c.execute(
            """INSERT INTO kept_files (workflow, bytes, pruned) SELECT id, 0, 1 FROM workflow WHERE session = ?
               ON CONFLICT (workflow) DO UPDATE SET pruned = 1""",
            (session,),
        )
        c.execute("DELETE FROM idempotency WHERE session = ?", (session,))
        c.execute("DELETE FROM audit WHERE session = ?", (session,))
        c.execute(f"DELETE FROM gate WHERE workflow IN ({of_it})", (session,))
        c.execute(f"DELETE FROM step_run WHERE workflow IN ({of_it})", (session,))
        c.execute(f"DELETE FROM invocation_key WHERE workflow IN ({of_it})", (session,))
        c.execute("DELETE FROM workflow WHERE session = ?", (session,))
        c.execute("DELETE FROM session WHERE n = ?", (session,))
        return True

    async def pruned(self) -> Sequence[str]:
        """See `SessionStore.pruned`."""
        sql = f"SELECT workflow FROM kept_files WHERE pruned = 1 LIMIT {MOST_AT_ONCE}"
        rows = await self._read(lambda c: c.execute(sql).fetchall())
        return [row["workflow"] for row in rows]

    async def files_gone(self, workflow_ids: Sequence[str]) -> None:
        """See `SessionStore.files_gone`."""
        sql = "DELETE FROM kept_files WHERE workflow = ? AND pruned = 1"
        await self._write(lambda c: c.executemany(sql, [(id_,) for id_ in workflow_ids]) and None)
