"""The store on SQLite: what callers decide about a workflow."""

from __future__ import annotations

from collections.abc import Sequence

from .driver import sqlite3
from .errors import (
    CannotCancel,
    CannotPause,
    CannotResume,
    ConfirmationRequired,
    NothingToConfirm,
)
from .models import Cancelled, DeployState, Note, Session, Stopped, Workflow, iso
from .sqlite_base import Row, one
from .sqlite_lookup import session_row, workflow_row
from .sqlite_rows import SESSION_QUERY, quoted, session_of, stopped_text, workflow_of
from .sqlite_writes import SharedWrites
from .transitions import FINAL, Event, Status, sources

_ALREADY = {
    Status.COMPLETED: "Workflow has already completed",
    Status.FAILED: "Workflow has already failed",
    Status.CANCELLED: "Workflow is already cancelled",
}

_DECIDE = f"""
    UPDATE workflow SET
        status = CASE WHEN status = 'running' THEN 'cancelling' ELSE 'cancelled' END,
        cancel_requested_at = :now, cancel_mono = :mono, cancel_reason = :reason, pause_requested = 0,
        finished_at = CASE WHEN status = 'running' THEN NULL ELSE :now END,
        stopped = CASE WHEN status = 'running' THEN NULL ELSE :stopped END
    WHERE n = :workflow AND status IN ({quoted(sources(Event.CANCEL))})
    RETURNING status, epoch"""


class DecisionVerbs(SharedWrites):
    """A part of `SessionStore`, whose docstrings are the contract."""

    async def cancel(
        self,
        account: str,
        session_id: str,
        reason: str | None,
        by: str,
        key: str | None = None,
    ) -> Cancelled:
        """See `SessionStore.cancel`."""
        return await self._write(
            lambda c: self._cancel(c, account, session_id, reason, by, key), vital=True
        )

    def _cancel(
        self,
        c: sqlite3.Connection,
        account: str,
        session_id: str,
        reason: str | None,
        by: str,
        key: str | None,
    ) -> Cancelled:
        session = session_row(c, account, session_id)
        if key is not None:
            sql = """SELECT w.id FROM idempotency AS i JOIN workflow AS w ON w.n = i.workflow
                     WHERE i.session = :session AND i.key = :key AND i.digest = 'cancel'"""
            before = one(c, sql, session=session["s_n"], key=key)
            if before is not None:
                found = workflow_row(c, account, before["id"])
                return Cancelled(workflow_of(found, self._clock), True)
        joined = self._decide(c, session, reason, by)
        if key is not None:
            c.execute(
                "INSERT INTO idempotency (session, key, digest, workflow) VALUES (?, ?, 'cancel', ?)",
                (session["s_n"], key, session["w_n"]),
            )
        after = session_row(c, account, session_id)
        return Cancelled(_workflow(session_of(after, self._clock)), joined)

    def _decide(self, c: sqlite3.Connection, session: Row, reason: str | None, by: str) -> bool:
        """Cancel the session's workflow; True when somebody has before."""
        receipt = Stopped(True, 0, 0, 0.0, None, DeployState(session["deploy"] or "not_started"))
        decided = one(
            c,
            _DECIDE,
            workflow=session["w_n"],
            now=self._clock.now(),
            mono=self._clock.monotonic(),
            reason=reason,
            stopped=stopped_text(receipt),
        )
        if decided is None:
            if session["status"] == Status.CANCELLING:
                return True
            raise _cannot_cancel(session)
        held = decided["status"] == Status.CANCELLING and decided["epoch"] is not None
        if decided["status"] == Status.CANCELLING and not held:
            # It was let go at a pause and nobody has taken it up again: nothing of it is alive.
            self._finish_cancel(c, session["w_n"], stopped_text(receipt), [])
        self._close_gate(c, session["w_n"], "cancelled", by)
        why = f" Reason: {reason}" if reason else ""
        after = "stopping what runs" if held else "nothing was running"
        note = Note(f"Cancelled by {by} ({after}).{why}", "info")
        self._append(c, session["s_n"], session["w_n"], [note])
        self._touch(c, session["s_n"])
        return False

    async def steps_done(self, account: str, session_id: str) -> Sequence[str]:
        """See `SessionStore.steps_done`."""

        def look(c: sqlite3.Connection) -> list[str]:
            session = session_row(c, account, session_id)
            rows = c.execute(
                """SELECT name FROM step_run WHERE workflow = ? AND outcome = 'succeeded'
                   ORDER BY position""",
                (session["w_n"],),
            )
            return [row["name"] for row in rows.fetchall()]

        return await self._read(look)

    async def request_pause(self, account: str, session_id: str, by: str) -> Workflow:
        """See `SessionStore.request_pause`."""

        def ask(c: sqlite3.Connection) -> Row:
            session = session_row(c, account, session_id)
            asked = one(
                c,
                """UPDATE workflow SET pause_requested = 1
                   WHERE n = :workflow AND status IN ('pending', 'running') RETURNING n""",
                workflow=session["w_n"],
            )
            if asked is None:
                raise CannotPause(
                    _true_state(session, "Only a pending or running workflow can be paused."),
                    current_status=session["status"] or "idle",
                )
            return self._decided(c, session, f"Pause before the next step asked by {by}.")

        return _workflow(session_of(await self._write(ask), self._clock))

    async def resume(self, account: str, session_id: str, by: str) -> Workflow:
        """See `SessionStore.resume`."""

        def go_on(c: sqlite3.Connection) -> Row:
            session = session_row(c, account, session_id)
            if session["g_id"] is not None:
                raise ConfirmationRequired(
                    "The workflow waits for a person's answer; resuming is not approving. Ask the person to run "
                    f"`bilt-mcp confirm {session_id}`, or cancel with bilt_cancel_workflow.",
                    action_id=session["g_id"],
                    step=session["g_step"],
                )
            if not _run_again(c, session["w_n"], Event.RESUME):
                raise CannotResume(
                    _true_state(session, "Only a paused workflow can be resumed."),
                    current_status=session["status"] or "idle",
                )
            return self._decided(c, session, f"Resumed by {by}.")

        return _workflow(session_of(await self._write(go_on), self._clock))

    async def confirm(self, account: str, session_id: str, action_id: str, by: str) -> Workflow:
        """See `SessionStore.confirm`."""

        def yes(c: sqlite3.Connection) -> Row:
            session = self._at_gate(c, account, session_id, action_id)
            self._close_gate(c, session["w_n"], "confirmed", by)
            _run_again(c, session["w_n"], Event.CONFIRM, confirmed=True)
            return self._decided(c, session, f"Step {session['g_step']} confirmed by {by}.")

        return _workflow(session_of(await self._write(yes), self._clock))

    async def decline(self, account: str, session_id: str, action_id: str, by: str) -> Workflow:
        """See `SessionStore.decline`."""

        def no(c: sqlite3.Connection) -> Row:
            session = self._at_gate(c, account, session_id, action_id)
            if self._skips_on_decline(c, session["w_n"]):
                self._close_gate(c, session["w_n"], "skipped", by)
                self._move_to(c, session["w_n"], session["position"] + 1)
                _run_again(c, session["w_n"], Event.SKIP)
                told = f"Step {session['g_step']} declined by {by}; going on without it."
            else:
                self._close_gate(c, session["w_n"], "declined", by)
                receipt = Stopped(
                    True, 0, 0, 0.0, session["g_step"], DeployState(session["deploy"])
                )
                c.execute(
                    f"""UPDATE workflow SET status = 'cancelled', cancel_requested_at = :now, finished_at = :now,
                            cancel_reason = 'declined', stopped = :stopped
                        WHERE n = :workflow AND status IN ({quoted(sources(Event.DECLINE))})""",
                    {
                        "workflow": session["w_n"],
                        "now": self._clock.now(),
                        "stopped": stopped_text(receipt),
                    },
                )
                told = f"Step {session['g_step']} declined by {by}; the workflow is cancelled."
            return self._decided(c, session, told)

        return _workflow(session_of(await self._write(no), self._clock))

    def _at_gate(self, c: sqlite3.Connection, account: str, session_id: str, action_id: str) -> Row:
        session = session_row(c, account, session_id)
        if session["g_id"] != action_id or session["status"] != Status.PAUSED:
            raise NothingToConfirm(
                _true_state(session, "This action is not open: it was answered, or never was."),
                current_status=session["status"] or "idle",
            )
        return session

    def _decided(self, c: sqlite3.Connection, session: Row, told: str) -> Row:
        self._append(c, session["s_n"], session["w_n"], [Note(told, "info")])
        self._touch(c, session["s_n"])
        row = one(c, f"{SESSION_QUERY} s.n = :n", account=session["account"], n=session["s_n"])
        assert row is not None
        return row


def _workflow(session: Session) -> Workflow:
    assert session.workflow is not None
    return session.workflow


def _run_again(
    c: sqlite3.Connection, workflow: int | None, event: Event, *, confirmed: bool = False
) -> bool:
    row = one(
        c,
        f"""UPDATE workflow SET status = 'running', pause_requested = 0,
                confirmed_position = CASE WHEN :confirmed THEN position ELSE confirmed_position END
            WHERE n = :workflow AND status IN ({quoted(sources(event))}) RETURNING n""",
        workflow=workflow,
        confirmed=confirmed,
    )
    return row is not None


def _true_state(session: Row, rule: str) -> str:
    if session["status"] is None:
        return f"{rule} This session has no workflow yet; start one with bilt_send_message."
    return f"{rule} This one is {session['status']}. Look with bilt_get_session."


def _cannot_cancel(session: Row) -> CannotCancel:
    if session["status"] is None:
        return CannotCancel("Session has no workflow to cancel", current_status="idle")
    details = {"workflow_id": session["w_id"]}
    if session["status"] in FINAL:
        details["finished_at"] = iso(session["finished_at"])
    return CannotCancel(
        _ALREADY[Status(session["status"])], current_status=session["status"], **details
    )
