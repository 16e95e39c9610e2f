"""One attempt of a step, with a real keeper: when what it says is told."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from bilt_mcp.engine import step_attempt, step_process
from bilt_mcp.engine.keepers import KeeperPool
from bilt_mcp.engine.run_folder import RunFolder
from bilt_mcp.engine.step_attempt import StepAttempt
from bilt_mcp.engine.step_process import StepResult
from bilt_mcp.engine.workflow_step import Step
from bilt_mcp.state import MessageQuery, SqliteStore, StoreLocation

from .store_contract import ME, Kind, Scene

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def no_survivors(result: StepResult) -> None:
    raise AssertionError(result)


async def test_the_first_line_after_a_silence_is_told_without_waiting_for_the_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_attempt, "FLUSH_SECONDS", 1000.0)
    os.mkfifo(tmp_path / "gate")
    async with SqliteStore(StoreLocation.of(tmp_path / "store")) as store:
        subject = await Scene(store).subject(Kind.RUNNING)
        folder = RunFolder(store.location, subject.workflow_id)
        folder.create({}, ())
        claim = replace(subject.claim, project_root=str(tmp_path))
        step = Step(name="build", run=("/bin/sh", "-c", "echo first; read x < gate"))
        attempt = StepAttempt(store, claim, step, 1, {}, folder, ())
        pool = KeeperPool()
        with anyio.fail_after(30):
            async with anyio.create_task_group() as pool_tasks:
                pool_tasks.start_soon(pool.run)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(attempt.run, pool, None, no_survivors)
                    await says(store, subject.session_id, "first")
                    await anyio.to_thread.run_sync((tmp_path / "gate").write_text, "go\n")
                pool_tasks.cancel_scope.cancel()


async def test_a_keeper_that_is_killed_before_it_has_a_step_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "killed"
    program = tmp_path / "keeper.py"
    program.write_text(
        "import os, sys\n"
        f"if os.path.exists({str(killed)!r}):\n"
        f"    sys.argv[0] = {str(step_process.KEEPER)!r}\n"
        "    os.execv(sys.executable, [sys.executable, '-I', '-S', *sys.argv])\n"
        f"open({str(killed)!r}, 'w').close()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    monkeypatch.setattr(step_process, "KEEPER", program)
    pool = KeeperPool()
    with anyio.fail_after(30):
        keeper = await pool.take()
    assert killed.exists()
    assert keeper.alive
    pool.retire(keeper)
    with anyio.CancelScope() as over:
        over.cancel()
        await pool.run()


async def says(store: SqliteStore, session_id: str, text: str) -> None:
    """Wait until a message is just `text`."""
    query = MessageQuery(limit=100, after=0)
    while True:
        seen = store.changes()
        page = await store.messages(ME, session_id, query)
        if text in [message.content for message in page.messages]:
            return
        await store.wait_change(seen, 0.1)
