"""What the tests of the store share: the implementations, a clock that obeys, workflows in every state.

A new implementation of `SessionStore` enters `BACKENDS`; then every test_store_*.py holds it to the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from bilt_mcp.state import (
    Caller,
    Claim,
    Clock,
    DeployState,
    Failure,
    FailureCode,
    Plan,
    PlannedStep,
    ProcessRecord,
    Session,
    SessionStore,
    SqliteStore,
    StepTicket,
    Stopped,
    StoreLocation,
    Workflow,
)
from bilt_mcp.state.driver import sqlite3

ME, SOMEBODY_ELSE = "me", "somebody else"
NOBODY_KNOWS = "7d3fcd2c-5b5f-4c5e-8a7b-0123456789ab"
"""A well-formed id that no store has drawn."""

PROCESS = ProcessRecord("boot", 4711, 99)
BUILD = PlannedStep("build", {"run": "make", "env": {"TIEFE": "größer"}})
DEPLOY = PlannedStep("deploy", {"run": ["./deploy.sh"]}, deploy=True, confirm="Deploy it?")
PLAN = Plan((BUILD, DEPLOY), timeout=600.0, limits={"notes": 200})
BROKEN = Failure(FailureCode.STEP_FAILED, "Step build ended with 2", "build", 2)
GONE = Failure(FailureCode.WORKER_LOST, "The worker was killed", "build")
RECEIPT = Stopped(True, 3, 0, 12.5, "build", DeployState.NOT_STARTED)


class ManualClock:
    """Wall time that jumps when told to, and monotonic time that only goes on."""

    def __init__(self) -> None:
        self.wall = 1_790_000_000_000
        self.mono = 5_000_000

    def now(self) -> int:
        return self.wall

    def monotonic(self) -> int:
        return self.mono

    def go_on(self, milliseconds: int) -> None:
        self.wall += milliseconds
        self.mono += milliseconds


class Backend(Protocol):
    """One implementation of `SessionStore`, and what a test must do to it that no caller can."""

    def open(self, clock: Clock) -> AbstractAsyncContextManager[SessionStore]:
        """Another store object on this backend's one place."""
        ...

    def add_session(self, account: str, project_id: str) -> str:
        """A further, newer session of a project."""
        ...

    def look_rarely(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make waits that are not urgent notice others' commits after an hour only."""
        ...


class SqliteBackend:
    """`SqliteStore` on a file."""

    def __init__(self, folder: Path) -> None:
        self.location = StoreLocation.of(folder / "store")

    def open(self, clock: Clock) -> AbstractAsyncContextManager[SessionStore]:
        return SqliteStore(self.location, clock)

    def add_session(self, account: str, project_id: str) -> str:
        session_id = str(uuid4())
        with closing(sqlite3.connect(self.location.database)) as connection, connection:
            connection.execute(
                """INSERT INTO session (id, account, project, created_at, updated_at)
                   SELECT ?, account, n, 0, 0 FROM project WHERE account = ? AND id = ?""",
                (session_id, account, project_id),
            )
        return session_id

    def look_rarely(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bilt_mcp.state.lookout.POLL_SECONDS", 3600.0)


BACKENDS: Mapping[str, Callable[[Path], Backend]] = {"sqlite": SqliteBackend}

OpenStore = Callable[[], AbstractAsyncContextManager[SessionStore]]


class Kind(StrEnum):
    """Every situation in which a verb can find a session; finer than `Status`."""

    IDLE = "idle"
    PENDING = "pending"
    RUNNING = "running"
    RESUMED = "running, but no worker holds it yet"
    PAUSED = "paused by request"
    GATED = "paused at a gate"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    FAILED = "failed"


WITH_WORKFLOW = [kind for kind in Kind if kind is not Kind.IDLE]
ONCE_HELD = [kind for kind in WITH_WORKFLOW if kind is not Kind.PENDING]


@dataclass(frozen=True)
class Subject:
    """A session in some situation, and what the worker that had it holds."""

    session_id: str
    maybe_workflow_id: str | None = None
    maybe_claim: Claim | None = None
    maybe_action_id: str | None = None

    @property
    def workflow_id(self) -> str:
        assert self.maybe_workflow_id is not None
        return self.maybe_workflow_id

    @property
    def claim(self) -> Claim:
        assert self.maybe_claim is not None
        return self.maybe_claim

    @property
    def action_id(self) -> str:
        assert self.maybe_action_id is not None
        return self.maybe_action_id


class Scene:
    """Brings sessions into situations, by the store's own verbs. It is the worker, too."""

    def __init__(self, store: SessionStore, account: str = ME, epoch: int | None = None) -> None:
        """`epoch`: of a worker that has taken over; else this takes over when it has to."""
        self.store = store
        self._account = account
        self._epoch = epoch
        self._projects = 0

    async def session(self, account: str | None = None) -> str:
        """The first session of a new project."""
        self._projects += 1
        whose = account or self._account
        project = await self.store.open_project(whose, f"/srv/{self._projects}", "shop")
        return (await self.store.latest_session(whose, project.id)).id

    async def epoch(self) -> int:
        """The epoch of this scene's worker."""
        if self._epoch is None:
            self._epoch = await self.store.take_over(PROCESS, "1")
        return self._epoch

    async def claim(self) -> Claim:
        """The claim of what waits; something must."""
        claim = await self.store.claim(await self.epoch())
        assert claim is not None
        return claim

    async def look(self, subject: Subject) -> Session:
        return await self.store.session(self._account, subject.session_id)

    async def workflow(self, subject: Subject) -> Workflow:
        found = (await self.look(subject)).workflow
        assert found is not None
        return found

    async def begin(self, subject: Subject, attempt: int = 1) -> StepTicket:
        """The ticket of an attempt of the step at its claim's position, which must be allowed."""
        ticket = await self.store.begin_step(subject.claim, attempt, PROCESS)
        assert ticket is not None
        return ticket

    async def subject(self, kind: Kind, plan: Plan = PLAN, message: str = "go") -> Subject:
        """A new session in that situation. Nothing else may wait for a worker."""
        store, session_id = self.store, await self.session()
        if kind is Kind.IDLE:
            return Subject(session_id)
        started = await store.start(self._account, session_id, message, plan)
        subject = Subject(session_id, started.workflow_id)
        if kind is Kind.PENDING:
            return subject
        claim = await self.claim()
        assert claim.workflow_id == started.workflow_id
        subject = replace(subject, maybe_claim=claim)
        if kind in (Kind.PAUSED, Kind.RESUMED):
            await store.request_pause(self._account, session_id, Caller("me"))
            assert await store.pause(claim, None)
            if kind is Kind.RESUMED:
                await store.resume(self._account, session_id, Caller("me"))
        elif kind is Kind.GATED:
            assert await store.pause(claim, "Deploy it?")
            gate = (await self.look(subject)).pending_action
            assert gate is not None
            subject = replace(subject, maybe_action_id=gate.action_id)
        elif kind in (Kind.CANCELLING, Kind.CANCELLED):
            await store.cancel(self._account, session_id, "no longer needed", Caller("me"))
            if kind is Kind.CANCELLED:
                assert await store.stopped(claim.epoch, claim.workflow_id, RECEIPT, [])
        elif kind is Kind.COMPLETED:
            assert await store.complete(claim, [])
        elif kind is Kind.FAILED:
            assert await store.fail(claim, BROKEN, [])
        return subject


def still(session: Session) -> Session:
    """A session without what changes by itself."""
    if session.workflow is None:
        return session
    workflow = replace(session.workflow, elapsed_seconds=None, quiet_seconds=None)
    return replace(session, workflow=workflow)
