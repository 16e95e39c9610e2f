"""The store on SQLite: what happened in a workflow, in one order.

Each attempt and each gate is kept with the id of the session's newest message when it came about. All are written in
transactions one after the other, so what is read later stands behind everything that could be read before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .driver import sqlite3
from .history import StepRun
from .models import Session, Workflow
from .sqlite_base import Row, one
from .sqlite_gates import GateVerbs
from .sqlite_lookup import project_row, session_row, whose, workflow_row
from .sqlite_rows import (
    NEWEST_MESSAGE,
    SESSION_QUERY,
    message_of,
    session_of,
    workflow_of,
)
from .timeline import (
    AskedGate,
    Happening,
    Over,
    Place,
    StepBegan,
    StepEnded,
    Timeline,
)

_BEHIND_ALL = 1_000_000
"""In place of a position: no workflow has that many steps."""
_BEGAN, _ENDED = 1, 2
_OVER = 9

_NEWEST_USED = f"""{SESSION_QUERY} s.n = (SELECT max(n) FROM session WHERE project = :project)"""
_NEXT = "SELECT n, id FROM workflow WHERE session = :session AND n > :n ORDER BY n LIMIT 1"
_FIRST = "SELECT min(id) AS id FROM message WHERE side = 'user' AND workflow = :n"
_MESSAGES = """
    SELECT m.*, (SELECT id FROM workflow WHERE n = m.workflow) AS workflow_id FROM message AS m
    WHERE m.session = :session AND m.id > :low AND m.id < :high ORDER BY m.id LIMIT :limit"""
_LAST = "SELECT max(id) AS id FROM message WHERE session = :session AND id < :high"
# Where no place was kept, the clock has to say it; at least its first message is before it.
_BY_CLOCK = """coalesce({kept}, (
    SELECT max(m.id) FROM message AS m
    WHERE m.session = :session AND m.id >= :first AND m.id < :high AND m.created_at <= {at}), :first)"""
_RUNS = f"""
    SELECT position, attempt, name, started_at, finished_at, exit_code, outcome,
           {_BY_CLOCK.format(kept="began_after", at="started_at")} AS began,
           {_BY_CLOCK.format(kept="ended_after", at="finished_at")} AS ended
    FROM step_run WHERE workflow = :n ORDER BY position, attempt"""
_GATES = f"""
    SELECT id, position, step, message, created_at, expires_at, answer,
           {_BY_CLOCK.format(kept="asked_after", at="gate.created_at")} AS asked
    FROM gate WHERE workflow = :n ORDER BY created_at"""
_END = 2**63 - 1


@dataclass(frozen=True)
class _Stretch:
    """A workflow and its messages: ids from `first`, below `high`."""

    session: int
    n: int
    first: int
    high: int


class TimelineVerbs(GateVerbs):
    """A part of `SessionStore`, whose docstrings are the contract."""

    async def new_session(self, account: str, project_id: str) -> Session:
        """See `SessionStore.new_session`."""

        def make(c: sqlite3.Connection) -> Row:
            project = project_row(c, account, project_id)["n"]
            newest = one(c, _NEWEST_USED, **whose(account), project=project)
            if newest is None or newest["w_id"] is not None:
                self._new_session(c, account, project)
                newest = one(c, _NEWEST_USED, **whose(account), project=project)
            assert newest is not None
            return newest

        return session_of(await self._write(make), self._clock)

    async def timeline(
        self, account: str, session_id: str, after: Place | None = None, limit: int = 500
    ) -> Timeline | None:
        """See `SessionStore.timeline`."""

        def look(c: sqlite3.Connection) -> Timeline | None:
            row = session_row(c, account, session_id)
            late.append(self._is_late(row))
            session = session_of(row, self._clock)
            newest = one(c, NEWEST_MESSAGE, session=row["s_n"])
            pulse = session.revision + (0 if newest is None else newest["id"])
            at = row["w_n"]
            if after is not None:
                said = "SELECT workflow FROM message WHERE id = :id AND session = :session"
                there = one(c, said, id=after.message, session=row["s_n"])
                if there is None:
                    return None
                at = there["workflow"]
            if at is None:
                return Timeline(session, None, (), False, pulse)
            low = after or Place(0)
            workflow, happenings, has_more = self._piece(c, account, row["s_n"], at, low, limit)
            following = one(c, _NEXT, session=row["s_n"], n=at)
            if not happenings and workflow.final and following is not None:
                n = following["n"]
                workflow, happenings, has_more = self._piece(c, account, row["s_n"], n, low, limit)
            return Timeline(session, workflow, tuple(happenings), has_more, pulse)

        late: list[bool] = []
        found = await self._read(look)
        if late[0]:
            # A gate whose time is up is answered by whoever looks.
            await self.session(account, session_id)
            found = await self._read(look)
        return found

    def _piece(
        self, c: sqlite3.Connection, account: str, session: int, n: int, after: Place, limit: int
    ) -> tuple[Workflow, Sequence[Happening], bool]:
        found = one(c, "SELECT id FROM workflow WHERE n = :n", n=n)
        assert found is not None
        workflow = workflow_of(workflow_row(c, account, found["id"]), self._clock)
        stretch = _stretch(c, session, n)
        low = max(after.message, stretch.first - 1)
        values = {"session": session, "low": low, "high": stretch.high, "limit": limit + 1}
        rows = c.execute(_MESSAGES, values).fetchall()
        has_more = len(rows) > limit
        rows = rows[:limit]
        upto = rows[-1]["id"] if has_more else _END
        happenings = [Happening(Place(r["id"]), r["created_at"], message_of(r)) for r in rows]
        happenings += [
            mark for mark in _marks(c, stretch) if mark.place > after and mark.place.message <= upto
        ]
        if workflow.final and not has_more:
            last = one(c, _LAST, session=session, high=stretch.high)
            assert last is not None
            assert workflow.finished_at is not None
            end = Happening(
                Place(last["id"], _BEHIND_ALL, 0, _OVER), workflow.finished_at, Over(workflow)
            )
            happenings += [end] if end.place > after else []
        return workflow, sorted(happenings, key=lambda happening: happening.place), has_more


def _stretch(c: sqlite3.Connection, session: int, n: int) -> _Stretch:
    first = one(c, _FIRST, n=n)
    assert first is not None
    following = one(c, _NEXT, session=session, n=n)
    high = _END
    if following is not None:
        begins = one(c, _FIRST, n=following["n"])
        assert begins is not None
        high = begins["id"]
    return _Stretch(session, n, first["id"], high)


def _marks(c: sqlite3.Connection, stretch: _Stretch) -> Iterator[Happening]:
    """What happened between the messages."""
    values = vars(stretch)
    for row in c.execute(_RUNS, values).fetchall():
        run = StepRun(*tuple(row)[:7])
        place = (run.position, run.attempt)
        yield Happening(Place(row["began"], *place, _BEGAN), run.started_at, StepBegan(run))
        if run.finished_at is not None:
            yield Happening(Place(row["ended"], *place, _ENDED), run.finished_at, StepEnded(run))
    for row in c.execute(_GATES, values).fetchall():
        gate = AskedGate(*tuple(row)[:7])
        yield Happening(Place(row["asked"], gate.position), gate.created_at, gate)
