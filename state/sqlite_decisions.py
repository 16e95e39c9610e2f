"""The store on SQLite: what callers decide about a workflow."""

from __future__ import annotations

from collections.abc import Sequence

from .clock import iso
from .driver import sqlite3
from .errors import (
    CannotCancel,
    CannotPause,
    CannotResume,
    ConfirmationRequired,
)
from .models import Caller, Cancelled, DeployState, Note, Session, Stopped, Workflow
from .sqlite_base import Row, one
from .sqlite_lookup import session_row, whose, workflow_row
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
        by: Caller,
        key: str | None = None,
        *,
        workflow_id: str | None = None,
    ) -> Cancelled:
        """See `SessionStore.cancel`."""
        return await self._write(
            lambda c: self._cancel(c, account, session_id, reason, by, key, workflow_id),
            vital=True,
        )

    def _cancel(
        self,
        c: sqlite3.Connection,
        account: str,
        session_id: str,
        reason: str | None,
        by: Caller,
        key: str | None,
        workflow_id: str | None,
    ) -> Cancelled:
        session = session_row(c, account, session_id)
        if workflow_id not in (None, session["w_id"]):
            # Another one has been started since, so this one is final.
            raise _cannot_cancel(workflow_row(c, account, workflow_id))
        before = decided_before(c, session, key, "cancel")
        if before is not None:
            return Cancelled(workflow_of(before, self._clock), True)
        joined = self._decide(c, session, reason, by)
        keep_key(c, session, key, "cancel")
        after = session_row(c, account, session_id)
        return Cancelled(newest_of(session_of(after, self._clock)), joined)

    def _decide(self, c: sqlite3.Connection, session: Row, reason: str | None, by: Caller) -> bool:
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
        after = "stopping what runs" if held else "nothing was running"
        note = Note(f"Cancelled by {by} ({after}).{because(reason)}", "info")
        self._record(c, session, "cancel", by, reason)
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

    async def request_pause(
        self,
        account: str,
        session_id: str,
        by: Caller,
        reason: str | None = None,
        key: str | None = None,
    ) -> Workflow:
        """See `SessionStore.request_pause`."""

        def ask(c: sqlite3.Connection) -> Row:
            session = session_row(c, account, session_id)
            before = decided_before(c, session, key, "pause")
            if before is not None:
                return before
            asked = one(
                c,
                """UPDATE workflow SET pause_requested = 1
                   WHERE n = :workflow AND status IN ('pending', 'running') RETURNING n""",
                workflow=session["w_n"],
            )
            if asked is None:
                raise CannotPause(
                    true_state(session, "Only a pending or running workflow can be paused."),
                    current_status=session["status"] or "idle",
                )
            told = f"Pause before the next step asked by {by}.{because(reason)}"
            self._record(c, session, "pause", by, reason)
            keep_key(c, session, key, "pause")
            return self._decided(c, session, told)

        return workflow_of(await self._write(ask), self._clock)

    async def resume(
        self, account: str, session_id: str, by: Caller, key: str | None = None
    ) -> Workflow:
        """See `SessionStore.resume`."""

        def go_on(c: sqlite3.Connection) -> Row:
            session = session_row(c, account, session_id)
            before = decided_before(c, session, key, "resume")
            if before is not None:
                return before
            if session["g_id"] is not None:
                raise ConfirmationRequired(
                    "The workflow waits for a person's answer; resuming is not approving. Ask the person to run "
                    f"`bilt-mcp confirm {session_id}`, or cancel with bilt_cancel_workflow.",
                    action_id=session["g_id"],
                    step=session["g_step"],
                )
            if not run_again(c, session["w_n"], Event.RESUME):
                raise CannotResume(
                    true_state(session, "Only a paused workflow can be resumed."),
                    current_status=session["status"] or "idle",
                )
            self._record(c, session, "resume", by)
            keep_key(c, session, key, "resume")
            return self._decided(c, session, f"Resumed by {by}.")

        return workflow_of(await self._write(go_on), self._clock)

    def _decided(self, c: sqlite3.Connection, session: Row, told: str) -> Row:
        self._append(c, session["s_n"], session["w_n"], [Note(told, "info")])
        self._touch(c, session["s_n"])
        row = one(c, f"{SESSION_QUERY} s.n = :n", **whose(session["account"]), n=session["s_n"])
        assert row is not None
        return row


def newest_of(session: Session) -> Workflow:
    """The workflow of a session that has one."""
    assert session.workflow is not None
    return session.workflow


def decided_before(c: sqlite3.Connection, session: Row, key: str | None, what: str) -> Row | None:
    """The workflow that the request of this key was about, when it came before and did the same."""
    if key is None:
        return None
    before = one(
        c,
        """SELECT w.id FROM idempotency AS i JOIN workflow AS w ON w.n = i.workflow
           WHERE i.session = :session AND i.key = :key AND i.digest = :what""",
        session=session["s_n"],
        key=key,
        what=what,
    )
    return None if before is None else workflow_row(c, session["account"], before["id"])


def keep_key(c: sqlite3.Connection, session: Row, key: str | None, what: str) -> None:
    """Note what the request of this key did, for `decided_before`."""
    if key is not None:
        c.execute(
            "INSERT INTO idempotency (session, key, digest, workflow) VALUES (?, ?, ?, ?)",
            (session["s_n"], key, what, session["w_n"]),
        )


def run_again(
    c: sqlite3.Connection, workflow: int | None, event: Event, *, confirmed: bool = False
) -> bool:
    """Take a paused workflow back to `running`; False when it was not paused (any more)."""
    row = one(
        c,
        f"""UPDATE workflow SET status = 'running', pause_requested = 0,
                confirmed_position = CASE WHEN :confirmed THEN position ELSE confirmed_position END
            WHERE n = :workflow AND status IN ({quoted(sources(event))}) RETURNING n""",
        workflow=workflow,
        confirmed=confirmed,
    )
    return row is not None


def because(reason: str | None) -> str:
    """The end of an entry of the history."""
    # On one line: a new one would look like an entry of its own.
    return f" Reason: {' '.join(reason.split())}" if reason else ""


def true_state(session: Row, rule: str) -> str:
    """Why a verb was refused, for the agent: the rule, and what holds."""
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
