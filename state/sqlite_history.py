"""The store on SQLite: looking back at workflows, and finding ids by how they begin."""

from __future__ import annotations

from collections.abc import Sequence

from .driver import sqlite3
from .history import History, IdKind, StepRun
from .sqlite_base import SqliteBase, one
from .sqlite_lookup import whose, workflow_row
from .sqlite_rows import audit_of, plan_of, workflow_of

_MORE = """
    SELECT w.n, w.session, w.plan, p.id AS project FROM workflow AS w JOIN project AS p ON p.n = w.project
    WHERE w.id = :id"""
_RUNS = """
    SELECT position, attempt, name, started_at, finished_at, exit_code, outcome FROM step_run
    WHERE workflow = ? ORDER BY position, attempt"""
_DECISIONS = """
    SELECT a.*, :id AS workflow_id FROM audit AS a
    WHERE a.session = :session AND a.workflow = :workflow ORDER BY a.n"""

# By number where nothing is known of the id, so that the newest are found without looking at all.
_IDS = {
    "session": """
        SELECT s.id FROM session AS s
        WHERE s.account = :account {within} ORDER BY s.n DESC LIMIT :limit""",
    "workflow": """
        SELECT w.id FROM workflow AS w JOIN session AS s ON s.n = w.session
        WHERE s.account = :account {within} ORDER BY w.n DESC LIMIT :limit""",
}


class HistoryVerbs(SqliteBase):
    """A part of `SessionStore`, whose docstrings are the contract."""

    async def history(self, account: str, workflow_id: str) -> History:
        """See `SessionStore.history`."""

        def look(c: sqlite3.Connection) -> History:
            row = workflow_row(c, account, workflow_id)
            more = one(c, _MORE, id=workflow_id)
            assert more is not None
            which = {"id": workflow_id, "workflow": more["n"], "session": more["session"]}
            return History(
                workflow=workflow_of(row, self._clock),
                project_id=more["project"],
                plan=plan_of(more["plan"]),
                runs=tuple(StepRun(*run) for run in c.execute(_RUNS, (more["n"],)).fetchall()),
                decisions=tuple(
                    audit_of(entry) for entry in c.execute(_DECISIONS, which).fetchall()
                ),
            )

        return await self._read(look)

    async def newest_ids(
        self,
        account: str,
        kind: IdKind,
        *,
        prefix: str = "",
        limit: int = 100,
        session_id: str | None = None,
        project_id: str | None = None,
    ) -> Sequence[str]:
        """See `SessionStore.newest_ids`."""
        table = kind[0]
        within = ""
        if prefix:
            # A range, which an index has; what follows the prefix is a hexadecimal digit or a hyphen.
            within += f" AND {table}.id >= :prefix AND {table}.id < :beyond"
        if session_id is not None:
            within += " AND s.id = :session"
        if project_id is not None:
            within += " AND s.project = (SELECT n FROM project WHERE id = :project)"
        who = whose(account)
        if who["only"] is not None:
            within += " AND s.project = (SELECT n FROM project WHERE id = :only)"
        values = {
            **who,
            "prefix": prefix,
            "beyond": prefix + "\N{DELETE}",
            "session": session_id,
            "project": project_id,
            "limit": limit,
        }
        sql = _IDS[kind].format(within=within)
        rows = await self._read(lambda c: c.execute(sql, values).fetchall())
        return [row["id"] for row in rows]
