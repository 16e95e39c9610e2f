"""The store on SQLite: how a gate, a question that only a person may answer, is decided."""

from __future__ import annotations

import contextlib

from .driver import sqlite3
from .errors import NothingToConfirm, StoreUnavailable
from .models import Caller, DeployState, Session, Stopped, Workflow
from .sqlite_base import Row, one
from .sqlite_decisions import (
    DecisionVerbs,
    because,
    decided_before,
    keep_key,
    newest_of,
    run_again,
    true_state,
)
from .sqlite_lookup import session_row
from .sqlite_rows import quoted, session_of, stopped_text, workflow_of
from .transitions import Event, Status, sources

_CLOCK = Caller("nobody", "clock")


class GateVerbs(DecisionVerbs):
    """A part of `SessionStore`, whose docstrings are the contract."""

    async def confirm(self, account: str, session_id: str, action_id: str, by: Caller) -> Workflow:
        """See `SessionStore.confirm`."""

        def yes(c: sqlite3.Connection) -> Row:
            session = self._at_gate(c, account, session_id, action_id)
            self._close_gate(c, session["w_n"], "confirmed", by)
            run_again(c, session["w_n"], Event.CONFIRM, confirmed=True)
            self._record(c, session, "confirm", by)
            return self._decided(c, session, f"Step {session['g_step']} confirmed by {by}.")

        return newest_of(session_of(await self._write(yes), self._clock))

    async def decline(
        self,
        account: str,
        session_id: str,
        action_id: str,
        by: Caller,
        reason: str | None = None,
        key: str | None = None,
    ) -> Workflow:
        """See `SessionStore.decline`."""

        def no(c: sqlite3.Connection) -> Row:
            before = decided_before(c, session_row(c, account, session_id), key, "decline")
            if before is not None:
                return before
            session = self._at_gate(c, account, session_id, action_id)
            self._record(c, session, "decline", by, reason)
            keep_key(c, session, key, "decline")
            told = f"declined by {by}"
            return self._say_no(c, session, by, told, because(reason))

        return workflow_of(await self._write(no), self._clock)

    async def _expire(self, row: Row) -> Row:
        """A row of `SESSION_QUERY` as it is when a gate whose time is up counts as declined."""
        if not self._is_late(row):
            return row

        def late(c: sqlite3.Connection) -> Row:
            session = session_row(c, row["account"], row["s_id"])
            if not self._is_late(session):
                return session
            self._record(c, session, "expire", _CLOCK)
            return self._say_no(c, session, _CLOCK, "was not answered in time")

        with contextlib.suppress(StoreUnavailable):
            return await self._write(late)
        # It is refused all the same, and recorded when the store works again.
        return row

    def _is_late(self, session: Row) -> bool:
        expires = session["g_expires_at"]
        return expires is not None and expires <= self._clock.now()

    def _say_no(
        self, c: sqlite3.Connection, session: Row, by: Caller, why: str, reason: str = ""
    ) -> Row:
        workflow, step = session["w_n"], session["g_step"]
        if self._skips_on_decline(c, workflow):
            self._close_gate(c, workflow, "skipped", by)
            self._move_to(c, workflow, session["position"] + 1)
            run_again(c, workflow, Event.SKIP)
            told = f"Step {step} {why}; going on without it.{reason}"
            return self._decided(c, session, told)
        self._close_gate(c, workflow, "declined", by)
        receipt = Stopped(True, 0, 0, 0.0, step, DeployState(session["deploy"]))
        c.execute(
            f"""UPDATE workflow SET status = 'cancelled', cancel_requested_at = :now, finished_at = :now,
                    cancel_reason = :reason, stopped = :stopped
                WHERE n = :workflow AND status IN ({quoted(sources(Event.DECLINE))})""",
            {
                "workflow": workflow,
                "now": self._clock.now(),
                "reason": "expired" if by is _CLOCK else "declined",
                "stopped": stopped_text(receipt),
            },
        )
        return self._decided(c, session, f"Step {step} {why}; the workflow is cancelled.{reason}")

    def _at_gate(self, c: sqlite3.Connection, account: str, session_id: str, action_id: str) -> Row:
        session = session_row(c, account, session_id)
        if session["g_id"] == action_id and session["status"] == Status.PAUSED:
            if not self._is_late(session):
                return session
            raise NothingToConfirm(
                "This action was not answered in time, which counts as declined. Look with bilt_get_session.",
                current_status=session["status"],
                answer="expired",
            )
        answered = one(
            c,
            """SELECT g.answer, g.answered_by, g.step FROM gate AS g JOIN workflow AS w ON w.n = g.workflow
               WHERE g.id = :id AND w.session = :session AND g.answer IS NOT NULL""",
            id=action_id,
            session=session["s_n"],
        )
        if answered is None:
            raise NothingToConfirm(
                true_state(session, "No such action is open in this session."),
                current_status=session["status"] or "idle",
            )
        raise NothingToConfirm(
            f"Step {answered['step']} was {answered['answer']} by {answered['answered_by']} before. "
            f"The session's workflow is {session['status']}. Look with bilt_get_session.",
            current_status=session["status"],
            answer=answered["answer"],
            answered_by=answered["answered_by"],
        )

    async def session(self, account: str, session_id: str) -> Session:
        """See `SessionStore.session`."""
        row: Row = await self._read(lambda c: session_row(c, account, session_id))
        return session_of(await self._expire(row), self._clock)
