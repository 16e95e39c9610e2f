"""What a worker must not do although nothing else would notice: gates, retries, ends that only look well."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread
import pytest

from bilt_mcp.engine import code_identity
from bilt_mcp.engine.control import ask
from bilt_mcp.engine.keepers import KeeperPool
from bilt_mcp.engine.processes import ProcessId, Swept
from bilt_mcp.engine.run_folder import RunFolder
from bilt_mcp.engine.runner import Runner
from bilt_mcp.engine.step_attempt import NotRunning, StepAttempt
from bilt_mcp.engine.step_process import Chunk, StepCommand, StepResult
from bilt_mcp.engine.worker import Worker
from bilt_mcp.engine.workflow_step import Step
from bilt_mcp.state import (
    Caller,
    Claim,
    DeployState,
    FailureCode,
    Plan,
    PlannedStep,
    ProcessRecord,
    SqliteStore,
    Status,
    StepTicket,
    StoreLocation,
    StoreUnavailable,
    Workflow,
)

from .store_contract import ME as OWNER
from .store_contract import PLAN, Kind, Scene, Subject
from .support.builds import ME, Build, another_session, build_in
from .support.steps import keeper, said
from .support.steps import step as kept_step
from .support.waiting import wait_until
from .test_confirm import at_a_terminal, command

pytestmark = pytest.mark.anyio

TRAPS = "trap 'echo ending; exit 0' TERM; echo up; while :; do sleep 0.05; done"
"""A step that ends with exit code 0 when it is told to stop, as servers and some deploy scripts do."""


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    async with build_in(tmp_path) as made:
        yield made


def step(name: str, run: str, more: str = "") -> str:
    return f"[[step]]\nname = '{name}'\nrun = '''{run}'''\n{more}\n"


async def test_every_gate_asks_although_an_earlier_one_was_confirmed(build: Build) -> None:
    build.declare(
        step("first", "echo first", "confirm = 'First?'")
        + step("second", "echo second", "confirm = 'Second?'")
    )
    await build.start()
    for question in ("First?", "Second?"):
        session = await build.until(Status.PAUSED, Status.COMPLETED)
        assert session.pending_action is not None
        assert session.pending_action.message == question
        action_id = session.pending_action.action_id
        await build.store.confirm(ME, build.session_id, action_id, Caller("a person"))
        await build.engine.wake()
    assert (await build.ended()).status == "completed"


async def test_a_last_step_that_ends_well_because_it_was_told_to_stop_has_not_succeeded(
    build: Build,
) -> None:
    build.declare(step("deploy", TRAPS, "deploy = true"))
    await build.start()
    await build.says("up")
    build.kill(build.worker_pid(), number=signal.SIGTERM)
    workflow = (await build.ended()).workflow
    assert workflow is not None
    assert workflow.failure is not None
    assert workflow.failure.code is FailureCode.INTERRUPTED
    assert workflow.deploy is DeployState.INTERRUPTED


async def test_a_deploy_that_ends_well_because_it_was_cancelled_is_not_called_done(
    build: Build,
) -> None:
    build.declare(step("deploy", TRAPS, "deploy = true"))
    await build.start()
    await build.says("up")
    await build.store.cancel(ME, build.session_id, None, Caller("a test"))
    workflow = (await build.ended()).workflow
    assert workflow is not None
    assert workflow.stopped is not None
    assert workflow.stopped.deploy is DeployState.INTERRUPTED


async def test_a_step_whose_keeper_was_killed_is_never_started_again(build: Build) -> None:
    build.declare(
        step(
            "deploy",
            "echo try >> tries; echo up; test $(wc -l < tries) -gt 1 || sleep 1000",
            "deploy = true\nretries = 3",
        )
    )
    await build.start()
    await build.says("up")
    build.kill(build.keeper_pid())
    workflow = (await build.ended()).workflow
    assert workflow is not None
    assert workflow.failure is not None
    assert workflow.failure.code is FailureCode.WORKER_LOST
    assert (Path(build.project.root) / "tries").read_text() == "try\n"


async def test_when_the_time_of_all_steps_is_up_none_is_tried_again(build: Build) -> None:
    build.declare(
        "[workflow]\ntimeout = '300ms'\n" + step("slow", "sleep 1000", "retries = 3\ngrace = 0")
    )
    await build.start()
    workflow = (await build.ended()).workflow
    assert workflow is not None
    assert workflow.failure is not None
    assert workflow.failure.code is FailureCode.TIMED_OUT
    assert [m.content for m in await build.messages() if "attempt" in m.content] == []


async def test_what_is_prepared_survives_a_worker_that_clears_up_meanwhile(tmp_path: Path) -> None:
    async with build_in(tmp_path, idle_seconds=0.0) as build:
        build.declare(step("only", "echo done"))
        prepared = await build.engine.prepare(build.project, "go")
        other = await another_session(build)
        other.declare(step("only", "true"))
        await other.start()
        await other.ended()
        await wait_until(lambda: not build.worker_is_alive(), "the idle worker has gone")
        await build.store.start(
            ME, build.session_id, "go", prepared.plan, workflow_id=prepared.workflow_id
        )
        await build.engine.wake()
        assert (await build.ended()).status == "completed"


async def test_a_halt_of_another_account_stops_nothing_and_nonsense_does_not_end_the_worker(
    build: Build,
) -> None:
    build.declare(step("only", "echo up; sleep 1000"))
    await build.start()
    await build.says("up")
    control, worker = build.location.control, build.worker_pid()
    halt = {"halt": build.session_id, "account": "somebody else", "reason": None, "by": "x"}
    assert await ask(control, halt) == {}
    limited = {**halt, "account": ME, "project": "another project"}
    assert await ask(control, limited) == {}
    for nonsense in ({"halt": build.session_id}, {"halt": build.session_id, "account": ME}):
        assert await ask(control, nonsense) is None
    async with await anyio.connect_unix(str(control)) as stream:
        await stream.send(b"no JSON\n")
    assert await ask(control, {}) == {"code": code_identity()}
    assert (await build.workflow()).status is Status.RUNNING
    assert build.worker_pid() == worker
    assert build.worker_is_alive()


@pytest.mark.parametrize("answer", [b"y", b"yes please", b""])
async def test_only_the_whole_word_yes_confirms(build: Build, answer: bytes) -> None:
    build.declare(step("deploy", "touch deployed", "deploy = true\nconfirm = 'Really?'"))
    await build.start()
    await build.until(Status.PAUSED)
    argv = command(build, build.session_id)
    await anyio.to_thread.run_sync(at_a_terminal, argv, answer)
    assert (await build.ended()).status == "cancelled"
    assert not (Path(build.project.root) / "deployed").exists()
    # What the steps would have got, secrets too, is not needed any more.
    assert list(build.location.open.iterdir()) == []


class DeafStore(SqliteStore):
    """A store that cannot be read while `deaf`."""

    deaf = False

    async def workflow(self, account: str, workflow_id: str) -> Workflow:
        if self.deaf:
            raise StoreUnavailable("The store is locked.")
        return await super().workflow(account, workflow_id)


@pytest.fixture
async def deaf_store(quick_path: Path) -> AsyncIterator[DeafStore]:
    async with DeafStore(StoreLocation.of(quick_path / "store")) as store:
        yield store


@asynccontextmanager
async def keepers() -> AsyncGenerator[KeeperPool]:
    """A pool that is closed at the end."""
    pool = KeeperPool()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.run)
        yield pool
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def runner_at(
    store: DeafStore, kind: Kind, position: int = 1
) -> AsyncGenerator[tuple[Runner, str]]:
    """A runner, not started, of a workflow in some situation; its session's id, too."""
    subject = await Scene(store).subject(kind)
    claim = replace(subject.claim, position=position)
    folder = RunFolder(store.location, subject.workflow_id)
    async with keepers() as pool:
        yield Runner(store, claim, folder, pool, ()), subject.session_id


@pytest.mark.parametrize(
    ("position", "deploy"), [(1, DeployState.NOT_STARTED), (2, DeployState.INTERRUPTED)]
)
async def test_a_halt_that_cannot_ask_the_store_counts_the_step_that_runs_as_a_deploy(
    deaf_store: DeafStore, position: int, deploy: DeployState
) -> None:
    async with runner_at(deaf_store, Kind.RUNNING, position) as (runner, _):
        deaf_store.deaf = True
        assert (await runner.halt(None, Caller("a test"))).stopped.deploy is deploy


async def test_a_halt_that_is_recorded_late_never_cancels_the_next_workflow(
    deaf_store: DeafStore,
) -> None:
    async with runner_at(deaf_store, Kind.CANCELLED) as (runner, session_id):
        await runner.halt("enough", Caller("a test"))
        started = await deaf_store.start(OWNER, session_id, "again", PLAN)
        await runner.run()
        assert await deaf_store.workflow_status(started.workflow_id) is Status.PENDING


async def test_a_stop_while_the_start_is_being_recorded_starts_nothing(tmp_path: Path) -> None:
    stop: list[StepAttempt] = []

    class Stopping(SqliteStore):
        async def begin_step(
            self, claim: Claim, attempt: int, keeper: ProcessRecord
        ) -> StepTicket | None:
            ticket = await super().begin_step(claim, attempt, keeper)
            stop[0].stop()
            return ticket

    async with Stopping(StoreLocation.of(tmp_path / "store")) as store:
        subject = await Scene(store).subject(Kind.RUNNING)
        folder = RunFolder(store.location, subject.workflow_id)
        folder.create({}, ())
        claim = replace(subject.claim, project_root=str(tmp_path))
        planned = Step(name="build", run=("/bin/sh", "-c", "touch started"))
        attempt = StepAttempt(store, claim, planned, 1, {}, folder, ())
        stop.append(attempt)
        async with keepers() as pool:
            with pytest.raises(NotRunning):
                await attempt.run(pool, None, no_survivors)
    assert not (tmp_path / "started").exists()


async def no_survivors(result: StepResult) -> None:
    raise AssertionError(result)


class Stubborn:
    """A keeper whose step does not die when it is killed, until `gone`."""

    def __init__(self) -> None:
        self.identity = ProcessId("boot", 4711, 99)
        self.started, self.stopped, self.gone = anyio.Event(), anyio.Event(), anyio.Event()
        self.left, self.waited_for = anyio.Event(), False

    async def take(self) -> Stubborn:
        return self

    def retire(self, process: Stubborn) -> None:
        assert process is self
        self.left.set()

    async def start(self, _: StepCommand) -> None:
        self.started.set()

    def cancel(self) -> None:
        self.stopped.set()

    async def chunks(self) -> AsyncGenerator[Chunk]:
        await self.stopped.wait()
        yield Chunk(b"", 0)

    async def wait(self) -> StepResult:
        return StepResult(signal=9, stopped=True, killed=3, survivors=1)

    async def wait_gone(self) -> None:
        self.waited_for = True
        self.left.set()
        await self.gone.wait()


@asynccontextmanager
async def stubborn_run(store: SqliteStore) -> AsyncGenerator[tuple[Runner, Subject]]:
    """A runner whose step runs and will not die; when the block is over it may, and the runner ends."""
    spec = {"name": "build", "run": "true"}
    subject = await Scene(store).subject(Kind.RUNNING, Plan((PlannedStep("build", spec),)))
    folder = RunFolder(store.location, subject.workflow_id)
    folder.create({}, ())
    stubborn = Stubborn()
    runner = Runner(store, subject.claim, folder, cast(KeeperPool, stubborn), ())
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await stubborn.started.wait()
            yield runner, subject
            await stubborn.left.wait()
            assert stubborn.waited_for
            stubborn.gone.set()


async def test_a_cancel_is_not_over_before_the_last_process_is_gone(deaf_store: DeafStore) -> None:
    async with stubborn_run(deaf_store) as (runner, subject):
        await deaf_store.cancel(OWNER, subject.session_id, None, Caller("a test"))
        runner.cancel()
        while True:
            seen = deaf_store.changes()
            told = await deaf_store.workflow(OWNER, subject.workflow_id)
            if told.stopped is not None:
                break
            await deaf_store.wait_change(seen, 1.0)
        assert told.status is Status.CANCELLING
        assert (told.stopped.verified, told.stopped.survivors) == (False, 1)
    told = await deaf_store.workflow(OWNER, subject.workflow_id)
    assert told.status is Status.CANCELLED
    assert told.stopped is not None
    assert (told.stopped.verified, told.stopped.survivors) == (True, 0)


async def test_a_halt_calls_nothing_dead_that_still_lives_and_is_recorded_when_it_is_gone(
    deaf_store: DeafStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.engine.runner.HALT_SECONDS", 0.05)
    async with stubborn_run(deaf_store) as (runner, subject):
        assert (await runner.halt("enough", Caller("a test"))).stopped.verified is False
        assert await deaf_store.workflow_status(subject.workflow_id) is not Status.CANCELLED
    told = await deaf_store.workflow(OWNER, subject.workflow_id)
    assert (told.status, told.cancel_reason) == (Status.CANCELLED, "enough")


async def test_what_a_dead_worker_left_is_cancelled_only_when_a_sweep_leaves_nothing_alive(
    deaf_store: DeafStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = await Scene(deaf_store).subject(Kind.CANCELLING)
    outcomes = [Swept(2, 1), Swept(1, 1), Swept(1, 0)]
    found: list[str] = []

    def hard_sweep(_: object) -> Swept:
        with closing(sqlite3.connect(deaf_store.location.database)) as database:
            found.append(database.execute("SELECT status FROM workflow").fetchone()[0])
        return outcomes[len(found) - 1]

    monkeypatch.setattr("bilt_mcp.engine.worker.sweep", hard_sweep)
    worker = Worker(deaf_store, deaf_store.location, 0.0)
    await worker.take_over()
    with anyio.fail_after(30):
        await worker.run(lambda: None)
    assert found == ["cancelling"] * 3
    told = await deaf_store.workflow(OWNER, subject.workflow_id)
    assert told.status is Status.CANCELLED
    assert told.stopped is not None
    assert (told.stopped.verified, told.stopped.processes_killed) == (True, 4)


async def test_a_step_that_somebody_has_stopped_hears_that_it_is_to_end(tmp_path: Path) -> None:
    async with keeper() as process:
        trap = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"
        leader = await process.start(kept_step(tmp_path, "/bin/sh", "-c", trap, grace=10.0))
        assert leader is not None
        await said(process, b"up")
        os.kill(leader.pid, signal.SIGSTOP)
        process.cancel()
        assert (await process.wait()).code == 7
