"""Writers of one SQLite store object who wait at the same time share a commit, and nobody notices but the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from bilt_mcp.state import (
    Claim,
    MessageQuery,
    Note,
    SqliteStore,
    StoreFull,
    StoreLocation,
    StoreUnavailable,
    WorkflowAlreadyActive,
)
from bilt_mcp.state.group_commit import MOST_TOGETHER

from .store_contract import ME, PLAN, Kind, ManualClock, Scene, Subject
from .support.groups import Call, held_back, together
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def location(quick_path: Path) -> StoreLocation:
    return StoreLocation.of(quick_path / "store")


@pytest.fixture
async def store(location: StoreLocation) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(location, ManualClock()) as opened:
        yield opened


@pytest.fixture
async def subject(store: SqliteStore) -> Subject:
    return await Scene(store).subject(Kind.RUNNING)


def connection_of(store: SqliteStore) -> sqlite3.Connection:
    writer: Any = store._writer  # pyright: ignore[reportPrivateUsage]
    return writer._conn  # type: ignore[no-any-return]


def statements(store: SqliteStore) -> list[str]:
    """The first words of what the writing connection does from now on."""
    found: list[str] = []
    connection_of(store).set_trace_callback(lambda text: found.append(text.split()[0].upper()))
    return found


async def said(store: SqliteStore, claim: Claim) -> list[tuple[int, str]]:
    page = await store.messages(ME, claim.session_id, MessageQuery(limit=100, variant="log"))
    return [(message.id, message.content) for message in reversed(page.messages)]


def note(store: SqliteStore, subject: Subject, text: object) -> Call:
    return store.note(subject.claim, [Note(str(text), "log")])


async def test_sixteen_who_write_at_once_share_one_commit_and_are_told_in_the_order_of_their_ids(
    store: SqliteStore, location: StoreLocation, subject: Subject
) -> None:
    told: list[str] = []

    async def write(number: int) -> None:
        await note(store, subject, number)
        told.append(str(number))

    found = statements(store)
    await together(store, location, *(write(number) for number in range(16)))
    assert (found.count("BEGIN"), found.count("COMMIT"), found.count("ROLLBACK")) == (1, 1, 0)
    kept = await said(store, subject.claim)
    assert [text for _, text in kept] == told == [str(number) for number in range(16)]
    assert [at for at, _ in kept] == list(range(kept[0][0], kept[0][0] + 16))


async def test_a_crowd_is_taken_in_groups_so_that_other_processes_get_their_turn(
    store: SqliteStore, location: StoreLocation, subject: Subject
) -> None:
    found = statements(store)
    crowd = [note(store, subject, number) for number in range(MOST_TOGETHER + 1)]
    assert await together(store, location, *crowd) == [None] * len(crowd)
    assert found.count("COMMIT") == 2


async def test_who_comes_alone_pays_for_no_group(store: SqliteStore, subject: Subject) -> None:
    found = statements(store)
    await note(store, subject, "alone")
    assert "SAVEPOINT" not in found


def spoil(then: Callable[[sqlite3.Connection], object]) -> Callable[[sqlite3.Connection], None]:
    """A write that changes every session and then does `then` and raises."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE session SET revision = revision + 1000")
        then(connection)
        raise LookupError("its own trouble")

    return work


@pytest.mark.parametrize("undone", ["it", "all of them"])
async def test_one_of_a_group_that_raises_takes_only_itself_back(
    store: SqliteStore, location: StoreLocation, subject: Subject, undone: str
) -> None:
    # Some errors of SQLite's undo the whole transaction: the others are done once more.
    work = spoil(lambda c: c.execute("ROLLBACK") if undone == "all of them" else None)
    before = (await store.session(ME, subject.session_id)).revision
    answers = await together(
        store,
        location,
        note(store, subject, 1),
        store.start(ME, subject.session_id, "again", PLAN),
        store._write(work),  # pyright: ignore[reportPrivateUsage]
        note(store, subject, 2),
    )
    assert [type(answer) for answer in answers] == [
        type(None),
        WorkflowAlreadyActive,
        LookupError,
        type(None),
    ]
    assert [text for _, text in await said(store, subject.claim)] == ["1", "2"]
    assert (await store.session(ME, subject.session_id)).revision == before


async def test_a_write_that_breaks_the_rules_of_the_schema_leaves_the_group_as_it_was(
    store: SqliteStore, location: StoreLocation, subject: Subject
) -> None:
    def revive(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE workflow SET status = 'pending'")

    answers = await together(
        store,
        location,
        note(store, subject, 1),
        store._write(revive),  # pyright: ignore[reportPrivateUsage]
        note(store, subject, 2),
    )
    assert [type(answer) for answer in answers] == [
        type(None),
        sqlite3.IntegrityError,
        type(None),
    ]
    assert [text for _, text in await said(store, subject.claim)] == ["1", "2"]


async def test_nobody_is_told_anything_before_the_commit(
    store: SqliteStore, location: StoreLocation, subject: Subject
) -> None:
    reached, may_commit = threading.Event(), threading.Event()

    def stop_there(statement: str) -> None:
        if statement == "COMMIT":
            reached.set()
            may_commit.wait(30)

    connection_of(store).set_trace_callback(stop_there)
    calls = (
        note(store, subject, 1),
        store.start(ME, subject.session_id, "again", PLAN),
        note(store, subject, 2),
    )
    async with held_back(store, location, *calls) as tasks:
        pass
    await wait_until(reached.is_set, "the group is about to be committed")
    for _ in range(50):
        await anyio.lowlevel.checkpoint()
    told = [task.done() for task in tasks]
    may_commit.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert told == [False] * 3


async def test_trouble_at_the_commit_is_told_to_all_of_the_group(
    store: SqliteStore, location: StoreLocation, subject: Subject
) -> None:
    def deny(action: int, name: str | None, *_: str | None) -> int:
        commits = action == sqlite3.SQLITE_TRANSACTION and name == "COMMIT"
        return sqlite3.SQLITE_DENY if commits else sqlite3.SQLITE_OK

    connection = connection_of(store)
    connection.set_authorizer(deny)
    answers = await together(
        store,
        location,
        note(store, subject, 1),
        # What refuses it may be what was not committed.
        store.start(ME, subject.session_id, "again", PLAN),
        note(store, subject, 2),
    )
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    connection.set_authorizer(None)
    assert await said(store, subject.claim) == []
    await note(store, subject, 3)
    assert [text for _, text in await said(store, subject.claim)] == ["3"]


async def test_a_caller_who_is_cancelled_holds_up_nobody_of_his_group(
    store: SqliteStore, location: StoreLocation, subject: Subject
) -> None:
    calls = [note(store, subject, number) for number in range(3)]
    async with held_back(store, location, *calls) as tasks:
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]  # at once, while the others wait for their turn
        assert not tasks[0].done()
    await asyncio.gather(tasks[0], tasks[2])
    # He cannot know whether it happened; here it did, because it was on its way.
    assert [text for _, text in await said(store, subject.claim)] == ["0", "1", "2"]
    with closing(sqlite3.connect(location.database, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")


async def test_a_turn_that_never_comes_is_trouble_for_all_who_wait(
    store: SqliteStore, location: StoreLocation, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilt_mcp.state.group_commit.BUSY_SECONDS", 0.2)
    calls = [note(store, subject, number) for number in range(3)]
    async with held_back(store, location, *calls) as tasks:
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    await note(store, subject, "afterwards")
    assert [text for _, text in await said(store, subject.claim)] == ["afterwards"]


async def test_the_room_that_one_gave_up_on_a_full_disk_serves_all_who_must_be_recorded(
    store: SqliteStore, location: StoreLocation, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connection_of(store)
    reserves = [True]

    def give_up(_: Path) -> bool:
        if not reserves:
            return False
        connection.execute("PRAGMA max_page_count = 1000000")
        return reserves.pop()

    def record(size: int) -> Callable[[sqlite3.Connection], object]:
        text = "x" * size
        return lambda c: c.execute("UPDATE workflow SET message = message || ?", (text,))

    monkeypatch.setattr("bilt_mcp.state.sqlite_base.give_up_reserve", give_up)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    write = store._write  # pyright: ignore[reportPrivateUsage]
    answers = await together(
        store,
        location,
        write(record(20_000), vital=True),
        write(record(20_000)),
        write(record(20_000), vital=True),
    )
    assert [isinstance(answer, StoreFull) for answer in answers] == [False, True, False]
    kept = connection.execute("SELECT length(message) FROM workflow").fetchone()[0]
    assert kept == 40_000 + len("go")
