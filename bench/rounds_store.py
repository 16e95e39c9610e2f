"""Row 5: what the store adds to SQLite, in this process and on the same file system."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from statistics import median

import anyio

from bilt_mcp.state import Claim, MessageQuery, Note, SqliteStore, StoreLocation

from .figures import Row, Target, rounds
from .kernel import MS, now
from .rounds_flat import measure_flat
from .rounds_waiting import claimed

ACCOUNT = "local"
WRITERS = 16
CONTENT = "[build] compiled src/components/Basket.tsx in 41 ms, 3 warnings, 0 errors" + " " * 20
RAW = "sqlite3, WAL and synchronous=FULL: insert of the same row and commit"
EACH = 4
"""Messages from each of the senders in a round."""


def measure_store(folder: Path, count: int, many: int) -> list[Row]:
    """Acknowledge messages one by one and from sixteen senders; look at a store with little and with much in it."""
    return anyio.run(_measure, folder, count, many)


async def _measure(folder: Path, count: int, many: int) -> list[Row]:
    raw = _Raw(folder / "raw.db")
    async with SqliteStore(StoreLocation.of(folder / "direct-store")) as store:
        (claim,) = await claimed(store, folder, 1)
        try:
            rows = [
                await _one(store, claim, raw, count),
                await _sixteen(store, claim, max(1, count // WRITERS)),
            ]
            raw.check(count)
            await _check(store, claim, count + max(1, count // WRITERS) * WRITERS * (1 + EACH))
        finally:
            raw.close()
    return rows + await measure_flat(folder, count, many)


class _Raw:
    """The least that keeps a message for good."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(
            """CREATE TABLE message (
                   id INTEGER PRIMARY KEY, session INTEGER, workflow INTEGER, step TEXT, side TEXT,
                   variant TEXT, content TEXT, created_at INTEGER)"""
        )
        self._connection.commit()

    def keep(self, content: str) -> None:
        self._connection.execute(
            """INSERT INTO message (session, workflow, step, side, variant, content, created_at)
               VALUES (?, ?, ?, ?, ?, ?, ?)""",
            (1, 1, "build", "ai", "log", content, 1_763_800_000_000),
        )
        self._connection.commit()

    def check(self, acknowledged: int) -> None:
        (kept,) = self._connection.execute("SELECT count(*) FROM message").fetchone()
        _all_kept(acknowledged, kept)

    def close(self) -> None:
        self._connection.close()


async def _check(store: SqliteStore, claim: Claim, acknowledged: int) -> None:
    session = (await store.workflow(ACCOUNT, claim.workflow_id)).session_id
    page = await store.messages(ACCOUNT, session, MessageQuery(limit=1, variant="log"))
    _all_kept(acknowledged, page.total)


def _all_kept(acknowledged: int, kept: int) -> None:
    if kept != acknowledged:
        raise RuntimeError(f"of {acknowledged} acknowledged messages {kept} are there")


async def _one(store: SqliteStore, claim: Claim, raw: _Raw, count: int) -> Row:
    row = Row("message", "message, to acknowledged", RAW, target=Target(ratio=1.5))
    for number in rounds(row.what, count):
        for ours in (True, False) if number % 2 else (False, True):
            began = now()
            if ours:
                await store.note(claim, [Note(CONTENT, "log", "build")])
            else:
                raw.keep(CONTENT)
            (row.ours if ours else row.floor).append((now() - began) / MS)
    return row


async def _sixteen(store: SqliteStore, claim: Claim, count: int) -> Row:
    row = Row(
        "message x 16",
        f"{WRITERS} messages from as many senders at once",
        f"{WRITERS} messages from one sender",
        target=Target(ratio=0.2),
    )

    async def send(how_many: int) -> None:
        for _ in range(how_many):
            await store.note(claim, [Note(CONTENT, "log", "build")])

    for _ in rounds(row.what, count):
        began = now()
        await send(WRITERS)
        row.floor.append((now() - began) / MS)
        began = now()
        async with anyio.create_task_group() as senders:
            for _ in range(WRITERS):
                senders.start_soon(send, EACH)
        row.ours.append((now() - began) / MS / EACH)
    row.counts["messages/s"] = round(WRITERS * 1000 / median(row.ours))
    return row
