"""What waiting costs the SQLite store: one look for all who wait, and none when nobody does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bilt_mcp.state import Note, SqliteStore, StoreLocation
from bilt_mcp.state.lookout import POLL_SECONDS, URGENT_POLL_SECONDS, Key, Lookout, Told

from .store_contract import ME, Kind, ManualClock, Scene, Subject
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

WATCHERS = 100
LOOK = "PRAGMA data_version"


def statements(store: SqliteStore) -> list[str]:
    """What is asked of the store from now on, by whoever waits or reads."""
    said: list[str] = []
    reader: Any = store._reader  # pyright: ignore[reportPrivateUsage]
    probe: Any = store._probe  # pyright: ignore[reportPrivateUsage]
    for connection in (reader._conn, probe):
        connection.set_trace_callback(said.append)
    return said


def revisions_asked(said: list[str]) -> int:
    return sum(1 for text in said if text.startswith("SELECT id, account, revision"))


async def begun(said: list[str]) -> None:
    """Return when all have read their session and wait."""

    def have_read() -> bool:
        return sum(1 for text in said if "FROM session AS s" in text) >= WATCHERS

    await wait_until(have_read, "all have read their session")
    while set(said) != {LOOK}:
        said.clear()
        await wait_until(lambda: len(said) >= 3, "it is looked again")
    said.clear()


async def passed(store: SqliteStore, subject: Subject) -> bool:
    with store.watch(ME, subject.session_id) as watch:
        known = (await store.session(ME, subject.session_id)).revision
        return await watch.passed(known, 60)


async def test_a_commit_costs_one_look_however_many_watch_other_sessions(quick_path: Path) -> None:
    location = StoreLocation.of(quick_path / "store")
    clock = ManualClock()
    async with SqliteStore(location, clock) as store, SqliteStore(location, clock) as other:
        scene = Scene(store)
        talking, quiet = await scene.subject(Kind.RUNNING), await scene.subject(Kind.RUNNING)
        said = statements(store)
        waits = [asyncio.create_task(passed(store, quiet)) for _ in range(WATCHERS)]
        await begun(said)
        for number in range(1, 11):
            await other.note(talking.claim, [Note("line")])
            await wait_until(lambda n=number: revisions_asked(said) >= n, "it is looked at")  # type: ignore[misc]
        await anyio.sleep(0.1)
        assert 10 <= revisions_asked(said) <= 20
        assert not [text for text in said if "FROM session AS s" in text]
        assert not any(wait.done() for wait in waits)
        await other.note(quiet.claim, [], percent=1)
        assert all(await asyncio.gather(*waits))


async def test_nobody_looks_when_nobody_waits_and_one_when_a_hundred_do(quick_path: Path) -> None:
    async with SqliteStore(StoreLocation.of(quick_path / "store"), ManualClock()) as store:
        subject = await Scene(store).subject(Kind.RUNNING)
        said = statements(store)
        await anyio.sleep(0.1)
        assert said == []
        waits = [asyncio.create_task(passed(store, subject)) for _ in range(WATCHERS)]
        await begun(said)
        began = time.monotonic()
        await anyio.sleep(0.5)
        looks, took = len(said), time.monotonic() - began
        assert set(said) == {LOOK}
        assert 1 <= looks <= took / POLL_SECONDS + 2, "for all of them"
        assert URGENT_POLL_SECONDS < POLL_SECONDS <= 0.02, "others' news are told at once"
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        said.clear()
        await anyio.sleep(0.1)
        assert said == []


async def test_when_revisions_cannot_be_read_everybody_looks_for_himself(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteStore(StoreLocation.of(quick_path / "store"), ManualClock()) as store:
        subject = await Scene(store).subject(Kind.RUNNING)
        waits = [asyncio.create_task(passed(store, subject)) for _ in range(3)]
        await anyio.sleep(0.05)
        monkeypatch.setattr("bilt_mcp.state.sqlite_base._REVISIONS", "SELECT nothing")
        store.nudge()
        with anyio.fail_after(30):
            assert all(await asyncio.gather(*waits))


async def test_what_is_committed_while_a_question_is_under_way_is_asked_for_again() -> None:
    asked: list[tuple[Collection[Key], Told]] = []
    lookout = Lookout(lambda: 1, lambda keys, told: asked.append((keys, told)))
    lookout.open()
    with lookout.watch(ME, "a session") as watch:
        waiting = asyncio.create_task(watch.passed(1, 60))
        await anyio.lowlevel.checkpoint()
        for _ in range(3):
            lookout.bump()
        assert [set(keys) for keys, _ in asked] == [{(ME, "a session", False, None)}], (
            "one at a time"
        )
        asked[0][1]({(ME, "a session", False, None): 1})  # as it was before the second commit
        assert len(asked) == 2
        asked[1][1]({(ME, "a session", False, None): 2})
        with anyio.fail_after(30):
            assert await waiting
        assert len(asked) == 2
    lookout.close()
