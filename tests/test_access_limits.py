"""Limits hold for all processes together, and nobody is kept waiting for a count."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Generator, Sequence
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bilt_mcp.state import (
    SqliteAccess,
    StoreLocation,
    StoreUnavailable,
    Window,
)
from bilt_mcp.state import sqlite_limits as limits
from bilt_mcp.state.driver import sqlite3
from bilt_mcp.state.sqlite_limits import WINDOW_MS, Limits

from .store_contract import ManualClock
from .support.small_disk import on_small_disk
from .support.turns import Wait
from .support.turns import waits as waits  # a fixture

pytestmark = pytest.mark.anyio

RACER = """
import asyncio, sys
from bilt_mcp.state import SqliteAccess, StoreLocation

async def main(place, times, limit):
    async with SqliteAccess(StoreLocation.of(place)) as access:
        print("ready", flush=True)
        sys.stdin.readline()
        allowed = 0
        for _ in range(times):
            allowed += not (await access.hit("all", limit)).exceeded
        print(allowed, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""
STOPS_ITSELF = """
import os, signal, sys
from bilt_mcp.state import StoreLocation, SystemClock
from bilt_mcp.state.sqlite_limits import Limits

def stop(connection):
    connection.execute("UPDATE bucket SET used_at = used_at")
    os.kill(os.getpid(), signal.SIGSTOP)

limits = Limits(StoreLocation.of(sys.argv[1]), SystemClock())
limits.run(lambda c: None)
limits.run(stop)
print("over", flush=True)
"""
DAMAGES = "import sys; f = open(sys.argv[1], 'r+b'); f.write(b'x' * 8192); f.flush()"
REPLACES = """
import os, sys
for suffix in ("-wal", "-shm", ""):
    if os.path.exists(sys.argv[1] + suffix):
        os.unlink(sys.argv[1] + suffix)
"""
FULL = """
import asyncio, os, sqlite3, sys
from bilt_mcp.state import Account, SqliteAccess, StoreLocation

def fill(path):
    block = bytes(1 << 20)
    with open(path, "ab", buffering=0) as filler:
        while block:
            try:
                filler.write(block)
            except OSError:
                block = block[: len(block) // 2]

async def main(place):
    location = StoreLocation.of(place)
    async with SqliteAccess(location) as access:
        await access.create_key("ci", Account("local"), b"k" * 32, "bilt_live_x", read_only=False)
        print((await access.hit("x", 3)).remaining)
        other = sqlite3.connect(location.limits)
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        fill(location.folder / "filler")
        print((await access.hit("x", 3)).remaining)
        print((await access.hit("x", 3)).remaining)
        print((await access.admit(b"k" * 32, 3)).window.remaining)
        os.unlink(location.folder / "filler")
        print((await access.hit("x", 3)).remaining)

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def location(tmp_path: Path) -> StoreLocation:
    return StoreLocation.of(tmp_path / "store")


@pytest.fixture
async def access(location: StoreLocation, clock: ManualClock) -> AsyncIterator[SqliteAccess]:
    async with SqliteAccess(location, clock) as opened:
        yield opened


def run(script: str, *arguments: object) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def done(script: str, *arguments: object) -> None:
    with run(script, *arguments) as process:
        assert process.wait(30) == 0


@contextlib.contextmanager
def stopped_while_it_counts(location: StoreLocation) -> Generator[subprocess.Popen[str]]:
    with run(STOPS_ITSELF, location.folder) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            yield process
        finally:
            process.kill()


def left(window: Window) -> int:
    return window.remaining


# -- what is counted -----------------------------------------------------------------------------


def test_four_processes_together_get_exactly_what_is_allowed(location: StoreLocation) -> None:
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(run(RACER, location.folder, 200, 100)) for _ in range(4)]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        told = [racer.communicate("go\n", timeout=60)[0] for racer in racers]
    assert sum(map(int, told)) == 100


async def test_a_window_slides(access: SqliteAccess, clock: ManualClock) -> None:
    first = clock.now()
    assert left(await access.hit("x", 2)) == 1
    clock.go_on(40_000)
    assert left(await access.hit("x", 2)) == 0
    refused = await access.hit("x", 2)
    assert refused.exceeded
    assert refused == Window(2, -1, first + WINDOW_MS)
    clock.go_on(19_999)
    assert (await access.hit("x", 2)).exceeded
    clock.go_on(1)
    again = await access.hit("x", 2)
    assert again == Window(2, 0, first + 40_000 + WINDOW_MS)


async def test_what_is_refused_does_not_count(access: SqliteAccess, clock: ManualClock) -> None:
    await access.hit("x", 1)
    for _ in range(5):
        clock.go_on(10_000)
        assert (await access.hit("x", 1)).exceeded
    clock.go_on(10_000)
    assert not (await access.hit("x", 1)).exceeded


async def test_a_look_counts_nothing_and_says_whether_there_is_room(access: SqliteAccess) -> None:
    assert left(await access.look("x", 1)) == 1
    assert left(await access.look("x", 1)) == 1
    await access.hit("x", 1)
    assert (await access.look("x", 1)).exceeded
    assert not (await access.look("y", 1)).exceeded


async def test_who_counts_in_another_bucket_takes_nothing_away(access: SqliteAccess) -> None:
    await access.hit("10.0.0.1", 1)
    assert not (await access.hit("10.0.0.2", 1)).exceeded


async def test_without_a_limit_everything_is_allowed(access: SqliteAccess) -> None:
    for _ in range(3):
        assert await access.hit("x", 0) == Window(0, 0, (await access.look("x", 0)).reset_at)


async def test_a_limit_that_was_lowered_says_when_there_is_room_again(
    access: SqliteAccess, clock: ManualClock
) -> None:
    for _ in range(3):
        await access.hit("x", 3)
        clock.go_on(1000)
    refused = await access.hit("x", 1)
    assert refused.exceeded
    clock.go_on(refused.reset_at - clock.now() - 1)
    assert (await access.hit("x", 1)).exceeded
    clock.go_on(1)
    assert not (await access.hit("x", 1)).exceeded


async def test_setting_the_time_gives_nobody_more_and_takes_nothing_away(
    access: SqliteAccess, clock: ManualClock
) -> None:
    await access.hit("x", 2)
    for jump in (86_400_000, -2 * 86_400_000):
        clock.wall += jump
        assert left(await access.look("x", 2)) == 1
        assert (await access.look("x", 2)).reset_at == clock.now() + WINDOW_MS


async def test_what_another_boot_has_counted_counts_no_more(
    location: StoreLocation, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteAccess(location, clock) as access:
        await access.hit("x", 1)
    monkeypatch.setattr(limits, "boot_id", lambda: "another")
    clock.mono += 10  # it begins anew, and so may be anywhere
    async with SqliteAccess(location, clock) as access:
        assert not (await access.hit("x", 1)).exceeded


async def test_a_clock_that_went_back_holds_nobody_up_for_ever(
    access: SqliteAccess, clock: ManualClock
) -> None:
    await access.hit("x", 1)
    clock.mono -= 4_000_000
    assert not (await access.hit("x", 1)).exceeded
    assert (await access.hit("x", 1)).exceeded


async def test_what_counts_no_more_is_deleted(
    access: SqliteAccess, clock: ManualClock, location: StoreLocation
) -> None:
    for number in range(50):
        await access.hit(f"10.0.0.{number}", 5)
    clock.go_on(WINDOW_MS)
    await access.hit("10.0.1.1", 5)
    with contextlib.closing(sqlite3.connect(location.limits)) as other:
        assert other.execute("SELECT name FROM bucket").fetchall() == [("other 10.0.1.1",)]


Step = tuple[int, str]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    limit=st.integers(1, 4),
    steps=st.lists(
        st.tuples(
            st.sampled_from([0, 1, 999, 20_000, 30_000, 59_999, 60_000, 60_001, 200_000]),
            st.sampled_from(["hit", "look", "hit", "other", "reopen"]),
        ),
        max_size=25,
    ),
)
def test_a_window_is_what_a_list_of_times_says(
    tmp_path_factory: pytest.TempPathFactory, limit: int, steps: Sequence[Step]
) -> None:
    location = StoreLocation.of(tmp_path_factory.mktemp("store"))
    clock = ManualClock()
    counted: list[int] = []
    opened = Limits(location, clock)
    location.prepare()
    for pause, what in steps:
        clock.go_on(pause)
        now = clock.monotonic()
        recent = [at for at in counted if now - at < WINDOW_MS]
        if what == "reopen":
            opened.close()  # the next use opens it again
        elif what == "other":
            opened.run(lambda c: opened.hit(c, "another", limit))
        elif what == "look":
            window = opened.run(lambda c: opened.look(c, "x", limit))
            assert window.remaining == (limit - len(recent) or -1)
        else:
            answer = opened.run(lambda c: opened.hit(c, "x", limit))
            assert answer is not None
            assert answer[0].exceeded == (len(recent) >= limit)
            if not answer[0].exceeded:
                counted.append(now)
                recent.append(now)
                assert answer[0].remaining == limit - len(recent)
            assert answer[0].reset_at == clock.now() + recent[0] + WINDOW_MS - now
    opened.close()


# -- what goes wrong -----------------------------------------------------------------------------


async def test_a_process_that_is_stopped_while_it_counts_holds_up_nobody_for_long(
    location: StoreLocation, monkeypatch: pytest.MonkeyPatch, waits: list[Wait]
) -> None:
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 0.3)
    async with SqliteAccess(location) as access:
        await access.hit("x", 50)
        with stopped_while_it_counts(location) as stopped:
            answers = await asyncio.gather(
                *(access.hit("x", 50) for _ in range(10)), return_exceptions=True
            )
            assert all(isinstance(answer, StoreUnavailable) for answer in answers)
            assert "limits.db" in str(answers[0])
            assert "locked" in str(answers[0])
            # Not one after the other: the first has waited, and the others know.
            assert sum(wait.patience for wait in waits if wait.holds_up_all) == 0
            patience = [wait.patience for wait in waits if not wait.holds_up_all]
            assert patience == [0.3] + [limits.IMPATIENT_SECONDS] * 9
            os.kill(stopped.pid, signal.SIGCONT)
            assert stopped.stdout is not None
            assert await anyio.to_thread.run_sync(stopped.stdout.readline) == "over\n"
        assert left(await access.hit("x", 50)) == 48


async def test_who_counts_takes_turns_with_others_so_that_no_two_write_at_once(
    location: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PATIENCE_SECONDS", 0.2)
    async with SqliteAccess(location) as access:
        with location.limits_turn.open("r+b") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            with pytest.raises(StoreUnavailable, match="locked"):
                await access.hit("x", 5)
        assert left(await access.hit("x", 5)) == 4


async def test_a_count_that_is_damaged_begins_anew(location: StoreLocation) -> None:
    async with SqliteAccess(location) as access:
        await access.hit("x", 5)
    done(DAMAGES, location.limits)
    async with SqliteAccess(location) as access:
        assert left(await access.hit("x", 5)) == 4
        assert left(await access.hit("x", 5)) == 3
        assert location.limits.stat().st_mode & 0o777 == 0o600


async def test_a_count_that_is_made_anew_is_again_the_same_for_all(
    location: StoreLocation,
) -> None:
    async with SqliteAccess(location) as one, SqliteAccess(location) as other:
        await one.hit("x", 5)
        await other.hit("x", 5)
        done(REPLACES, location.limits)
        assert left(await other.hit("x", 5)) == 4
        assert left(await one.hit("x", 5)) == 3
        assert left(await other.hit("x", 5)) == 2


async def test_damage_while_it_is_open_is_mended(location: StoreLocation) -> None:
    async with SqliteAccess(location) as one:
        await one.hit("x", 5)
        with contextlib.closing(sqlite3.connect(location.limits)) as vandal:
            vandal.execute("DROP TABLE bucket")
        assert left(await one.hit("x", 5)) == 4
        assert left(await one.hit("x", 5)) == 3


async def test_counts_of_another_program_s_file_are_refused_and_it_is_left_alone(
    location: StoreLocation,
) -> None:
    location.prepare()
    with contextlib.closing(sqlite3.connect(location.limits)) as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreUnavailable, match="another program"):
        async with SqliteAccess(location):
            pass
    with contextlib.closing(sqlite3.connect(location.limits)) as foreign:
        assert foreign.execute("SELECT count(*) FROM theirs").fetchone() == (0,)


def test_while_the_disk_is_full_a_process_counts_for_itself(location: StoreLocation) -> None:
    location.folder.mkdir()
    argv = [*on_small_disk(location.folder, "4m"), sys.executable, "-c", FULL, str(location.folder)]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert said.stdout.split() == ["2", "2", "1", "2", "1"], said.stderr
