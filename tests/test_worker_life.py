"""The worker's own life: one a store, started when needed, gone when idle, and what is left when it is killed."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from bilt_mcp.engine import LocalEngine
from bilt_mcp.engine.control import ask
from bilt_mcp.engine.processes import identify
from bilt_mcp.state import Caller, CannotCancel, FailureCode, SqliteStore, Status
from bilt_mcp.state.driver import WAL_RESET_BUG

from .support.builds import ME, Build, build_in
from .support.hostile import alive, command, end
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    async with build_in(tmp_path) as made:
        yield made


@pytest.fixture
def marker() -> Iterator[str]:
    """Marks a test's processes; what a failed test leaves of them is ended."""
    drawn = f"marker-{os.urandom(8).hex()}"
    yield drawn
    while left := alive(drawn):
        end(left)


def declare_hostile(build: Build, marker: str, shape: str = "a mix of 48") -> None:
    """A step of a hostile shape whose script would "deploy" by itself 0.6 s after it was left alone."""
    argv = ", ".join(f"'''{word}'''" for word in command(shape, marker))
    build.declare(
        f"[[step]]\nname = 'hostile'\nrun = [{argv}]\ngrace = '500ms'\n"
        "[[step]]\nname = 'deploy'\nrun = 'touch deployed'\ndeploy = true\n"
    )


def deployed(build: Build) -> bool:
    return (Path(build.project.root) / "deployed").exists()


async def until_up(build: Build, marker: str) -> None:
    await build.until(Status.RUNNING, step="hostile")
    await wait_until(lambda: len(alive(marker)) >= 3, "the step has grown", timeout=20)


@pytest.mark.parametrize(
    "shape",
    ["three children", "a child that ignores TERM", "a daemon without environment", "a mix of 48"],
)
async def test_a_cancel_is_answered_when_nothing_is_alive(
    build: Build, marker: str, shape: str
) -> None:
    declare_hostile(build, marker, shape)
    await build.start()
    await wait_until(lambda: alive(marker) != [], "the step is up", timeout=20)
    await build.store.cancel(ME, build.session_id, "enough", Caller("a test"))
    workflow = (await build.until(Status.CANCELLED)).workflow
    assert alive(marker) == []
    assert workflow is not None
    assert workflow.stopped is not None
    assert workflow.stopped.verified
    assert workflow.stopped.survivors == 0
    assert workflow.stopped.processes_killed >= 1
    assert workflow.stopped.step == "hostile"
    assert not deployed(build)


async def test_a_cancel_decided_from_another_store_object_after_the_starter_has_gone(
    build: Build, marker: str
) -> None:
    declare_hostile(build, marker)
    await build.start()
    await until_up(build, marker)
    async with SqliteStore(build.location) as other:
        decided = await other.cancel(ME, build.session_id, None, Caller("another client"))
        assert decided.workflow.status is Status.CANCELLING
        joined = await build.store.cancel(ME, build.session_id, None, Caller("a second one"))
        assert joined.workflow.status in (Status.CANCELLING, Status.CANCELLED) or joined.joined
    await build.until(Status.CANCELLED)
    assert alive(marker) == []
    with pytest.raises(CannotCancel, match="Workflow is already cancelled"):
        await build.store.cancel(ME, build.session_id, None, Caller("a test"))


async def test_a_lost_worker_is_noticed_although_nobody_asks(build: Build, marker: str) -> None:
    declare_hostile(build, marker, "three children")
    await build.start()
    await until_up(build, marker)
    first = build.epoch()
    build.kill(build.worker_pid())
    workflow = (await build.until(Status.FAILED)).workflow  # looks only; wakes nobody
    assert workflow is not None
    assert build.epoch() == first + 1
    assert alive(marker) == []


async def test_a_cancel_while_the_worker_is_dead_is_finished_by_the_next_worker(
    build: Build, marker: str
) -> None:
    declare_hostile(build, marker)
    await build.start()
    await until_up(build, marker)
    os.kill(build.worker_pid(), signal.SIGSTOP)  # it holds its lock and does nothing
    await build.store.cancel(ME, build.session_id, None, Caller("a test"))
    build.kill(build.worker_pid(), build.keeper_pid())
    workflow = (await build.until(Status.CANCELLED, asking=True)).workflow
    assert workflow is not None
    assert workflow.stopped is not None
    assert workflow.stopped.verified
    assert alive(marker) == []


async def test_a_worker_that_is_told_to_go_stops_what_runs_and_says_so(
    build: Build, marker: str
) -> None:
    declare_hostile(build, marker)
    await build.start()
    await until_up(build, marker)
    build.kill(build.worker_pid(), number=signal.SIGTERM)
    workflow = (await build.until(Status.FAILED)).workflow
    assert workflow is not None
    assert workflow.failure is not None
    assert workflow.failure.code is FailureCode.INTERRUPTED
    assert alive(marker) == []


async def test_many_who_need_a_worker_start_one(build: Build) -> None:
    build.declare("[[step]]\nname = 'a'\nrun = 'true'\n")
    prepared = await build.engine.prepare(build.project, "go")
    await build.store.start(
        ME, build.session_id, "go", prepared.plan, workflow_id=prepared.workflow_id
    )
    engines = [LocalEngine(build.store, build.location, os.environ, 30) for _ in range(12)]
    async with anyio.create_task_group() as tasks:
        for engine in engines:
            tasks.start_soon(engine.wake)
    assert (await build.ended()).status == "completed"
    assert build.epoch() == 1


async def test_an_idle_worker_goes_and_the_next_message_starts_another(tmp_path: Path) -> None:
    async with build_in(tmp_path, idle_seconds=0.1) as build:
        build.declare("[[step]]\nname = 'a'\nrun = 'true'\n")
        await build.start("one")
        await build.ended()
        await wait_until(lambda: not build.worker_is_alive(), "the idle worker has gone")
        await build.start("two")
        assert (await build.ended()).status == "completed"
        assert build.epoch() == 2


async def test_when_its_store_is_removed_the_worker_goes_and_nothing_that_it_ran_lives_on(
    build: Build, marker: str
) -> None:
    """Else nobody could cancel it any more: a new store at the same place knows nothing of it."""
    declare_hostile(build, marker)
    await build.start()
    await until_up(build, marker)
    worker = build.worker_pid()
    shutil.rmtree(build.location.folder)
    await wait_until(lambda: alive(marker) == [], "nothing of the step is alive")
    await wait_until(lambda: identify(worker) is None, "the worker has gone")
    assert not deployed(build)


async def test_a_worker_that_starts_to_leave_never_strands_a_message(tmp_path: Path) -> None:
    async with build_in(tmp_path, idle_seconds=0.0) as build:
        build.declare("[[step]]\nname = 'a'\nrun = 'true'\n")
        for _ in range(8):  # each comes while the last worker is leaving
            await build.start()
            assert (await build.ended()).status == "completed"


async def test_what_was_paused_survives_the_worker_and_the_confirmed_step_still_runs(
    tmp_path: Path,
) -> None:
    async with build_in(tmp_path, idle_seconds=0.1) as build:
        build.declare(
            "[[step]]\nname = 'deploy'\nrun = 'touch deployed'\ndeploy = true\nconfirm = 'Now?'\n"
        )
        await build.start()
        session = await build.until(Status.PAUSED)
        assert session.pending_action is not None
        await wait_until(lambda: not build.worker_is_alive(), "the idle worker has gone")
        assert not deployed(build)
        await build.store.confirm(
            ME, build.session_id, session.pending_action.action_id, Caller("a person")
        )
        await build.engine.wake()
        assert (await build.ended()).status == "completed"
        assert deployed(build)


async def test_a_worker_works_without_its_bell_too(build: Build) -> None:
    build.location.doorbell.write_text("not a FIFO")
    build.declare("[[step]]\nname = 'a'\nrun = 'true'\n")
    await build.start()
    assert (await build.ended()).status == "completed"


async def test_only_its_user_can_reach_a_workers_socket_and_its_log_tells_of_a_known_bug(
    build: Build,
) -> None:
    build.declare("[[step]]\nname = 'a'\nrun = 'true'\n")
    await build.start()
    await build.ended()
    control = build.location.control
    mode = control.stat().st_mode
    assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
    assert ("has the WAL-reset bug" in build.location.worker_log.read_text()) is WAL_RESET_BUG


async def test_a_server_that_is_older_than_what_is_installed_uses_the_worker_that_it_starts(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.declare("[[step]]\nname = 'a'\nrun = 'true'\n")
    await build.start()
    await build.ended()
    first = build.worker_pid()
    # To this process something else seems to be installed now; what it starts will say so, too.
    monkeypatch.setattr("bilt_mcp.engine.local.code_identity", lambda: "another")
    with anyio.fail_after(30):
        while build.worker_pid() == first:  # who asks one that is slow to answer makes do with it
            await build.start()
            await build.ended()
    monkeypatch.undo()
    second = build.worker_pid()
    for _ in range(3):
        await build.start()
        await build.ended()
    assert build.worker_pid() == second


async def test_a_worker_that_is_to_retire_takes_up_first_what_it_was_started_for(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.engine.local.code_identity", lambda: "another")
    build.declare("[[step]]\nname = 'a'\nrun = 'true'\n")
    await build.start()
    over = anyio.Event()

    async def insist() -> None:
        while not over.is_set():  # nobody else would ask so often
            await ask(build.location.control, {"retire": True})
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(insist)
        await build.ended()
        over.set()
