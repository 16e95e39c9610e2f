"""The store on SQLite: workflows whose steps a caller names, and how any workflow is read as one of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from .clock import Clock
from .driver import sqlite3
from .errors import IdempotencyKeyReused, WorkflowNotFound
from .history import StepRun
from .invocations import MOST_INVOCATIONS, Invocation, InvocationPage, InvocationStatus
from .location import StoreLocation
from .models import Caller, Plan, Started
from .sqlite_base import Row, one
from .sqlite_gates import GateVerbs
from .sqlite_lookup import NO_WORKFLOW, project_row, session_row, whose
from .sqlite_prune import PruneVerbs
from .sqlite_rows import WORKFLOW_COLUMNS, gate_of, named, plan_of, workflow_of
from .transitions import ACTIVE, Status

MOST_SEQUENCES = 10_000
"""Numbers that are remembered."""
_STATE = """
    CASE w.status
        WHEN 'pending' THEN 'queued'
        WHEN 'running' THEN CASE
            WHEN w.position = 1 AND w.confirmed_position IS NULL
             AND NOT EXISTS (SELECT 1 FROM step_run AS r WHERE r.workflow = w.n) THEN 'dispatching'
            ELSE 'running' END
        WHEN 'paused' THEN 'running'
        WHEN 'completed' THEN 'succeeded'
        WHEN 'failed' THEN
            CASE json_extract(w.failure, '$.code') WHEN 'timed_out' THEN 'timed_out' ELSE 'failed' END
        ELSE w.status
    END"""
"""The `InvocationStatus` of workflow `w`."""

_RUNS = """(
    SELECT json_group_array(json_array(position, attempt, name, started_at, finished_at, exit_code, outcome))
    FROM (SELECT * FROM step_run AS r WHERE r.workflow = w.n ORDER BY position, attempt))"""
_INVOCATION = f"""
    SELECT w.n, w.plan, {_STATE} AS state, s.id AS s_id, s.n AS s_n, s.updated_at,
           p.id AS project, p.name AS project_name, {WORKFLOW_COLUMNS},
           g.id AS g_id, g.step AS g_step, g.message AS g_message, g.expires_at AS g_expires_at, {_RUNS} AS runs
    FROM workflow AS w
    JOIN session AS s ON s.n = w.session
    JOIN project AS p ON p.n = w.project
    LEFT JOIN gate AS g ON g.workflow = w.n AND g.answer IS NULL
    WHERE """
_ONE = f"""{_INVOCATION} w.id = :id AND s.account = :account
    AND (:only IS NULL OR p.id = :only)"""
_PAGE = f"""{_INVOCATION} w.session = :session AND w.n < :before
    AND (:any OR {_STATE} IN (SELECT value FROM json_each(:states)))
    ORDER BY w.n DESC LIMIT :limit"""
_UP_TO = "SELECT count(*) FROM workflow WHERE session = :session AND n <= :n"
_FROM_TO = "SELECT n FROM workflow WHERE session = ? AND n BETWEEN ? AND ? ORDER BY n DESC"


class InvocationVerbs(GateVerbs, PruneVerbs):
    """A part of `SessionStore`, whose docstrings are the contract."""

    def __init__(self, location: StoreLocation, clock: Clock | None = None) -> None:
        super().__init__(location, clock)
        self._sequences: dict[int, int] = {}

    async def first_invocation(
        self, account: str, project_id: str, key: str, digest: str
    ) -> Started | None:
        """See `InvocationStore.first_invocation`."""
        return await self._read(
            lambda c: _replay(c, project_row(c, account, project_id), key, digest)
        )

    async def invoke(
        self,
        account: str,
        project_id: str,
        message: str,
        plan: Plan,
        *,
        workflow_id: str,
        key: str | None = None,
        digest: str = "",
        by: Caller,
    ) -> Started:
        """See `InvocationStore.invoke`."""
        settings = self.settings()

        def accept(c: sqlite3.Connection) -> Started:
            project = project_row(c, account, project_id)
            if key is not None and (first := _replay(c, project, key, digest)) is not None:
                return first
            session = self._free_session(c, account, project)
            workflow = self._accept(c, session, workflow_id, message, plan, by)
            if key is not None:
                c.execute(
                    """INSERT INTO invocation_key (project, key, digest, workflow) VALUES (?, ?, ?, ?)
                       ON CONFLICT DO UPDATE SET digest = excluded.digest, workflow = excluded.workflow""",
                    (project["n"], key, digest, workflow),
                )
            self._refuse_when_full(c, settings)
            return Started(session["s_id"], workflow_id, Status.PENDING)

        return await self._write(accept)

    def _free_session(self, c: sqlite3.Connection, account: str, project: Row) -> Row:
        newest = one(
            c,
            """SELECT id FROM session
               WHERE n = (SELECT max(n) FROM session WHERE project = :project) AND account = :account""",
            project=project["n"],
            account=project["account"],
        )
        if newest is not None:
            session = session_row(c, account, newest["id"])
            if session["status"] not in ACTIVE:
                return session
        return session_row(c, account, self._new_session(c, project["account"], project["n"]))

    async def invocation(self, account: str, workflow_id: str) -> Invocation:
        """See `InvocationStore.invocation`."""

        def look(c: sqlite3.Connection) -> Invocation:
            row = one(c, _ONE, **whose(account), id=workflow_id)
            if row is None:
                raise WorkflowNotFound(NO_WORKFLOW)
            return self._invocations_of(c, [row])[0]

        found = await self._read(look)
        if await self._expired(account, found):
            found = await self._read(look)
        return found

    async def invocations(
        self,
        account: str,
        session_id: str,
        *,
        statuses: Collection[InvocationStatus] = (),
        after: str | None = None,
        limit: int = 50,
    ) -> InvocationPage:
        """See `InvocationStore.invocations`."""
        most = max(1, min(limit, MOST_INVOCATIONS))

        def look(c: sqlite3.Connection) -> InvocationPage:
            session = session_row(c, account, session_id)["s_n"]
            values = {
                "session": session,
                "before": 1 << 62 if after is None else _number_of(c, session, after),
                "any": not statuses,
                "states": json.dumps(list(statuses)),
                "limit": most + 1,
            }
            rows = c.execute(_PAGE, values).fetchall()
            return InvocationPage(self._invocations_of(c, rows[:most]), len(rows) > most)

        page = await self._read(look)
        for found in page.invocations:
            if await self._expired(account, found):
                return await self._read(look)
        return page

    async def _expired(self, account: str, found: Invocation) -> bool:
        """Whether its gate was not answered in time: then it is declined now."""
        gate = found.pending_action
        if gate is None or gate.expires_at is None or gate.expires_at > self._clock.now():
            return False
        await self.session(account, found.workflow.session_id)
        return True

    def _invocations_of(self, c: sqlite3.Connection, rows: Sequence[Row]) -> Sequence[Invocation]:
        """Rows of `_INVOCATION` of one session, newest first."""
        sequences = self._sequences_of(c, rows)
        return [_invocation_of(row, self._clock, sequences[row["n"]]) for row in rows]

    def _sequences_of(self, c: sqlite3.Connection, rows: Sequence[Row]) -> Mapping[int, int]:
        """The numbers of these in their session, by their numbers in the store; counted once, they stay."""
        if not all(row["n"] in self._sequences for row in rows):
            if len(self._sequences) > MOST_SEQUENCES:
                self._sequences.clear()
            session, numbers = rows[0]["s_n"], [row["n"] for row in rows]
            newest = one(c, _UP_TO, session=session, n=numbers[0])
            assert newest is not None
            between = c.execute(_FROM_TO, (session, numbers[-1], numbers[0])).fetchall()
            self._sequences.update((n, newest[0] - behind) for behind, (n,) in enumerate(between))
        return self._sequences


def _invocation_of(row: Row, clock: Clock, sequence: int) -> Invocation:
    found = named(row)
    plan = plan_of(found["plan"])
    gate = None
    if found["g_id"] is not None:
        position: int = found["position"]
        planned = plan.steps[position - 1]
        gate = gate_of(found, planned.deploy, planned.on_decline)
    return Invocation(
        workflow=workflow_of(found, clock),
        status=InvocationStatus(found["state"]),
        project_id=found["project"],
        project_name=found["project_name"],
        sequence=sequence,
        plan=plan,
        runs=[StepRun(*run) for run in json.loads(found["runs"])],
        pending_action=gate,
        updated_at=found["updated_at"],
    )


def _number_of(c: sqlite3.Connection, session: int, workflow_id: str) -> int:
    row = one(
        c,
        "SELECT n FROM workflow WHERE id = :id AND session = :session",
        id=workflow_id,
        session=session,
    )
    if row is None:
        raise WorkflowNotFound(
            "No invocation of this run has this id. Read the list from its beginning."
        )
    return int(row["n"])


def _replay(c: sqlite3.Connection, project: Row, key: str, digest: str) -> Started | None:
    row = one(
        c,
        """SELECT k.digest, w.id, s.id AS session_id FROM invocation_key AS k
           JOIN workflow AS w ON w.n = k.workflow JOIN session AS s ON s.n = w.session
           WHERE k.project = :project AND k.key = :key AND s.account = :account""",
        project=project["n"],
        account=project["account"],  # what is hidden, to be deleted, has another one
        key=key,
    )
    if row is None:
        return None
    if row["digest"] != digest:
        raise IdempotencyKeyReused(
            "This idempotencyKey came before with another request in this project. Nothing was started. Use a new "
            "key for a new request.",
            workflow_id=row["id"],
        )
    return Started(row["session_id"], row["id"], Status.PENDING)
