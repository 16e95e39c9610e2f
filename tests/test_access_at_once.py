"""Letting a caller in costs no change of threads; and where it has to wait, the others do not wait with it."""

from __future__ import annotations

import fcntl
import hashlib
import threading
from collections.abc import AsyncGenerator

import anyio
import pytest

from bilt_mcp.state import SqliteAccess
from bilt_mcp.state.sqlite_limits import PATIENCE_SECONDS

from .support.http import new_key
from .support.places import Place
from .support.places import place as place  # a fixture, like `waits`
from .support.turns import Wait
from .support.turns import waits as waits
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def access(place: Place) -> AsyncGenerator[SqliteAccess]:
    async with SqliteAccess(place.location) as found:
        yield found


async def digest(access: SqliteAccess) -> bytes:
    return hashlib.sha256((await new_key(access)).encode()).digest()


async def test_who_is_let_in_is_seen_without_a_change_of_threads(
    access: SqliteAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await digest(access)
    threads: list[int] = []
    really = access._admit  # pyright: ignore[reportPrivateUsage]

    def admit(*args: object, **more: object) -> object:
        threads.append(threading.get_ident())
        return really(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(access, "_admit", admit)
    for left in (2, 1, 0, -1):
        admission = await access.admit(key, 3)
        assert admission is not None
        assert admission.window.remaining == left
    assert set(threads) == {threading.get_ident()}


async def test_while_another_process_counts_nobody_else_waits(
    access: SqliteAccess, waits: list[Wait]
) -> None:
    key = await digest(access)
    assert await access.admit(key, 3) is not None
    over = anyio.Event()

    async def ask() -> None:
        admission = await access.admit(key, 3)
        assert admission is not None
        assert admission.window.remaining == 1
        over.set()

    with access.location.limits_turn.open("r+b") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await wait_until(lambda: len(waits) == 2, "it waits")
            assert not over.is_set()
            assert waits == [Wait(True, 0.0), Wait(False, PATIENCE_SECONDS)]
            fcntl.flock(turn, fcntl.LOCK_UN)
            await wait_until(over.is_set, "it was counted after all")


async def test_many_at_once_are_all_counted_and_none_twice(access: SqliteAccess) -> None:
    key = await digest(access)
    found: list[int] = []

    async def ask() -> None:
        admission = await access.admit(key, 25)
        assert admission is not None
        found.append(admission.window.remaining)

    async def look() -> None:
        await access.look("other", 1)
        await access.hit("other", 0)

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(look)
            tasks.start_soon(ask)
    assert sorted(found) == [-1] * 15 + list(range(25))
