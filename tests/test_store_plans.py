"""What is asked of a store all the time reads no whole table, however much history there is."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bilt_mcp.state import Caller, InvocationStatus, MessageQuery, Note, SqliteStore, StoreLocation

from .store_contract import GONE, ME, PLAN, PROCESS, RECEIPT, Kind, ManualClock, Scene, Subject

pytestmark = pytest.mark.anyio

GROWS = re.compile(
    r"SCAN (?:TABLE )?(project|session|s|workflow|w|o|step_run|r|gate|g|message|m|idempotency|invocation_key|k"
    r"|kept_files)\b"
)
ALWAYS_SMALL = ("workflow_active", "workflow_active_once", "kept_files_pruned")
"""Indexes of what is under way: they are as long as that is much."""

Verb = Callable[[SqliteStore, Subject, int], Awaitable[Any]]

VERBS: dict[str, Verb] = {
    "a session": lambda s, on, _: s.session(ME, on.session_id),
    "what is watched": lambda s, on, _: _watched(s, on.session_id),
    "a workflow": lambda s, on, _: s.workflow(ME, on.workflow_id),
    "its status": lambda s, on, _: s.workflow_status(on.workflow_id),
    "the newest messages": lambda s, on, _: s.messages(ME, on.session_id, MessageQuery()),
    "later messages": lambda s, on, _: s.messages(ME, on.session_id, MessageQuery(after=7)),
    "the steps done": lambda s, on, _: s.steps_done(ME, on.session_id),
    "a first answer": lambda s, on, _: s.first_answer(ME, on.session_id, "go", "key"),
    "a start": lambda s, on, _: _refused(s.start(ME, on.session_id, "go", PLAN, key="other")),
    "an invocation": lambda s, on, _: s.invocation(ME, on.workflow_id),
    "a page of invocations": lambda s, on, _: s.invocations(
        ME, on.session_id, statuses=[InvocationStatus.RUNNING], after=on.workflow_id
    ),
    "a first invocation": lambda s, on, _: _project_of(s, on, "first_invocation", "key", "d"),
    "an invoke": lambda s, on, _: _project_of(
        s,
        on,
        "invoke",
        "go",
        PLAN,
        workflow_id=str(uuid4()),
        key="key",
        digest="d",
        by=Caller("me"),
    ),
    "a claim": lambda s, _, epoch: s.claim(epoch),
    "a message": lambda s, on, _: s.note(on.claim, [Note("line")]),
    "output": lambda s, on, _: s.note(on.claim, [Note("line")], percent=3, wrote_output=True),
    "a step": lambda s, on, _: s.begin_step(on.claim, 1, PROCESS),
    "a cancel": lambda s, on, _: s.cancel(ME, on.session_id, "no", Caller("me")),
    "what is to be cancelled": lambda s, _, epoch: s.cancelling(epoch),
    "a receipt": lambda s, on, epoch: s.stopped(epoch, on.workflow_id, RECEIPT, [Note("over")]),
    "what was lost": lambda s, _, epoch: s.lost(epoch),
    "a loss": lambda s, on, epoch: s.report_lost(epoch, on.workflow_id, GONE, RECEIPT),
    "whether a worker is needed": lambda s, _, __: s.waiting_for_worker(),
    "leaving": lambda s, _, epoch: s.leave(epoch),
    "files": lambda s, on, _: s.keep_files(on.workflow_id, 4711),
    "what is old": lambda s, _, epoch: s.hide_old(epoch, 10**15),
    "what is hidden": lambda s, _, epoch: s.delete_hidden(epoch),
    "whose files can go": lambda s, _, __: s.pruned(),
}


async def _watched(store: SqliteStore, session_id: str) -> None:
    with store.watch(ME, session_id) as watch:
        store.nudge()
        await watch.passed(0, 60)


async def _project_of(s: SqliteStore, on: Subject, verb: str, *given: Any, **named: Any) -> None:
    session = await s.session(ME, on.session_id)
    await getattr(s, verb)(ME, session.project_id, *given, **named)


async def _refused(call: Awaitable[Any]) -> None:
    with pytest.raises(Exception, match="running"):
        await call


@pytest.mark.parametrize("what", VERBS)
async def test_no_statement_of_a_verb_reads_a_whole_table(quick_path: Path, what: str) -> None:
    location = StoreLocation.of(quick_path / "store")
    async with SqliteStore(location, ManualClock()) as store:
        scene = Scene(store)
        on = await scene.subject(Kind.RUNNING)
        if what in ("what is to be cancelled", "a receipt"):
            await store.cancel(ME, on.session_id, None, Caller("me"))
        elif what == "a claim":
            await scene.subject(Kind.PENDING)
        elif what in ("what is old", "what is hidden"):
            on = await scene.subject(Kind.IDLE)
            await store.hide_old(await scene.epoch(), 10**15)
        said: set[str] = set()
        for of in (store._reader, store._writer):  # pyright: ignore[reportPrivateUsage]
            connection: Any = of
            connection._conn.set_trace_callback(said.add)
        await VERBS[what](store, on, await scene.epoch())
        with closing(sqlite3.connect(location.database)) as database:
            asked = [
                text for text in said if not text.startswith(("BEGIN", "COMMIT", "ROLLBACK", "-- "))
            ]
            assert asked
            for text in asked:
                plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}")]
                whole = [step for step in plan if GROWS.match(step)]
                assert all(step.split()[-1] in ALWAYS_SMALL for step in whole), (text, plan)


async def test_a_statement_is_not_planned_anew_because_another_account_asks(
    quick_path: Path,
) -> None:
    # SQLite does that where a condition of a partial index is compared with a parameter.
    async with SqliteStore(StoreLocation.of(quick_path / "store"), ManualClock()) as store:
        session_id = await Scene(store).session()
        reader: Any = store._reader  # pyright: ignore[reportPrivateUsage]
        planned: list[str] = []

        def note(_: int, table: str | None, *__: str | None) -> int:
            planned.append(str(table))
            return sqlite3.SQLITE_OK

        await store.session(ME, session_id)
        reader._conn.set_authorizer(note)  # asked when a statement is planned
        await store.session(ME, session_id)
        planned.clear()
        for _ in range(3):
            await store.session(ME, session_id)
        assert "session" not in planned
