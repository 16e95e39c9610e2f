"""The store on SQLite: sessions, messages and starting.

`sqlite_decisions.py` and `sqlite_gates.py` have what callers decide, `sqlite_projects.py` projects and the audit,
`sqlite_invocations.py` what REST callers ask, `sqlite_worker.py` what a worker does, `sqlite_endings.py` how it ends.
"""

from __future__ import annotations

import hashlib
from uuid import uuid4

from .driver import sqlite3
from .errors import (
    IdempotencyKeyReused,
    WorkflowAlreadyActive,
)
from .models import (
    UNNAMED,
    Caller,
    MessagePage,
    MessageQuery,
    Plan,
    Session,
    Started,
    Workflow,
)
from .sqlite_base import Row, one
from .sqlite_history import HistoryVerbs
from .sqlite_invocations import InvocationVerbs
from .sqlite_lookup import project_row, session_row, whose, workflow_row
from .sqlite_pages import message_page
from .sqlite_projects import ProjectVerbs
from .sqlite_pulse import PulseVerbs
from .sqlite_rows import (
    SESSION_QUERY,
    session_of,
    workflow_of,
)
from .sqlite_timeline import TimelineVerbs
from .sqlite_worker import WorkerVerbs
from .transitions import ACTIVE, Status


class SqliteStore(
    TimelineVerbs, InvocationVerbs, ProjectVerbs, HistoryVerbs, WorkerVerbs, PulseVerbs
):
    """`SessionStore` on one SQLite file. Open it with `async with`."""

    async def latest_session(self, account: str, project_id: str) -> Session:
        """See `SessionStore.latest_session`."""

        def newest(c: sqlite3.Connection) -> Row | None:
            project = project_row(c, account, project_id)
            sql = f"{SESSION_QUERY} s.n = (SELECT max(n) FROM session WHERE project = :project)"
            return one(c, sql, **whose(account), project=project["n"])

        def create(c: sqlite3.Connection) -> Row:
            found = newest(c)
            if found is None:
                self._new_session(c, account, project_row(c, account, project_id)["n"])
                found = newest(c)
            assert found is not None
            return found

        row = await self._read(newest)
        if row is None:
            row = await self._write(create)
        return session_of(await self._expire(row), self._clock)

    async def workflow(self, account: str, workflow_id: str) -> Workflow:
        """See `SessionStore.workflow`."""
        row = await self._read(lambda c: workflow_row(c, account, workflow_id))
        return workflow_of(row, self._clock)

    # -- messages --------------------------------------------------------------------------------

    async def messages(self, account: str, session_id: str, query: MessageQuery) -> MessagePage:
        """See `SessionStore.messages`."""
        return await self._read(lambda c: message_page(c, account, session_id, query))

    # -- starting --------------------------------------------------------------------------------

    async def first_answer(
        self, account: str, session_id: str, message: str, key: str
    ) -> Started | None:
        """See `SessionStore.first_answer`."""

        def look(c: sqlite3.Connection) -> Started | None:
            session = session_row(c, account, session_id)
            return _replay(c, session, message, key)

        return await self._read(look)

    async def start(
        self,
        account: str,
        session_id: str,
        message: str,
        plan: Plan,
        *,
        workflow_id: str | None = None,
        key: str | None = None,
        by: Caller = UNNAMED,
    ) -> Started:
        """See `SessionStore.start`."""
        new_id = workflow_id or str(uuid4())
        settings = self.settings()

        def accept(c: sqlite3.Connection) -> Started:
            started = self._start(c, account, session_id, new_id, message, plan, key, by)
            if started.workflow_id == new_id:
                self._refuse_when_full(c, settings)
            return started

        return await self._write(accept)

    def _start(
        self,
        c: sqlite3.Connection,
        account: str,
        session_id: str,
        workflow_id: str,
        message: str,
        plan: Plan,
        key: str | None,
        by: Caller,
    ) -> Started:
        session = session_row(c, account, session_id)
        if key is not None and (first := _replay(c, session, message, key)) is not None:
            return first
        if session["status"] in ACTIVE:
            raise WorkflowAlreadyActive(
                f"The session's workflow is {session['status']}. Wait for it with bilt_get_session, or stop it with "
                "bilt_cancel_workflow, then send the message again.",
                current_status=session["status"],
                workflow_id=session["w_id"],
            )
        workflow = self._accept(c, session, workflow_id, message, plan, by)
        if key is not None:
            c.execute(
                "INSERT INTO idempotency (session, key, digest, workflow) VALUES (?, ?, ?, ?)",
                (session["s_n"], key, _digest(message), workflow),
            )
        return Started(session_id, workflow_id, Status.PENDING)


def _digest(message: str) -> str:
    return hashlib.sha256(message.encode()).hexdigest()


def _replay(c: sqlite3.Connection, session: Row, message: str, key: str) -> Started | None:
    row = one(
        c,
        """SELECT i.digest, w.id FROM idempotency AS i JOIN workflow AS w ON w.n = i.workflow
           WHERE i.session = :session AND i.key = :key""",
        session=session["s_n"],
        key=key,
    )
    if row is None:
        return None
    if row["digest"] != _digest(message):
        raise IdempotencyKeyReused(
            "This idempotency_key came before with another message in this session. Nothing was started. Use a new "
            "key for a new message.",
            workflow_id=row["id"],
        )
    return Started(session["s_id"], row["id"], Status.PENDING)
