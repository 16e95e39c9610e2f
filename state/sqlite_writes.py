"""What several verbs of the SQLite store write in the same way, inside a transaction of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from .driver import sqlite3
from .models import Caller, Note, Plan
from .sqlite_base import Row, SqliteBase, one
from .sqlite_rows import NEWEST_NOW, NTH, plan_of, plan_text, quoted
from .transitions import Event, sources

NEWEST = f"m.ordinal, m.variant, {NTH} AS nth"
"""What the next message's numbers come from: of `m`, the session's newest message."""
_NEWEST_OF_SESSION = (
    f"SELECT {NEWEST} FROM message AS m WHERE m.session = ? ORDER BY m.id DESC LIMIT 1"
)
_NTH_OF_VARIANT = f"SELECT {NTH} FROM message AS m WHERE m.session = ? AND m.variant = ? ORDER BY m.id DESC LIMIT 1"
# Not in one statement with the numbers that it gets: for that, SQLite fills a table first.
_INSERT = """
    INSERT INTO message (ordinal, nth, session, workflow, step, side, variant, content, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""


class SharedWrites(SqliteBase):
    """Pieces of transactions. None of them begins or ends one."""

    def _new_session(self, c: sqlite3.Connection, account: str, project: int) -> str:
        session_id = str(uuid4())
        c.execute(
            """INSERT INTO session (id, account, project, created_at, updated_at)
               VALUES (:id, :account, :project, :now, :now)""",
            {"id": session_id, "account": account, "project": project, "now": self._clock.now()},
        )
        return session_id

    def _accept(
        self, c: sqlite3.Connection, session: Row, id_: str, message: str, plan: Plan, by: Caller
    ) -> int:
        """A pending workflow with what was asked for, in a session that has none active; its number."""
        row = one(
            c,
            """INSERT INTO workflow (id, session, project, status, message, plan, max_parallel, total_steps, step,
                                     created_at)
               SELECT :id, n, project, 'pending', :message, :plan, :max_parallel, :total, :step, :now
               FROM session WHERE n = :session RETURNING n""",
            id=id_,
            session=session["s_n"],
            message=message,
            plan=plan_text(plan),
            max_parallel=plan.max_parallel,
            total=len(plan.steps),
            step=plan.steps[0].name,
            now=self._clock.now(),
        )
        assert row is not None
        names = ", ".join(step.name for step in plan.steps)
        said = [
            Note(message, variant="info", side="user"),
            Note(f"Workflow accepted from {by}. Steps: {names}", "info"),
        ]
        self._record(c, session, "start", by, workflow=row["n"])
        self._append(c, session["s_n"], row["n"], said)
        self._touch(c, session["s_n"])
        return int(row["n"])

    def _fenced(self, c: sqlite3.Connection, epoch: int) -> bool:
        row = one(c, "SELECT 1 FROM worker WHERE epoch = :epoch", epoch=epoch)
        return row is not None

    def _finish_cancel(
        self, c: sqlite3.Connection, workflow: int, receipt: str, notes: Sequence[Note]
    ) -> bool:
        # How long it took is counted from the decision, whoever killed.
        row = one(
            c,
            f"""UPDATE workflow SET status = 'cancelled', finished_at = :now,
                    stopped = json_set(:receipt, '$.took_ms', max(0, :mono - cancel_mono))
                WHERE n = :n AND status IN ({quoted(sources(Event.STOPPED))}) RETURNING session""",
            n=workflow,
            now=self._clock.now(),
            mono=self._clock.monotonic(),
            receipt=receipt,
        )
        if row is None:
            return False
        self._append(c, row["session"], workflow, notes)
        self._touch(c, row["session"])
        return True

    def _close_steps(self, c: sqlite3.Connection, workflow: int, outcome: str) -> None:
        c.execute(
            f"""UPDATE step_run SET outcome = ?, finished_at = ?, ended_after = {NEWEST_NOW.format(session="w.session")}
                FROM workflow AS w WHERE w.n = ? AND step_run.workflow = w.n AND step_run.outcome IS NULL""",
            (outcome, self._clock.now(), workflow),
        )

    def _close_gate(self, c: sqlite3.Connection, workflow: int, answer: str, by: Caller) -> None:
        c.execute(
            "UPDATE gate SET answer = ?, answered_at = ?, answered_by = ? WHERE workflow = ? AND answer IS NULL",
            (answer, self._clock.now(), str(by), workflow),
        )

    def _record(
        self,
        c: sqlite3.Connection,
        session: Row,
        action: str,
        by: Caller,
        reason: str | None = None,
        workflow: int | None = None,
    ) -> None:
        """A row of the audit, about the session's newest workflow unless another one is named."""
        c.execute(
            """INSERT INTO audit (at, account, action, session, workflow, principal, client, surface, reason)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            (
                self._clock.now(),
                session["account"],
                action,
                session["s_n"],
                workflow or session["w_n"],
                by.principal or session["account"],
                by.client,
                by.surface,
                reason,
            ),
        )

    def _skips_on_decline(self, c: sqlite3.Connection, workflow: int) -> bool:
        row = one(c, "SELECT plan, position FROM workflow WHERE n = :n", n=workflow)
        assert row is not None
        position: int = row["position"]
        return plan_of(row["plan"]).steps[position - 1].on_decline == "skip"

    def _move_to(self, c: sqlite3.Connection, workflow: int, position: int) -> None:
        row = one(c, "SELECT plan FROM workflow WHERE n = :n", n=workflow)
        assert row is not None
        steps = plan_of(row["plan"]).steps
        c.execute(
            "UPDATE workflow SET position = ?, step = ?, step_percent = NULL, step_message = NULL WHERE n = ?",
            (position, steps[position - 1].name if position <= len(steps) else None, workflow),
        )

    def _append(
        self, c: sqlite3.Connection, session: int, workflow: int | None, notes: Sequence[Note]
    ) -> None:
        if notes:
            newest = c.execute(_NEWEST_OF_SESSION, (session,)).fetchall()
            self._append_after(c, newest[0] if newest else None, session, workflow, notes)

    def _append_after(
        self,
        c: sqlite3.Connection,
        newest: Row | None,
        session: int,
        workflow: int | None,
        notes: Sequence[Note],
    ) -> None:
        """Append after the session's newest message: `NEWEST` of it, read in the same transaction."""
        now = self._clock.now()
        last, nths = 0, dict[str, int]()
        if newest is not None and newest["ordinal"] is not None:
            last, nths[newest["variant"]] = newest["ordinal"], newest["nth"]
        rows: list[tuple[object, ...]] = []
        for ordinal, note in enumerate(notes, last + 1):
            variant = note.variant
            if variant not in nths:
                found = c.execute(_NTH_OF_VARIANT, (session, variant)).fetchall()
                nths[variant] = found[0][0] if found else 0
            nths[variant] += 1
            said = (note.step, note.side, variant, note.content)
            rows.append((ordinal, nths[variant], session, workflow, *said, now))
        c.executemany(_INSERT, rows)

    def _touch(self, c: sqlite3.Connection, session: int) -> None:
        # Never backwards, whatever the wall clock does.
        c.execute(
            "UPDATE session SET revision = revision + 1, updated_at = max(updated_at, ?) WHERE n = ?",
            (self._clock.now(), session),
        )

    def _touch_of(self, c: sqlite3.Connection, workflow: int) -> None:
        row = one(c, "SELECT session FROM workflow WHERE n = :n", n=workflow)
        assert row is not None
        self._touch(c, row["session"])
