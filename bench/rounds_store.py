"""Row 5: what the store adds to SQLite, in this process and on the same file system."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import anyio

from bilt_mcp.state import (
    VERSION,
    Claim,
    MessageQuery,
    Note,
    Plan,
    PlannedStep,
    ProcessRecord,
    SqliteStore,
    StoreLocation,
    boot_id,
)

from .figures import Row, Target, rounds
from .kernel import MS, now

ACCOUNT = "local"
WRITERS = 16
CONTENT = "[build] compiled src/components/Basket.tsx in 41 ms, 3 warnings, 0 errors" + " " * 20
RAW = "sqlite3, WAL and synchronous=FULL: insert of the same row and commit"
FEW, BATCH = 1_000, 1_000


def measure_store(folder: Path, count: int, many: int) -> list[Row]:
    """Acknowledge messages one by one and sixteen at once; read a page of few and of many."""
    return anyio.run(_measure, folder, count, many)


async def _measure(folder: Path, count: int, many: int) -> list[Row]:
    raw = _Raw(folder / "raw.db")
    async with SqliteStore(StoreLocation.of(folder / "direct-store")) as store:
        small, large = await _claims(store, folder, 2)
        try:
            return [
                await _one(store, small, raw, count),
                await _sixteen(store, small, raw, max(1, count // WRITERS)),
                await _page(store, small, large, count, many),
            ]
        finally:
            raw.close()


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

    def close(self) -> None:
        self._connection.close()


async def _claims(store: SqliteStore, folder: Path, count: int) -> Sequence[Claim]:
    """Running workflows of as many projects, held by this process as by a worker."""
    plan = Plan((PlannedStep("build", {}),))
    for number in range(count):
        project = await store.open_project(ACCOUNT, str(folder / f"{number}"), f"p{number}")
        session = await store.latest_session(ACCOUNT, project.id)
        await store.start(ACCOUNT, session.id, "build", plan)
    epoch = await store.take_over(ProcessRecord(boot_id(), os.getpid(), 0), VERSION)
    claims = [await store.claim(epoch) for _ in range(count)]
    return [claim for claim in claims if claim is not None]


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


async def _sixteen(store: SqliteStore, claim: Claim, raw: _Raw, count: int) -> Row:
    row = Row(
        "message x 16",
        f"{WRITERS} messages at once",
        f"the same, {WRITERS} one after the other",
    )
    for number in rounds(row.what, count):
        for ours in (True, False) if number % 2 else (False, True):
            began = now()
            if ours:
                async with anyio.create_task_group() as writers:
                    for _ in range(WRITERS):
                        writers.start_soon(store.note, claim, [Note(CONTENT, "log", "build")])
            else:
                for _ in range(WRITERS):
                    raw.keep(CONTENT)
            (row.ours if ours else row.floor).append((now() - began) / MS)
    row.counts["messages/s"] = round(WRITERS * 1000 / median(row.ours))
    return row


async def _page(store: SqliteStore, small: Claim, large: Claim, count: int, many: int) -> Row:
    row = Row(
        "page",
        f"page of 50 out of {many:,} messages",
        f"the same out of {FEW:,}: how a long history slows reading down",
    )
    sizes = {small.session_id: FEW, large.session_id: many}
    for claim in (small, large):
        have = (await store.messages(ACCOUNT, claim.session_id, MessageQuery(limit=1))).total
        for left in range(sizes[claim.session_id] - have, 0, -BATCH):
            await store.note(claim, [Note(CONTENT, "log", "build")] * min(BATCH, left))
    for number in rounds(row.what, count):
        for ours in (True, False) if number % 2 else (False, True):
            session = (large if ours else small).session_id
            began = now()
            page = await store.messages(ACCOUNT, session, MessageQuery(limit=50))
            (row.ours if ours else row.floor).append((now() - began) / MS)
            assert len(page.messages) == 50
    return row
