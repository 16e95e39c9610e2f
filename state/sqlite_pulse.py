"""The store on SQLite: whether it works now, for who watches over a server."""

from __future__ import annotations

from collections.abc import Mapping

from .driver import sqlite3
from .errors import StoreFull
from .reserve import is_full
from .sqlite_base import SqliteBase
from .sqlite_rows import NOT_FINAL
from .transitions import Status


class PulseVerbs(SqliteBase):
    """What no caller needs, but who watches."""

    async def pulse(self) -> Mapping[Status, int]:
        """How many workflows of all accounts are active, by status. Raises `StoreUnavailable` if it cannot be written.

        It takes the turn of writing and begins a transaction, but writes nothing. It reads an index of only these.
        """
        if is_full(self.location.folder):
            raise StoreFull(f"Hardly anything can be written to {self.location.folder}. Make room.")
        sql = f"SELECT status, count(*) AS many FROM workflow WHERE {NOT_FINAL} GROUP BY status"

        def count(c: sqlite3.Connection) -> dict[Status, int]:
            return {Status(row["status"]): row["many"] for row in c.execute(sql)}

        return await self._write(count)
