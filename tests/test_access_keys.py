"""Keys: whom they let in, from when, and until when, in every process."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from bilt_mcp.state import (
    KeyAlreadyExists,
    KeyNotFound,
    SqliteAccess,
    StoreLocation,
    StoreUnavailable,
    digest_of,
    new_key,
)
from bilt_mcp.state import sqlite_access as module
from bilt_mcp.state.driver import sqlite3

from .store_contract import ManualClock
from .support.access import DAY, TEAM, digest, made

pytestmark = pytest.mark.anyio

MAKES_KEYS = """
import asyncio, sys
from bilt_mcp.state import Account, SqliteAccess, StoreLocation, digest_of, new_key

async def main(place):
    async with SqliteAccess(StoreLocation.of(place)) as access:
        for number in range(10_000):
            secret, shown = new_key()
            digest = digest_of(secret)
            await access.create_key(f"key{number}", Account("team"), digest, shown, read_only=False)
            print(secret, flush=True)

asyncio.run(main(sys.argv[1]))
"""
REVOKES = """
import asyncio, sys
from bilt_mcp.state import SqliteAccess, StoreLocation

async def main(place, name):
    async with SqliteAccess(StoreLocation.of(place)) as access:
        await access.revoke_key(name)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def location(tmp_path: Path) -> StoreLocation:
    return StoreLocation.of(tmp_path / "store")


@pytest.fixture
async def access(location: StoreLocation, clock: ManualClock) -> AsyncIterator[SqliteAccess]:
    async with SqliteAccess(location, clock) as opened:
        yield opened


async def is_in(access: SqliteAccess, name: str = "ci") -> bool:
    return await access.admit(digest(name), 0) is not None


# -- what a key looks like -----------------------------------------------------------------------


def test_a_new_key_is_a_prefix_and_32_random_bytes() -> None:
    secret, shown = new_key()
    assert re.fullmatch(r"bilt_live_[A-Za-z0-9_-]{43}", secret)
    assert secret.startswith(shown)
    assert len(shown) == len("bilt_live_") + 6, "not so much that the rest could be guessed"
    assert new_key()[0] != secret
    assert digest_of(secret) == hashlib.sha256(secret.encode()).digest()


# -- keys ----------------------------------------------------------------------------------------


async def test_a_key_says_whose_it_is_and_what_it_may(
    access: SqliteAccess, clock: ManualClock
) -> None:
    key = await access.create_key("ci", TEAM, digest("ci"), "bilt_ci", read_only=True)
    admitted = await access.admit(digest("ci"), 100)
    assert admitted is not None
    assert admitted.key == key
    assert (key.name, key.account, key.read_only, key.shown) == ("ci", "team", True, "bilt_ci")
    assert key.account.project_id == admitted.key.account.project_id == "a-project"
    assert (key.created_at, key.revoked_at, key.last_used_at) == (clock.now(), None, None)
    assert (admitted.window.limit, admitted.window.remaining) == (100, 99)


async def test_who_has_no_key_is_not_let_in(access: SqliteAccess) -> None:
    await made(access)
    assert not await is_in(access, "another")


async def test_a_key_that_is_asked_too_often_is_told_so_and_is_still_good(
    access: SqliteAccess,
) -> None:
    await made(access)
    await made(access, "other")
    answers = [await access.admit(digest("ci"), 2) for _ in range(3)]
    assert [a.window.exceeded for a in answers if a is not None] == [False, False, True]
    other = await access.admit(digest("other"), 2)
    assert other is not None
    assert not other.window.exceeded


async def test_a_name_is_one_key_s_as_long_as_that_is_in_use(access: SqliteAccess) -> None:
    first = await made(access)
    with pytest.raises(KeyAlreadyExists) as refused:
        await access.create_key("ci", TEAM, digest("b"), "b", read_only=False)
    assert "keys revoke ci" in refused.value.message
    await access.revoke_key("ci")
    again = await access.create_key("ci", TEAM, digest("b"), "b", read_only=False)
    assert [key.id for key in await access.keys()] == [first.id, again.id]
    await access.revoke_key("ci")
    assert not await is_in(access, "b")


@pytest.mark.parametrize("by", ["name", "id"])
async def test_a_revoked_key_is_unknown(access: SqliteAccess, clock: ManualClock, by: str) -> None:
    key = await made(access)
    await made(access, "other")
    clock.go_on(5000)
    revoked = await access.revoke_key(getattr(key, by))
    assert (revoked.id, revoked.revoked_at) == (key.id, clock.now())
    assert not await is_in(access)
    assert not await access.good(key.id)
    assert await is_in(access, "other")
    assert [one.revoked_at for one in await access.keys()] == [clock.now(), None]


@pytest.mark.parametrize("which", ["nobody", "ci"])
async def test_what_is_not_in_use_cannot_be_revoked(access: SqliteAccess, which: str) -> None:
    await made(access)
    await access.revoke_key("ci")
    with pytest.raises(KeyNotFound):
        await access.revoke_key(which)


async def test_another_process_that_revokes_a_key_is_obeyed_at_once(
    location: StoreLocation,
) -> None:
    async with SqliteAccess(location) as access:
        key = await made(access)
        login = await access.open_login(key.id, digest("login"), DAY, DAY)
        assert await is_in(access)
        argv = [sys.executable, "-c", REVOKES, str(location.folder), "ci"]
        await anyio.run_process(argv)
        assert not await is_in(access)
        assert await access.admit_login(digest("login"), 0) is None
        assert not await access.good(key.id)
        assert not await access.good(key.id, login.id)


async def test_it_is_known_when_a_key_was_last_used(
    access: SqliteAccess, location: StoreLocation, clock: ManualClock
) -> None:
    await made(access)
    await made(access, "unused")
    clock.go_on(1000)
    assert await is_in(access)
    async with SqliteAccess(location, clock) as other:
        assert [key.last_used_at for key in await other.keys()] == [clock.now(), None]
    clock.go_on(86_400_000)
    await access.hit("x", 1)  # which cleans up
    assert [key.last_used_at for key in await access.keys()] == [clock.now() - 86_400_000, None]


def keys_told_before_a_kill(location: StoreLocation) -> list[str]:
    argv = [sys.executable, "-c", MAKES_KEYS, str(location.folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        told = [maker.stdout.readline().strip() for _ in range(20)]
        maker.send_signal(signal.SIGKILL)
        return [*told, *(line.strip() for line in maker.stdout)]


async def test_a_key_that_was_told_is_there_after_a_kill(location: StoreLocation) -> None:
    told = keys_told_before_a_kill(location)
    async with SqliteAccess(location) as access:
        for secret in told:
            assert await access.admit(digest_of(secret), 0) is not None
        assert len(await access.keys()) in (len(told), len(told) + 1)


# -- the files -----------------------------------------------------------------------------------


async def test_nobody_else_can_read_the_files_and_no_secret_is_in_them(
    location: StoreLocation,
) -> None:
    old = os.umask(0)
    try:
        async with SqliteAccess(location) as access:
            secret, shown = new_key()
            key = await access.create_key("ci", TEAM, digest_of(secret), shown, read_only=False)
            await access.open_login(key.id, digest("login"), DAY, DAY)
            await access.admit(digest_of(secret), 5)
            files = [file for file in location.folder.iterdir() if file.is_file()]
            names = {file.name for file in files}
            assert {"access.db", "access.db-wal", "limits.db", "limits.db-wal"} <= names
            for file in files:
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
                assert secret[20:].encode() not in file.read_bytes(), file
            assert stat.S_IMODE(location.folder.stat().st_mode) == 0o700
    finally:
        os.umask(old)


async def test_who_is_let_in_does_not_wait_for_a_key_that_is_being_made(
    location: StoreLocation,
) -> None:
    async with SqliteAccess(location) as access:
        await made(access)
        with location.access_turn.open("r+b") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(made, access, "new")
                await anyio.wait_all_tasks_blocked()
                with anyio.fail_after(30):
                    assert await is_in(access)
                fcntl.flock(turn, fcntl.LOCK_UN)
        assert await is_in(access, "new")


async def test_a_process_that_is_stopped_while_it_makes_a_key_holds_up_nobody_who_has_one(
    location: StoreLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr("bilt_mcp.state.group_commit.BUSY_SECONDS", 0.2)
    async with SqliteAccess(location) as access:
        await made(access)
        with contextlib.closing(sqlite3.connect(location.access)) as stopped:
            stopped.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked"):
                await made(access, "new")
            assert await is_in(access)
        await made(access, "new")


async def test_keys_that_a_newer_program_has_made_are_left_alone(location: StoreLocation) -> None:
    async with SqliteAccess(location):
        pass
    with contextlib.closing(sqlite3.connect(location.access)) as newer:
        newer.execute("PRAGMA user_version = 999")
    with pytest.raises(StoreUnavailable, match="newer bilt-mcp"):
        async with SqliteAccess(location):
            pass


async def test_damaged_keys_are_not_made_anew(location: StoreLocation) -> None:
    location.prepare()
    location.access.write_bytes(b"nothing of SQLite's " * 500)
    with pytest.raises(StoreUnavailable, match="damaged") as refused:
        async with SqliteAccess(location):
            pass
    assert "keys create" in refused.value.message
    assert location.access.read_bytes().startswith(b"nothing of SQLite's")


async def test_a_closed_one_says_so(location: StoreLocation) -> None:
    access = SqliteAccess(location)
    async with access:
        pass
    with pytest.raises(StoreUnavailable, match="closed"):
        await access.admit(b"", 0)
