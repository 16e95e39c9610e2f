"""The store on SQLite: what a worker does. Every statement is fenced by the epoch it claimed under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

from .clock import boot_id
from .driver import sqlite3
from .models import (
    Claim,
    DeployState,
    Failure,
    LostStep,
    LostWorkflow,
    Note,
    ProcessRecord,
    StepTicket,
    Stopped,
)
from .reserve import keep_reserve
from .sqlite_base import Row, one
from .sqlite_claim import CLAIM, CLAIMED, WAITS
from .sqlite_endings import CURRENT, HELD, EndingVerbs
from .sqlite_rows import (
    DEPLOY_STATE,
    NEWEST_NOW,
    NOT_FINAL,
    failure_text,
    plan_of,
    process_of,
    quoted,
    stopped_text,
)
from .sqlite_writes import NEWEST
from .transitions import Event, Status, sources

_NEEDED = (
    f"SELECT 1 FROM workflow WHERE {NOT_FINAL} AND status IN ('pending', 'running', 'cancelling')"
)
_SPEAKS = f"{HELD} AND status IN ('running', 'cancelling')"
_HEARD = f"""
    SELECT w.n, w.session, {NEWEST} FROM (SELECT n, session FROM workflow WHERE {_SPEAKS}) AS w
    LEFT JOIN message AS m
        ON m.id = (SELECT id FROM message WHERE session = w.session ORDER BY id DESC LIMIT 1)"""

_NEWEST_OF = NEWEST_NOW.format(session="(SELECT session FROM workflow WHERE n = step_run.workflow)")


class WorkerVerbs(EndingVerbs):
    """The worker's half of `SessionStore`, whose docstrings are the contract."""

    # -- the worker itself -----------------------------------------------------------------------

    async def take_over(self, worker: ProcessRecord, version: str) -> int:
        """See `SessionStore.take_over`."""

        def take(c: sqlite3.Connection) -> int:
            row = one(
                c,
                """UPDATE worker SET epoch = epoch + 1, leaving = 0, boot_id = :boot, pid = :pid,
                       start_ticks = :ticks, version = :version, started_at = :now RETURNING epoch""",
                boot=worker.boot_id,
                pid=worker.pid,
                ticks=worker.start_ticks,
                version=version,
                now=self._clock.now(),
            )
            assert row is not None
            return int(row["epoch"])

        epoch = await self._write(take)
        keep_reserve(self.location.reserve)
        return epoch

    async def leave(self, epoch: int) -> bool:
        """See `SessionStore.leave`."""
        sql = f"UPDATE worker SET leaving = 1 WHERE epoch = :epoch AND NOT EXISTS ({_NEEDED}) RETURNING 1"
        row = await self._write(lambda c: one(c, sql, epoch=epoch))
        return row is not None

    async def worker_leaving(self) -> bool:
        """See `SessionStore.worker_leaving`."""
        row = await self._read(lambda c: one(c, "SELECT leaving FROM worker"))
        return row is None or bool(row["leaving"])

    async def waiting_for_worker(self) -> bool:
        """See `SessionStore.waiting_for_worker`."""
        row = await self._read(lambda c: one(c, f"{_NEEDED} LIMIT 1"))
        return row is not None

    # -- what dead workers left ------------------------------------------------------------------

    async def lost(self, epoch: int) -> Sequence[LostWorkflow]:
        """See `SessionStore.lost`."""

        def look(c: sqlite3.Connection) -> list[LostWorkflow]:
            rows = c.execute(
                f"""SELECT w.n, w.id, s.id AS session_id, w.status, w.step
                   FROM workflow AS w JOIN session AS s ON s.n = w.session
                   WHERE w.{NOT_FINAL} AND w.status IN ('running', 'cancelling') AND w.epoch < :epoch
                   ORDER BY w.n""",
                {"epoch": epoch},
            ).fetchall()
            return [_lost_workflow(c, row) for row in rows]

        return await self._read(look)

    async def report_lost(
        self, epoch: int, workflow_id: str, failure: Failure, stopped: Stopped
    ) -> bool:
        """See `SessionStore.report_lost`."""

        def close(c: sqlite3.Connection) -> bool:
            row = one(
                c,
                f"""SELECT w.n, w.status, {DEPLOY_STATE} AS deploy FROM workflow AS w
                    WHERE w.id = :id AND w.epoch < :epoch""",
                id=workflow_id,
                epoch=epoch,
            )
            if row is None or not self._fenced(c, epoch):
                return False
            receipt = stopped_text(replace(stopped, deploy=DeployState(row["deploy"])))
            self._close_steps(c, row["n"], "lost")
            if row["status"] == Status.CANCELLING:
                return self._finish_cancel(c, row["n"], receipt, [])
            ended = one(
                c,
                f"""UPDATE workflow SET status = 'failed', finished_at = :now, failure = :failure
                    WHERE n = :n AND status IN ({quoted(sources(Event.FAIL))}) RETURNING session""",
                n=row["n"],
                now=self._clock.now(),
                failure=failure_text(failure),
            )
            if ended is None:
                return False
            note = Note(failure.message, "error", failure.step)
            self._append(c, ended["session"], row["n"], [note])
            self._touch(c, ended["session"])
            return True

        return await self._write(close, vital=True)

    # -- claiming and running --------------------------------------------------------------------

    async def claim(self, epoch: int) -> Claim | None:
        """See `SessionStore.claim`."""

        def take(c: sqlite3.Connection) -> Claim | None:
            taken = one(
                c,
                CLAIM,
                epoch=epoch,
                now=self._clock.now(),
                mono=self._clock.monotonic(),
                boot=boot_id(),
            )
            if taken is None:
                return None
            row = one(c, CLAIMED, n=taken["n"])
            assert row is not None
            self._touch_of(c, taken["n"])
            return Claim(
                workflow_id=row["id"],
                account=row["account"],
                session_id=row["session_id"],
                project_id=row["project_id"],
                project_root=row["root"],
                message=row["message"],
                plan=plan_of(row["plan"]),
                position=row["position"],
                epoch=epoch,
                confirmed=row["confirmed_position"] == row["position"],
            )

        if await self._read(lambda c: one(c, WAITS)) is None:
            return None  # spares the writers a lock at every look
        return await self._write(take)

    async def cancelling(self, epoch: int) -> Sequence[str]:
        """See `SessionStore.cancelling`."""
        sql = f"SELECT id FROM workflow WHERE {NOT_FINAL} AND status = 'cancelling' AND epoch = :epoch"
        rows = await self._read(lambda c: c.execute(sql, {"epoch": epoch}).fetchall())
        return [row["id"] for row in rows]

    async def workflow_status(self, workflow_id: str) -> Status | None:
        """See `SessionStore.workflow_status`."""
        sql = "SELECT status FROM workflow WHERE id = :id"
        row = await self._read(lambda c: one(c, sql, id=workflow_id))
        return None if row is None else Status(row["status"])

    async def begin_step(
        self, claim: Claim, attempt: int, keeper: ProcessRecord
    ) -> StepTicket | None:
        """See `SessionStore.begin_step`."""
        step = claim.plan.steps[claim.position - 1]

        def begin(c: sqlite3.Connection) -> StepTicket | None:
            row = one(
                c,
                f"""INSERT INTO step_run (workflow, position, attempt, name, deploy, epoch, started_at,
                                          boot_id, keeper_pid, keeper_ticks, began_after)
                    SELECT n, position, :attempt, :name, :deploy, epoch, :now, :boot, :pid, :ticks,
                           {NEWEST_NOW.format(session="workflow.session")} FROM workflow
                    WHERE {HELD} AND status = 'running' AND position = :position
                    RETURNING workflow""",
                id=claim.workflow_id,
                epoch=claim.epoch,
                position=claim.position,
                attempt=attempt,
                name=step.name,
                deploy=int(step.deploy),
                now=self._clock.now(),
                boot=keeper.boot_id,
                pid=keeper.pid,
                ticks=keeper.start_ticks,
            )
            if row is None:
                return None
            c.execute(
                """UPDATE workflow SET step_percent = NULL, step_message = NULL, output_mono = :mono
                   WHERE n = :n AND status = 'running'""",
                {"n": row["workflow"], "mono": self._clock.monotonic()},
            )
            self._touch_of(c, row["workflow"])
            return StepTicket(claim.workflow_id, claim.position, attempt, claim.epoch)

        return await self._write(begin)

    async def step_started(self, ticket: StepTicket, leader: ProcessRecord) -> None:
        """See `SessionStore.step_started`."""
        await self._write(
            lambda c: _update_step(
                c,
                ticket,
                "leader_pid = :pid, leader_ticks = :ticks",
                pid=leader.pid,
                ticks=leader.start_ticks,
            )
        )

    async def step_ended(
        self, ticket: StepTicket, outcome: str, exit_code: int | None, notes: Sequence[Note] = ()
    ) -> None:
        """See `SessionStore.step_ended`."""

        def end(c: sqlite3.Connection) -> None:
            if notes:
                held = one(c, _HEARD, id=ticket.workflow_id, epoch=ticket.epoch)
                if held is not None:
                    self._append_after(c, held, held["session"], held["n"], notes)
            row = _update_step(
                c,
                ticket,
                f"outcome = :outcome, exit_code = :code, finished_at = :now, ended_after = {_NEWEST_OF}",
                outcome=outcome,
                code=exit_code,
                now=self._clock.now(),
            )
            if row is not None and row["deploy"]:
                self._touch_of(c, row["workflow"])  # `session()` tells what became of a deploy

        await self._write(end)

    async def advance(self, claim: Claim, position: int) -> bool:
        """See `SessionStore.advance`."""

        def go(c: sqlite3.Connection) -> bool:
            row = one(
                c,
                f"SELECT n FROM workflow WHERE {HELD} AND status = 'running'",
                id=claim.workflow_id,
                epoch=claim.epoch,
            )
            if row is None:
                return False
            self._move_to(c, row["n"], position)
            self._touch_of(c, row["n"])
            return True

        return await self._write(go)

    async def note(
        self,
        claim: Claim,
        notes: Sequence[Note],
        *,
        percent: int | None = None,
        progress: str | None = None,
        wrote_output: bool = False,
    ) -> None:
        """See `SessionStore.note`."""
        shown = percent is not None or progress is not None

        def say(c: sqlite3.Connection) -> None:
            if not shown and not wrote_output:
                held = one(c, _HEARD, id=claim.workflow_id, epoch=claim.epoch)
                if held is not None:
                    self._append_after(c, held, held["session"], held["n"], notes)
                return
            row = one(
                c,
                f"""UPDATE workflow SET step_percent = coalesce(:percent, step_percent),
                        step_message = coalesce(:progress, step_message),
                        output_mono = CASE WHEN :output THEN :mono ELSE output_mono END
                    WHERE {_SPEAKS} RETURNING n, session""",
                id=claim.workflow_id,
                epoch=claim.epoch,
                percent=percent,
                progress=progress,
                output=wrote_output,
                mono=self._clock.monotonic(),
            )
            if row is None:
                return
            self._append(c, row["session"], row["n"], notes)
            if shown:
                self._touch(c, row["session"])

        await self._write(say)

    async def pause(self, claim: Claim, question: str | None) -> bool:
        """See `SessionStore.pause`."""

        def let_go(c: sqlite3.Connection) -> bool:
            row = one(
                c,
                f"""UPDATE workflow SET status = 'paused', epoch = NULL, pause_requested = 0
                    WHERE {HELD} AND status IN ({quoted(sources(Event.PAUSE))})
                      AND (:question IS NOT NULL OR pause_requested = 1) RETURNING n, session, step""",
                id=claim.workflow_id,
                epoch=claim.epoch,
                question=question,
            )
            if row is None:
                return False
            told = f"Paused before step {row['step']}."
            if question is not None:
                told = f"Waiting for a person before step {row['step']}: {question}"
            self._append(c, row["session"], row["n"], [Note(told, "info", row["step"])])
            if question is not None:
                now, limit = self._clock.now(), claim.plan.steps[claim.position - 1].confirm_timeout
                expires = None if limit is None else now + round(limit * 1000)
                c.execute(
                    f"""INSERT INTO gate (id, workflow, position, step, message, created_at, expires_at, asked_after)
                        VALUES (?, ?, ?, ?, ?, ?, ?, {NEWEST_NOW.format(session="?")})""",
                    (
                        str(uuid4()),
                        row["n"],
                        claim.position,
                        row["step"],
                        question,
                        now,
                        expires,
                        row["session"],
                    ),
                )
            self._touch(c, row["session"])
            return True

        if question is None:
            asked = "SELECT 1 FROM workflow WHERE id = :id AND pause_requested = 1"
            if await self._read(lambda c: one(c, asked, id=claim.workflow_id)) is None:
                return False  # spares the writers a lock before every step
        return await self._write(let_go)


def _lost_workflow(c: sqlite3.Connection, row: Row) -> LostWorkflow:
    runs = c.execute("SELECT * FROM step_run WHERE workflow = ? AND outcome IS NULL", (row["n"],))
    steps = [
        LostStep(
            ticket=StepTicket(row["id"], run["position"], run["attempt"], run["epoch"]),
            keeper=process_of(run["boot_id"], run["keeper_pid"], run["keeper_ticks"]),
            leader=process_of(run["boot_id"], run["leader_pid"], run["leader_ticks"]),
        )
        for run in runs.fetchall()
    ]
    return LostWorkflow(row["id"], row["session_id"], Status(row["status"]), row["step"], steps)


def _update_step(
    c: sqlite3.Connection, ticket: StepTicket, assignments: str, **values: object
) -> Row | None:
    return one(
        c,
        f"""UPDATE step_run SET {assignments}
            WHERE workflow = (SELECT n FROM workflow WHERE id = :id)
              AND position = :position AND attempt = :attempt AND epoch = :epoch AND outcome IS NULL
              AND :epoch = {CURRENT}
            RETURNING workflow, deploy""",
        id=ticket.workflow_id,
        position=ticket.position,
        attempt=ticket.attempt,
        epoch=ticket.epoch,
        **values,
    )
