"""A small model of the store, and what must hold between the two; the calls are in test_store_model.py."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from bilt_mcp.state import (
    FINAL,
    BiltError,
    Claim,
    MessageQuery,
    Plan,
    PlannedStep,
    Session,
    SessionStore,
    SqliteStore,
    StepTicket,
    StoreLocation,
)

from .store_contract import ME, PROCESS, ManualClock, SqliteBackend, still

T = TypeVar("T")

OUTCOMES = ["succeeded", "failed", "timed_out", "not_started"]
BUILD = PlannedStep("build", {})
DEPLOY = PlannedStep("deploy", {}, deploy=True)
PLANS = [
    Plan((DEPLOY, BUILD), max_parallel=1),
    Plan((PlannedStep("ask", {}, on_decline="skip"), DEPLOY)),
    Plan((DEPLOY,), max_parallel=2),
]


@dataclass
class Run:
    """One attempt of a step."""

    ticket: StepTicket
    deploy: bool
    outcome: str | None = None

    def follows(self, other: Run) -> bool:
        """Whether it is a later attempt of the same step."""
        mine, theirs = self.ticket, other.ticket
        return mine.position == theirs.position and mine.attempt > theirs.attempt


@dataclass
class Model:
    """What is true of one workflow."""

    id: str
    session: int
    plan: Plan
    status: str = "pending"
    position: int = 1
    epoch: int | None = None
    pause_requested: bool = False
    confirmed: int = 0
    gate: str | None = None
    percent: int | None = None
    runs: list[Run] = field(default_factory=list[Run])

    @property
    def deploy(self) -> str:
        tried = [run for run in self.runs if run.deploy and run.outcome != "not_started"]
        done = [run for run in tried if run.outcome == "succeeded"]
        if not tried:
            return "not_started"
        if all(any(later.follows(run) for later in done) for run in tried if run not in done):
            return "done"
        return "interrupted"

    @property
    def waits(self) -> bool:
        return self.status == "pending" or (self.status == "running" and self.epoch is None)

    def go_to(self, position: int) -> None:
        self.position, self.percent = position, None

    def end(self, status: str, runs: str | None = None) -> None:
        self.status, self.gate = status, None
        for run in self.runs:
            if runs is not None and run.outcome is None:
                run.outcome = runs


class StoreAndModel(RuleBasedStateMachine):
    """Two store objects on one file, a project with two sessions, and the model that they must agree with."""

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.TemporaryDirectory(prefix="bilt-model-", dir=memory)
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.location = StoreLocation.of(Path(self.folder.name) / "store")
        self.stores: list[SqliteStore] = []
        self.sessions: list[str] = []
        self.newest: dict[int, Model] = {}
        self.workflows: list[Model] = []
        self.claims: list[Claim] = []
        self.actions: list[str] = ["never was"]
        self.keys: dict[tuple[int, str], tuple[str, str]] = {}
        self.messages: dict[int, list[str]] = {}
        self.before: dict[int, Session] = {}
        self.epoch, self.leaving, self.turn = 0, True, 0
        self.told_status = ""

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def refused(self, call: Coroutine[Any, Any, object]) -> type[BiltError] | None:
        try:
            self.wait(call)
        except BiltError as error:
            if "current_status" in error.details:
                self.told_status = error.details["current_status"]
            return type(error)
        return None

    async def opened(self) -> SqliteStore:
        return await SqliteStore(self.location, self.clock).__aenter__()

    @initialize()
    def open(self) -> None:
        self.stores = [self.wait(self.opened()) for _ in range(2)]
        project = self.wait(self.stores[0].open_project(ME, "/work", "shop"))
        first = self.wait(self.stores[1].latest_session(ME, project.id))
        second = SqliteBackend(Path(self.folder.name)).add_session(ME, project.id)
        self.sessions = [first.id, second]
        self.epoch = self.wait(self.stores[0].take_over(PROCESS, "1"))
        self.leaving = False

    def teardown(self) -> None:
        try:
            for store in self.stores:
                self.wait(store.__aexit__(None, None, None))
            if self.stores:
                with closing(sqlite3.connect(self.location.database)) as connection:
                    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        finally:
            self.runner.close()
            self.folder.cleanup()

    # -- what must hold after each call ---------------------------------------------------------------

    def look(self, s: int) -> Session:
        return self.wait(self.stores[0].session(ME, self.sessions[s]))

    @invariant()
    def both_stores_tell_what_the_model_says(self) -> None:
        """The two stores take turns; whichever looks sees what the other did."""
        if self.sessions:
            self.turn += 1
            self.wait(self.compare(self.stores[self.turn % 2], self.turn % len(self.sessions)))

    async def compare(self, store: SessionStore, s: int) -> None:
        for each, session_id in enumerate(self.sessions):
            found = still(await store.session(ME, session_id))
            self.compare_session(found, self.newest.get(each))
            self.compare_revision(found, self.before.setdefault(each, found))
            self.before[each] = found
        page = await store.messages(ME, self.sessions[s], MessageQuery(limit=10**6, after=0))
        told = [f"{message.id} {message.content}" for message in page.messages]
        known = self.messages.setdefault(s, [])
        assert told[: len(known)] == known
        assert page.total == len(told)
        self.messages[s] = told
        busy = [m for m in self.workflows if m.status in ("pending", "running", "cancelling")]
        assert await store.waiting_for_worker() == bool(busy)
        assert await store.worker_leaving() == self.leaving
        killing = [m.id for m in busy if m.status == "cancelling" and m.epoch == self.epoch]
        assert sorted(await store.cancelling(self.epoch)) == sorted(killing)

    def compare_session(self, session: Session, model: Model | None) -> None:
        found, gate = session.workflow, session.pending_action
        assert session.status == (model.status if model else "idle")
        if model is None or found is None:
            assert model is None
            assert found is None
            return
        steps = model.plan.steps
        step = steps[model.position - 1].name if model.position <= len(steps) else None
        assert (found.id, found.position, found.step) == (model.id, model.position, step)
        assert found.pause_requested == model.pause_requested
        assert (gate and gate.action_id) == model.gate
        assert (found.deploy, found.step_percent) == (model.deploy, model.percent)
        assert (found.finished_at is not None) == (model.status in FINAL)
        assert (found.failure is not None) == (model.status == "failed")
        if model.status == "cancelled":
            assert found.stopped is not None
            assert found.stopped.verified
            assert found.stopped.deploy == model.deploy

    def compare_revision(self, now: Session, before: Session) -> None:
        assert now.revision >= before.revision
        assert now.updated_at >= before.updated_at
        assert now == before or now.revision > before.revision
