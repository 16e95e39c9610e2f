"""Who is who among processes, and that nothing is left when worker, keeper or both are killed."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bilt_mcp.engine.processes import (
    ProcessId,
    Remains,
    Swept,
    boot_id,
    brand_of,
    identify,
    is_alive,
    sweep,
)
from bilt_mcp.engine.step_process import KEEPER

from .support.hostile import PYTHON, SHAPES, alive, command, end, python
from .support.rpc import PATIENCE

WORKER = """
import json, os, sys, anyio
from pathlib import Path
from bilt_mcp.engine.processes import become_subreaper, kill_strays
from bilt_mcp.engine.step_process import StepCommand, StepProcess, keeper_pids
async def main():
    folder, cookie, orphaned, argv = sys.argv[1:]
    folder = Path(folder)
    process = await StepProcess.spawn()
    spare = await StepProcess.spawn()
    env = {**os.environ, "BILT_COOKIE": cookie}
    after = (orphaned + ".lock", "sh", "-c", 'touch "$0"', orphaned) if orphaned else ()
    command = StepCommand(tuple(json.loads(argv)), folder, env, folder, "01", on_orphaned=after)
    leader = await process.start(command)
    async for chunk in process.chunks():
        if b"grown" in chunk.data:
            break
    me, it = process.identity, leader
    tell(keeper=[me.boot_id, me.pid, me.start_ticks], leader=[it.boot_id, it.pid, it.start_ticks])
    result = await process.wait()
    tell(lost=result.lost, killed=kill_strays(keeper_pids()), spare=spare.alive)
    await spare.aclose()
    await process.aclose()
def tell(**said):
    print(json.dumps(said), flush=True)
become_subreaper()
anyio.run(main)
"""


class Worker:
    """A worker in a process of its own, with one step running."""

    def __init__(self, folder: Path, shape: str, marker: str, orphaned: str = "") -> None:
        self.cookie = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                WORKER,
                os.fspath(folder),
                self.cookie,
                orphaned,
                json.dumps(command(shape, marker)),  # in one word: the worker has no marker
            ],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        said = self.hear()
        self.remains = Remains(
            ProcessId(*said["keeper"]),
            ProcessId(*said["leader"]),
            self.cookie,
            folder / "01.pids",
        )

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the worker ended"
        said: dict[str, Any] = json.loads(line)
        return said

    def kill(self, *, keeper: bool, worker: bool) -> None:
        if keeper and worker:
            self.process.send_signal(19)  # or it might kill the strays in between
        if keeper:
            assert self.remains.keeper is not None
            os.kill(self.remains.keeper.pid, 9)
        if worker:
            self.process.kill()
            self.close()

    def close(self) -> None:
        assert self.process.stdout is not None
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture
def marker() -> Iterator[str]:
    word = f"bilt-test-{uuid.uuid4().hex}"
    yield word
    left = alive(word)
    end(left)
    assert left == []


@pytest.fixture
def innocent() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of our business, in a session of its own, as a daemon would be."""
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def until(reached: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < limit, what
        time.sleep(0.005)


def until_none(marker: str) -> None:
    until(lambda: not alive(marker), "somebody is still alive")


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_outlives_a_killed_worker_and_its_successor_is_called(
    shape: str, tmp_path: Path, marker: str
) -> None:
    called = tmp_path / "called"
    worker = Worker(tmp_path, shape, marker, os.fspath(called))
    worker.kill(keeper=False, worker=True)
    until_none(marker)
    until(called.exists, "its successor is not called")


def test_a_keeper_calls_no_successor_where_somebody_else_is_starting_one(
    tmp_path: Path, marker: str
) -> None:
    called = tmp_path / "called"
    worker = Worker(tmp_path, "three children", marker, os.fspath(called))
    keeper = worker.remains.keeper
    assert keeper is not None
    with (tmp_path / "called.lock").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        worker.kill(keeper=False, worker=True)
        until_none(marker)
        until(lambda: not is_alive(keeper), "the keeper is still alive")
    assert not called.exists()


def test_a_keeper_whose_worker_died_before_it_was_up_ends(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    ours.close()
    with (
        theirs,
        subprocess.Popen(
            [*PYTHON, str(KEEPER), str(theirs.fileno()), str(writing)],
            pass_fds=(theirs.fileno(), writing),
        ) as keeper,
    ):
        os.close(reading)
        os.close(writing)
        try:
            assert keeper.wait(20) == 0
        finally:
            keeper.kill()


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_outlives_a_killed_keeper(shape: str, tmp_path: Path, marker: str) -> None:
    worker = Worker(tmp_path, shape, marker)
    worker.kill(keeper=True, worker=False)
    said = worker.hear()
    assert alive(marker) == []
    worker.close()
    assert said["lost"]
    assert said["spare"]
    assert said["killed"] >= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sweep_finds_all_when_worker_and_keeper_were_killed(
    shape: str, tmp_path: Path, marker: str
) -> None:
    worker = Worker(tmp_path, shape, marker)
    bare_daemons_are_listed(worker.remains, marker)
    worker.kill(keeper=True, worker=True)
    swept = sweep([worker.remains])
    assert alive(marker) == []
    assert swept.survivors == 0
    # A stopped process without its leader gets a HUP of the kernel, and is gone before the sweep.
    assert swept.killed >= (shape != "a stopped child")
    assert sweep([worker.remains]) == Swept(0, 0)


def bare_daemons_are_listed(remains: Remains, marker: str) -> None:
    """Return when the keeper's list has everybody whom the cookie would not give away."""

    def are_listed() -> bool:
        listed = {int(line.split()[0]) for line in remains.pids_path.read_text().split("\n")[1:-1]}
        return listed >= {pid for pid in alive(marker) if not environ(pid)}

    until(are_listed, "they are not all listed")


def environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b"gone"


def test_a_sweep_lets_a_live_keeper_finish(tmp_path: Path, marker: str) -> None:
    worker = Worker(tmp_path, "a mix of 48", marker)
    worker.kill(keeper=False, worker=True)
    swept = sweep([worker.remains])
    assert alive(marker) == []
    assert worker.remains.keeper is not None
    assert not is_alive(worker.remains.keeper)
    assert swept.survivors == 0


def test_a_sweep_ends_a_keeper_that_hangs(tmp_path: Path, marker: str) -> None:
    worker = Worker(tmp_path, "three children", marker)
    keeper = worker.remains.keeper
    assert keeper is not None
    os.kill(keeper.pid, 19)
    worker.kill(keeper=False, worker=True)
    swept = sweep([worker.remains])
    assert alive(marker) == []
    assert not is_alive(keeper)
    assert swept == Swept(5, 0)


def test_an_identity_is_exact(innocent: subprocess.Popen[bytes]) -> None:
    process = identify(innocent.pid)
    assert process is not None
    assert process.boot_id == boot_id() != ""
    assert is_alive(process)
    assert not is_alive(dataclasses.replace(process, start_ticks=process.start_ticks - 1))
    assert not is_alive(dataclasses.replace(process, boot_id="another boot"))


def test_a_zombie_is_not_alive() -> None:
    process = subprocess.Popen([*PYTHON, "-c", "input()"], stdin=subprocess.PIPE)
    known = identify(process.pid)
    assert known is not None
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(known)
    assert identify(process.pid) is None
    process.wait()
    assert identify(process.pid) is None


def test_a_program_whose_first_thread_ended_is_alive(marker: str) -> None:
    code = (
        "import ctypes, threading\nthreading.Thread(target=sleep).start()\n"
        "print('up', flush=True)\nctypes.CDLL(None).pthread_exit(None)"
    )
    process = subprocess.Popen(python(code, marker), stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    known = identify(process.pid)
    assert known is not None
    stat = Path(f"/proc/{process.pid}/stat")
    until(lambda: b") Z" in stat.read_bytes(), "its first thread has not ended")
    assert is_alive(known)
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("wrong", ["start", "boot"])
def test_a_sweep_spares_an_innocent_that_got_the_number(
    wrong: str, innocent: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    process = identify(innocent.pid)
    assert process is not None
    if wrong == "start":
        stale = dataclasses.replace(process, start_ticks=process.start_ticks - 1)
        listed = f"# {boot_id()}\n{stale.pid} {stale.start_ticks}\n"
    else:
        stale = dataclasses.replace(process, boot_id="another boot")
        listed = f"# another boot\n{stale.pid} {stale.start_ticks}\n"
    pids = tmp_path / "01.pids"
    pids.write_text(listed)
    assert sweep([Remains(stale, stale, "no such cookie", pids)]) == Swept(0, 0)
    assert sweep([Remains(None, None, "", pids)]) == Swept(0, 0)
    assert innocent.poll() is None


def test_a_sweep_never_ends_the_one_who_sweeps(tmp_path: Path) -> None:
    me = identify(os.getpid())
    parent = identify(os.getppid())
    assert me is not None
    assert sweep([Remains(parent, me, "", tmp_path / "none")]) == Swept(0, 0)


def test_a_sweep_with_nothing_on_record_ends_at_once(tmp_path: Path) -> None:
    assert sweep([]) == Swept(0, 0)
    assert sweep([Remains(None, None, "", tmp_path / "none")]) == Swept(0, 0)


def test_a_sweep_finds_what_cleared_its_environment_and_is_on_no_list(
    tmp_path: Path,
) -> None:
    marker = f"brand-{uuid.uuid4()}"
    code = (
        "import os, resource\n"
        f"resource.setrlimit(resource.RLIMIT_CORE, (0, {brand_of('a step')}))\n"
        "bare_daemon()\nprint('grown', flush=True)\n"
    )
    subprocess.run(python(code, marker), check=True, stdout=subprocess.DEVNULL)
    assert len(alive(marker)) == 1
    try:
        assert sweep([Remains(None, None, "another step", tmp_path / "none")]) == Swept(0, 0)
        assert len(alive(marker)) == 1
        assert sweep([Remains(None, None, "a step", tmp_path / "none")]) == Swept(1, 0)
        assert alive(marker) == []
    finally:
        end(alive(marker))
