"""A small model of the store, and what must hold between the two; the calls are in test_store_model.py."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

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
from bilt_mcp.state.location import file_system_of
from bilt_mcp.state.migrate import migrations

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
    receipt: str = ""
    """What the deploy was like at the end: a step that is told to have ended later changes no receipt."""
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
        self.receipt = self.deploy


class OnThisThread:
    """A connection as `SqliteBase` uses it, without a thread of its own.

    The model calls one verb after the other, so a thread for each connection only costs: nine tenths of the
    time went into waking them. Everything else is the product's: its connections, transactions and statements.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self.database = connect()

    async def close(self) -> None:
        self.database.close()

    @classmethod
    async def open(cls, connect: Callable[[], sqlite3.Connection]) -> OnThisThread:
        return cls(connect)


class NoHop:
    """`Hop` where there is nowhere to go: everything is over at once."""

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def call(
        self, connection: OnThisThread, function: Callable[[sqlite3.Connection], T]
    ) -> T:
        return function(connection.database)

    def there(
        self, connection: OnThisThread, function: Callable[[sqlite3.Connection], None]
    ) -> None:
        function(connection.database)

    def back(self, *calls: Callable[[], None]) -> None:
        for call in calls:
            call()

    def answer(self) -> Given:
        return Given()


class Given:
    """An answer that is there before anybody waits for it."""

    def give(self) -> None:
        pass

    def __await__(self) -> Generator[None]:
        yield from ()


@contextmanager
def without_threads() -> Generator[None]:
    """Stores that are opened now work on the thread that calls, and look only once at what stays as it is."""
    with (
        patch("bilt_mcp.state.sqlite_file.on_a_thread", OnThisThread.open),
        patch("bilt_mcp.state.sqlite_file.Hop", NoHop),
        patch("bilt_mcp.state.location.file_system_of", cache(file_system_of)),
        patch("bilt_mcp.state.migrate.migrations", cache(migrations)),
    ):
        yield


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """What a call answers that has nothing to wait for, without an event loop."""
    try:
        call.send(None)
    except StopIteration as done:
        answer: T = done.value
        return answer
    call.close()
    raise AssertionError("a verb of a store without threads has waited")


@cache
def new_store() -> tuple[bytes, tuple[str, str]]:
    """A store's file, and the ids of the two sessions in it: making the schema anew takes longer than copying it."""

    async def sessions(location: StoreLocation) -> tuple[str, str]:
        async with SqliteStore(location, ManualClock()) as store:
            project = await store.open_project(ME, "/work", "shop")
            first = await store.latest_session(ME, project.id)
            second = SqliteBackend(location.folder.parent).add_session(ME, project.id)
            return first.id, second

    with tempfile.TemporaryDirectory(prefix="bilt-model-") as folder:
        location = StoreLocation.of(Path(folder) / "store")
        made = asyncio.run(sessions(location))
        return location.database.read_bytes(), made


def search_in_two(module: str, seed: int, examples: int) -> int:
    """Let two processes search half of so many sequences each; how many that are."""
    share = (examples + 1) // 2
    halves = [
        subprocess.Popen(
            [sys.executable, "-m", module, f"{seed} {half}", str(share)],
            cwd=Path(__file__).resolve().parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for half in range(2)
    ]
    try:
        said = [half.communicate()[0] for half in halves]
    finally:
        for half in halves:
            with half:  # closes its pipe, and waits
                half.kill()
    assert [half.returncode for half in halves] == [0, 0], "\n".join(said)
    return 2 * share


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
        return at_once(call)

    def refused(self, call: Coroutine[Any, Any, object]) -> type[BiltError] | None:
        try:
            self.wait(call)
        except BiltError as error:
            if "current_status" in error.details:
                self.told_status = error.details["current_status"]
            return type(error)
        return None

    def opened(self) -> SqliteStore:
        return self.wait(SqliteStore(self.location, self.clock).__aenter__())

    def close(self, store: SqliteStore) -> None:
        self.runner.run(store.__aexit__(None, None, None))  # it shields itself, which needs a loop

    @initialize()
    def open(self) -> None:
        file, sessions = new_store()
        self.location.folder.mkdir(mode=0o700)
        self.location.database.write_bytes(file)
        self.stores = [self.opened() for _ in range(2)]
        self.sessions = [*sessions]
        self.epoch = self.wait(self.stores[0].take_over(PROCESS, "1"))
        self.leaving = False

    def teardown(self) -> None:
        try:
            for store in self.stores:
                self.close(store)
            if self.stores:
                with closing(sqlite3.connect(self.location.database)) as connection:
                    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        finally:
            self.runner.close()
            self.folder.cleanup()

    # -- what is drawn -----------------------------------------------------------------------------

    def held(self, model: Model, claim: Claim) -> bool:
        return model.epoch == claim.epoch == self.epoch

    def pick(self, index: int) -> tuple[Claim, Model] | None:
        """Mostly a recent claim; its workflow need not be held by it any more. None when there is none yet."""
        if not self.claims:
            return None
        recent = self.claims[-4:]
        claim = recent[index % len(recent)] if index % 5 else self.claims[index % len(self.claims)]
        model = next(m for m in self.workflows if m.id == claim.workflow_id)
        if index % 3:
            position = min(model.position, len(claim.plan.steps))
            claim = replace(claim, position=position)
        return claim, model

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
            assert found.stopped.deploy == model.receipt

    def compare_revision(self, now: Session, before: Session) -> None:
        assert now.revision >= before.revision
        assert now.updated_at >= before.updated_at
        assert now == before or now.revision > before.revision
