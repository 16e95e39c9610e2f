"""Logins: until when they are good, by which clock, and with which key."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bilt_mcp.state import KeyNotFound, SqliteAccess, StoreLocation
from bilt_mcp.state import sqlite_access as module
from bilt_mcp.state.driver import sqlite3

from .store_contract import ManualClock
from .support.access import DAY, digest, made

pytestmark = pytest.mark.anyio


@pytest.fixture
def location(tmp_path: Path) -> StoreLocation:
    return StoreLocation.of(tmp_path / "store")


@pytest.fixture
async def access(location: StoreLocation, clock: ManualClock) -> AsyncIterator[SqliteAccess]:
    async with SqliteAccess(location, clock) as opened:
        yield opened


async def test_a_login_is_counted_for_itself_and_not_for_its_key(access: SqliteAccess) -> None:
    key = await made(access)
    login = await access.open_login(key.id, digest("login"), DAY, DAY)
    for remaining in (1, 0, -1):
        admitted = await access.admit_login(digest("login"), 2)
        assert admitted is not None
        assert (admitted.login, admitted.key) == (login, key)
        assert admitted.window.remaining == remaining
    of_key = await access.admit(digest("ci"), 2)
    assert of_key is not None
    assert of_key.window.remaining == 1
    assert await access.admit_login(digest("ci"), 2) is None, "a key is no login"
    assert await access.admit(digest("login"), 2) is None, "a login is no key"


async def test_a_login_ends_when_it_is_ended(access: SqliteAccess) -> None:
    key = await made(access)
    login = await access.open_login(key.id, digest("login"), DAY, DAY)
    other = await access.open_login(key.id, digest("other"), DAY, DAY)
    await access.end_login(digest("login"))
    await access.end_login(digest("never was"))
    assert await access.admit_login(digest("login"), 0) is None
    assert not await access.good(key.id, login.id)
    assert await access.good(key.id, other.id)
    assert await access.good(key.id)


async def test_a_login_ends_with_its_time(access: SqliteAccess, clock: ManualClock) -> None:
    key = await made(access)
    login = await access.open_login(key.id, digest("login"), 100, 100)
    assert login.expires_at == clock.now() + 100_000
    clock.go_on(99_999)
    assert await access.admit_login(digest("login"), 0) is not None
    clock.go_on(1)
    assert await access.admit_login(digest("login"), 0) is None
    assert not await access.good(key.id, login.id)


async def test_a_login_that_nobody_uses_ends_sooner(
    access: SqliteAccess, clock: ManualClock
) -> None:
    key = await made(access)
    login = await access.open_login(key.id, digest("login"), 1000, 10)
    for _ in range(3):
        clock.go_on(9_999)
        assert await access.good(key.id, login.id)
        assert await access.admit_login(digest("login"), 100) is not None
    clock.go_on(9_999)
    assert await access.good(key.id, login.id), "asking is not using"
    clock.go_on(1)
    assert not await access.good(key.id, login.id)
    assert await access.admit_login(digest("login"), 100) is None
    assert await access.admit_login(digest("login"), 100) is None, "nor has asking revived it"


async def test_a_login_that_was_never_used_ends_sooner_too(
    access: SqliteAccess, clock: ManualClock
) -> None:
    key = await made(access)
    await access.open_login(key.id, digest("login"), 1000, 10)
    clock.go_on(10_000)
    assert await access.admit_login(digest("login"), 100) is None


@pytest.mark.parametrize("idle", [1000.0, 10.0])
async def test_setting_the_time_back_keeps_no_login_alive(
    access: SqliteAccess, clock: ManualClock, idle: float
) -> None:
    key = await made(access)
    await access.open_login(key.id, digest("login"), 100, idle)
    assert await access.admit_login(digest("login"), 100) is not None
    clock.wall -= 86_400_000
    assert await access.admit_login(digest("login"), 100) is not None
    clock.go_on(100_000)
    assert await access.admit_login(digest("login"), 100) is None


async def test_a_machine_that_slept_has_not_kept_a_login_alive(
    access: SqliteAccess, clock: ManualClock
) -> None:
    key = await made(access)
    await access.open_login(key.id, digest("login"), 100, 100)
    clock.wall += 100_000  # the monotonic clock rests meanwhile
    assert await access.admit_login(digest("login"), 100) is None


async def test_a_login_outlives_a_restart_of_the_machine(
    location: StoreLocation, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteAccess(location, clock) as access:
        key = await made(access)
        await access.open_login(key.id, digest("login"), 100, 100)
        assert await access.admit_login(digest("login"), 1) is not None
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    monkeypatch.setattr("bilt_mcp.state.sqlite_limits.boot_id", lambda: "another")
    clock.mono = 9_000_000_000
    async with SqliteAccess(location, clock) as access:
        admitted = await access.admit_login(digest("login"), 1)
        assert admitted is not None
        assert not admitted.window.exceeded


async def test_a_key_that_was_revoked_opens_no_login(access: SqliteAccess) -> None:
    key = await made(access)
    await access.revoke_key("ci")
    with pytest.raises(KeyNotFound):
        await access.open_login(key.id, digest("login"), DAY, DAY)


async def test_a_login_of_another_key_is_not_good_with_this_one(access: SqliteAccess) -> None:
    one, other = await made(access), await made(access, "other")
    login = await access.open_login(one.id, digest("login"), DAY, DAY)
    assert not await access.good(other.id, login.id)


async def test_logins_whose_time_is_up_are_deleted(
    access: SqliteAccess, location: StoreLocation, clock: ManualClock
) -> None:
    key = await made(access)
    for number in range(5):
        await access.open_login(key.id, digest(str(number)), 10, 10)
        await access.admit_login(digest(str(number)), 5)
    clock.go_on(60_000)
    await access.open_login(key.id, digest("new"), 10, 10)
    await access.admit_login(digest("new"), 5)
    with contextlib.closing(sqlite3.connect(location.access)) as other:
        assert other.execute("SELECT count(*) FROM login").fetchone() == (1,)
    with contextlib.closing(sqlite3.connect(location.limits)) as other:
        assert other.execute("SELECT count(*) FROM bucket").fetchone() == (1,)
