"""Opening and closing a SQLite store: together, in bad places, on damaged files, and interrupted."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import anyio
import pytest

from bilt_mcp.state import SqliteStore, StoreLocation, StoreUnavailable
from bilt_mcp.state.migrate import migrations

from .store_contract import ME
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

NEWEST = migrations()[-1][0]

# Waits for a line, so that all start together; prints how many migrations it applied itself.
OPENER = """
import asyncio, sys
from bilt_mcp.state import SqliteStore, StoreLocation, migrate
applied, split = [], migrate.statements
migrate.statements = lambda script: applied.append(script) or split(script)
async def main():
    async with SqliteStore(StoreLocation.of(sys.argv[1])) as store:
        await store.open_project("me", "/srv/shop", "shop")
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
print(len(applied))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


async def make(folder: Path) -> StoreLocation:
    """A closed store with something in it."""
    location = StoreLocation.of(folder)
    async with SqliteStore(location) as store:
        for n in range(50):
            await store.open_project(ME, f"/srv/{n}", "shop")
    return location


async def refused(path: Path) -> str:
    """The words with which opening is refused."""
    with pytest.raises(StoreUnavailable) as error:
        async with SqliteStore(StoreLocation.of(path)):
            pass
    assert error.value.error == "Internal error"
    assert len(error.value.message) < 500
    return error.value.message


# -- together --------------------------------------------------------------------------------------


def test_of_twelve_processes_that_open_a_new_store_together_exactly_one_migrates_it(
    tmp_path: Path, soak_factor: int
) -> None:
    for round_ in range(soak_factor):
        place = tmp_path / str(round_)
        openers = [
            subprocess.Popen(
                [sys.executable, "-c", OPENER, str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(12)
        ]
        for opener in openers:
            assert opener.stdout is not None
            assert opener.stdout.readline() == "ready\n"
        for opener in openers:
            assert opener.stdin is not None
            opener.stdin.write("\n")
            opener.stdin.flush()
        ended = [opener.communicate(timeout=60) for opener in openers]
        assert [errors for _, errors in ended] == [""] * 12
        applied = sorted(int(told) for told, _ in ended)
        assert applied == [0] * 11 + [len(migrations())]
        with closing(sqlite3.connect(place / "bilt.db")) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (NEWEST,)
            assert connection.execute("SELECT count(*) FROM project").fetchone() == (1,)
            assert connection.execute("SELECT count(*) FROM worker").fetchone() == (1,)
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- versions --------------------------------------------------------------------------------------


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [number for number, _ in migrations()] == list(range(1, NEWEST + 1))


def make_recipes(folder: Path) -> StoreLocation:
    location = StoreLocation.of(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(location.database)) as connection, connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    return location


async def test_the_database_of_another_program_is_refused_and_left_alone(folder: Path) -> None:
    location = make_recipes(folder)
    before = location.database.read_bytes()
    told = await refused(folder)
    assert "the database of another program; nothing was changed in it" in told
    assert location.database.read_bytes() == before


async def test_a_store_of_a_newer_program_is_refused_and_left_alone(folder: Path) -> None:
    location = await make(folder)
    with closing(sqlite3.connect(location.database)) as connection:
        connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
    before = location.database.read_bytes()
    told = await refused(folder)
    assert "made by a newer bilt-mcp" in told
    assert f"schema {NEWEST + 1}; this one knows {NEWEST}" in told
    assert str(location.database) in told
    assert location.database.read_bytes() == before


async def test_a_store_is_there_again_when_it_is_opened_again(folder: Path) -> None:
    async with SqliteStore(StoreLocation.of(folder)) as store:
        made = await store.open_project(ME, "/srv/shop", "shop")
    async with SqliteStore(StoreLocation.of(folder)) as store:
        assert await store.project(ME, made.id) == made


# -- damage ----------------------------------------------------------------------------------------


def damaged(name: str, sound: bytes) -> bytes:
    match name:
        case "garbage":
            return Random(1).randbytes(8192)
        case "text":
            return b"[[step]]\nname = 'build'\n" * 400
        case "cut in half":
            return sound[: len(sound) // 2]
        case "cut in its first page":
            return sound[:1000]
        case "cut in its header":
            return sound[:50]
        case "a flipped bit in its name":
            return bytes([sound[0] ^ 1]) + sound[1:]
        case "a wrong page size":
            return sound[:16] + b"\x03\x01" + sound[18:]
        case _:
            raise AssertionError(name)


@pytest.mark.parametrize(
    "how",
    [
        "garbage",
        "text",
        "cut in half",
        "cut in its first page",
        "cut in its header",
        "a flipped bit in its name",
        "a wrong page size",
    ],
)
async def test_a_damaged_file_is_refused_and_left_untouched(folder: Path, how: str) -> None:
    location = await make(folder)
    broken = damaged(how, location.database.read_bytes())
    location.database.write_bytes(broken)
    told = await refused(folder)
    assert f"The store {location.database} is damaged or not a bilt store." in told
    assert "Move it away together with bilt.db-wal and bilt.db-shm (keep them)" in told
    assert location.database.read_bytes() == broken


async def test_a_store_that_is_damaged_inside_says_so_when_that_is_read(folder: Path) -> None:
    location = await make(folder)
    sound = location.database.read_bytes()
    page = int.from_bytes(sound[16:18], "big")
    location.database.write_bytes(sound[:page] + b"\xff" * (len(sound) - page))
    with pytest.raises(StoreUnavailable, match="damaged or not a bilt store"):
        async with SqliteStore(location) as store:
            await store.open_project(ME, "/srv/1", "shop")


async def test_what_was_committed_is_on_the_disk(folder: Path) -> None:
    async with SqliteStore(StoreLocation.of(folder)) as store:
        writer = store._writer  # pyright: ignore[reportPrivateUsage]
        assert writer is not None
        found = [
            await (await writer.execute(f"PRAGMA {name}")).fetchone()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
        assert [tuple(row) for row in found if row is not None] == [("wal",), (2,), (1,)]


# -- interrupted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_a_cancelled_caller_leaves_no_transaction_open(
    folder: Path, how: str, soak_factor: int
) -> None:
    location, random = StoreLocation.of(folder), Random(7)
    interrupted = 0
    async with SqliteStore(location) as store:
        with closing(sqlite3.connect(location.database, timeout=20, isolation_level=None)) as other:
            for n in range(200 * soak_factor):
                if how == "task":
                    call = asyncio.create_task(store.open_project(ME, f"/srv/{n}", "shop"))
                    await after(random)
                    call.cancel()
                    with suppress(asyncio.CancelledError):
                        await call
                    interrupted += call.cancelled()
                else:
                    with anyio.CancelScope() as scope:
                        async with anyio.create_task_group() as tasks:
                            tasks.start_soon(store.open_project, ME, f"/srv/{n}", "shop")
                            await after(random)
                            scope.cancel()
                    interrupted += scope.cancelled_caught
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert interrupted > 0
        project = await store.open_project(ME, "/srv/afterwards", "shop")
        assert await store.project(ME, project.id) == project


async def after(random: Random) -> None:
    """Some moments of the event loop, so that a cancel hits each point of a call."""
    for _ in range(random.randrange(12)):
        await asyncio.sleep(random.choice([0, 0, 0.0001, 0.0005]))


async def test_closing_leaves_no_thread_alive(folder: Path) -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        async with SqliteStore(StoreLocation.of(folder)) as store:
            await store.open_project(ME, "/srv/shop", "shop")
            assert set(threading.enumerate()) - before  # an earlier test's may just have ended
        await wait_until(lambda: set(threading.enumerate()) <= before, "the threads have ended")


async def test_closing_under_a_cancel_leaves_no_thread_alive(folder: Path) -> None:
    before = set(threading.enumerate())
    with anyio.CancelScope() as scope:
        async with SqliteStore(StoreLocation.of(folder)) as store:
            scope.cancel()
            await store.open_project(ME, "/srv/shop", "shop")
    assert scope.cancelled_caught
    await wait_until(lambda: set(threading.enumerate()) <= before, "the threads have ended")


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_an_opening_that_is_cancelled_leaves_no_thread_alive(folder: Path, how: str) -> None:
    before, random = set(threading.enumerate()), Random(3)

    async def use() -> None:
        async with SqliteStore(StoreLocation.of(folder)):
            pass

    for _ in range(50):
        if how == "task":
            call = asyncio.create_task(use())
            await after(random)
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call
        else:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(use)
                    await after(random)
                    scope.cancel()
    await wait_until(lambda: set(threading.enumerate()) <= before, "the threads have ended")


async def test_a_refused_opening_leaves_no_thread_alive(folder: Path) -> None:
    before = set(threading.enumerate())
    location = await make(folder)
    location.database.write_bytes(b"garbage" * 1000)
    await refused(folder)
    await wait_until(lambda: set(threading.enumerate()) <= before, "the threads have ended")


async def test_a_closed_store_says_that_it_is_closed(folder: Path) -> None:
    async with SqliteStore(StoreLocation.of(folder)) as store:
        pass
    with pytest.raises(StoreUnavailable, match="The store is closed"):
        await store.open_project(ME, "/srv/shop", "shop")
