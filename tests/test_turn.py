"""Writers of one store take turns; the SQLite that they use is known, and a better one is taken when it is there."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread

import anyio
import pytest

from bilt_mcp.state import SqliteStore, StoreLocation
from bilt_mcp.state.driver import Version, has_wal_reset_bug
from bilt_mcp.state.turn import TurnTimeout, WriteTurn

from .support.waiting import wait_until

HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
FORKED = """
import os, pathlib, sys
from bilt_mcp.state.turn import WriteTurn
turn = WriteTurn(pathlib.Path(sys.argv[1]))
with turn.taken(10):
    pass
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
with turn.taken(10):
    print("held", flush=True)
    sys.stdin.read()
"""
CHOSEN = "from bilt_mcp.state import SQLITE_VERSION, WAL_RESET_NOTE as n; print(SQLITE_VERSION, 'bug' if n else 'fine')"


@contextmanager
def another_process_holds(path: Path) -> Generator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            yield holder
        finally:
            holder.kill()


def test_a_turn_that_is_not_given_back_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    turn = WriteTurn(tmp_path / "turn")
    with another_process_holds(tmp_path / "turn") as holder:
        with pytest.raises(TurnTimeout), turn.taken(0.05):
            raise AssertionError("two have the turn")
        holder.kill()
        with turn.taken(10):  # a dead process gives its turn back; who gave up does not take it
            pass
        with turn.taken(10):
            pass


async def lines_up(path: Path, waiting: int) -> None:
    """Until so many wait for the lock."""

    def in_line() -> int:
        inode = f":{path.stat().st_ino} "
        locks = Path("/proc/locks").read_text("ascii").splitlines()
        return sum("->" in line and inode in line for line in locks)

    await wait_until(lambda: in_line() == waiting, f"{waiting} wait for the turn")


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who waits for a lock")
async def test_turns_come_in_the_order_of_asking(tmp_path: Path) -> None:
    path = tmp_path / "turn"
    came: list[int] = []

    def come(number: int) -> None:
        with WriteTurn(path).taken(30):
            came.append(number)

    threads: list[Thread] = []
    with WriteTurn(path).taken(30):
        for number in range(8):
            threads.append(Thread(target=come, args=(number,)))
            threads[-1].start()
            await lines_up(path, number + 1)
    for thread in threads:
        thread.join()
    assert came == list(range(8))


def test_a_turn_whose_file_was_deleted_is_taken_with_the_others_at_the_new_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "turn"
    turn = WriteTurn(path)
    with turn.taken(10):
        pass
    path.unlink()
    with another_process_holds(path), pytest.raises(TurnTimeout), turn.taken(0.05):
        raise AssertionError("two have the turn")


def test_a_process_that_dies_gives_its_turn_back_although_a_child_lives_that_it_had_forked(
    tmp_path: Path,
) -> None:
    path = tmp_path / "turn"
    with subprocess.Popen(
        [sys.executable, "-c", FORKED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.stdout.readline() == b"held\n"
        parent.kill()
        os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
        with WriteTurn(path).taken(10):
            pass
        parent.stdin.close()  # the child's sign to go


@pytest.mark.anyio
async def test_opening_writing_and_closing_wait_for_their_turn(tmp_path: Path) -> None:
    location = StoreLocation.of(tmp_path / "store")
    location.prepare()
    done: list[str] = []
    may = {name: anyio.Event() for name in ("open", "write", "close")}

    async def live() -> None:
        await may["open"].wait()
        async with SqliteStore(location) as store:
            done.append("open")
            await may["write"].wait()
            await store.open_project("local", "/srv/shop", "shop")
            done.append("write")
            await may["close"].wait()
        done.append("close")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live)
        for name, event in may.items():
            held = os.open(location.turn, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX)
            event.set()
            await lines_up(location.turn, 1)
            assert name not in done
            os.close(held)
            await wait_until(partial(done.__contains__, name), f"{name} had its turn")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 4), False),
    ],
)
def test_which_sqlite_has_the_wal_reset_bug(version: Version, expected: bool) -> None:
    assert has_wal_reset_bug(version) is expected


def chosen(tmp_path: Path, own: Version, extra: Version | None) -> str:
    """What a new process chooses, between a SQLite of Python's own and one of the extra."""
    fake = "from sqlite3.dbapi2 import *\nsqlite_version_info = {0}\nsqlite_version = '.'.join(map(str, {0}))\n"
    if extra is not None:
        (tmp_path / "pysqlite3").mkdir()
        (tmp_path / "pysqlite3/__init__.py").write_text("")
        (tmp_path / "pysqlite3/dbapi2.py").write_text(fake.format(extra))
    own_text = ".".join(map(str, own))
    code = f"import sqlite3; sqlite3.sqlite_version_info, sqlite3.sqlite_version = {own}, '{own_text}'; {CHOSEN}"
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def test_a_sqlite_without_the_bug_is_taken_from_the_extra(tmp_path: Path) -> None:
    assert chosen(tmp_path, (3, 40, 1), (3, 53, 4)) == "3.53.4 fine"


def test_an_extra_that_is_no_better_is_left_alone(tmp_path: Path) -> None:
    assert chosen(tmp_path, (3, 40, 1), (3, 45, 0)) == "3.40.1 bug"


def test_pythons_own_sqlite_is_taken_when_it_is_fine(tmp_path: Path) -> None:
    assert chosen(tmp_path, (3, 51, 3), (3, 53, 4)) == "3.51.3 fine"
