"""The power is cut at any moment: what the store acknowledged is there, and nothing is half there.

The store's own verbs, statements, pragmas and schema run on a recorded disk (`support/power.py`). Of each image
that a cut may leave, the content must be that after a whole number of the verbs that were called, and at
least after all that had returned. Writers who wait together count as one verb: they share a transaction.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from bilt_mcp.state import Caller, Claim, Note, Plan, SqliteStore, StoreLocation
from bilt_mcp.state.driver import sqlite3 as shipped

from .store_contract import (
    BROKEN,
    BUILD,
    DEPLOY,
    ME,
    PROCESS,
    RECEIPT,
    ManualClock,
)
from .support.groups import together
from .support.power import Connection, Disk, Platter, moments, place
from .support.proof import Proof

pytestmark = pytest.mark.anyio

T = TypeVar("T")

NO_TABLES = b""
LIVES = (200, 30, 0)
"""How many verbs before it is closed and opened again; so many that SQLite checkpoints on the way, too."""
IMAGES_A_STORE = 100
OPENED_EVERY = 10
"""Of so many images one is opened by the store itself, too, and goes on."""


class Serialized(Protocol):
    def serialize(self) -> bytes: ...


HALF_STARTS = """
    SELECT (SELECT count(*) FROM workflow AS w WHERE NOT EXISTS (
                SELECT 1 FROM message WHERE workflow = w.n AND side = 'user' AND content = w.message))
         + (SELECT count(*) FROM message AS m WHERE side = 'user' AND NOT EXISTS (
                SELECT 1 FROM workflow WHERE n = m.workflow))"""


def content_of(database: Serialized) -> bytes:
    """A digest of every page, as a reader sees them."""
    return hashlib.sha256(database.serialize()).digest()


@dataclass
class History:
    """A store on a recorded disk, and its content after each verb that has returned."""

    disk: Disk
    draw: random.Random
    contents: list[bytes] = field(default_factory=lambda: [NO_TABLES])

    async def live(self, location: StoreLocation, verbs: int) -> None:
        """Open the store, do what comes to mind, close it."""
        clock = ManualClock()
        async with SqliteStore(location, clock) as store:
            with closing(self.disk.connect(location.database)) as look:
                await self._work(store, look, location, verbs)

    async def _work(
        self, store: SqliteStore, look: Connection, location: StoreLocation, verbs: int
    ) -> None:
        done = 0

        async def ack(verb: Awaitable[T]) -> T:
            nonlocal done
            result = await verb
            self._acknowledged(look)
            done += 1
            return result

        self._acknowledged(look)
        projects = [await ack(store.open_project(ME, f"/srv/{n}", "shop")) for n in range(2)]
        sessions = [(await ack(store.latest_session(ME, project.id))).id for project in projects]
        epoch = await ack(store.take_over(PROCESS, "1"))
        while done < verbs:
            await self._workflow(store, self.draw.choice(sessions), epoch, location, ack)

    def _acknowledged(self, look: Connection) -> None:
        # In this order: the mark stands for the content before it, and says that it is safe.
        self.contents.append(content_of(look))
        self.disk.acknowledge()

    async def _workflow(
        self,
        store: SqliteStore,
        session_id: str,
        epoch: int,
        location: StoreLocation,
        ack: Callable[[Awaitable[Any]], Awaitable[Any]],
    ) -> None:
        draw = self.draw
        plan = Plan((BUILD, DEPLOY), timeout=600.0)
        message = draw.choice(("go", "größer", "x" * 5000)) + str(draw.random())
        key = draw.choice((None, str(draw.random())))
        await ack(store.start(ME, session_id, message, plan, key=key))
        if draw.random() < 0.1:
            await ack(store.cancel(ME, session_id, "too late", Caller("me")))
            return
        claim: Claim | None = await ack(store.claim(epoch))
        assert claim is not None
        ticket = await ack(store.begin_step(claim, 1, PROCESS))
        await ack(store.step_started(ticket, PROCESS))
        for _ in range(draw.randrange(6)):
            size = draw.choice((40, 400, 1500))
            notes = [Note("log" * size, "log", "build") for _ in range(draw.randrange(1, 5))]
            percent = draw.choice((None, draw.randrange(100)))
            await ack(store.note(claim, notes, percent=percent, wrote_output=True))
        if draw.random() < 0.5:
            crowd = [[Note("log" * 400, "log", "build")] for _ in range(draw.randrange(2, 17))]
            calls = [store.note(claim, notes, wrote_output=True) for notes in crowd]
            await ack(together(store, location, *calls))
        how = draw.choice(("cancel", "fail", "complete", "confirm", "decline"))
        if how == "cancel":
            await ack(store.cancel(ME, session_id, None, Caller("me")))
            assert await ack(store.stopped(epoch, claim.workflow_id, RECEIPT, []))
            return
        await ack(store.step_ended(ticket, "succeeded", 0))
        if how == "fail":
            assert await ack(store.fail(claim, BROKEN, [Note("Broken.", "error")]))
            return
        await ack(store.advance(claim, 2))
        if how == "complete":
            assert await ack(store.complete(claim, [Note("Done.", "success")]))
            return
        assert await ack(store.pause(claim, "Deploy it?"))
        gate = (await store.session(ME, session_id)).pending_action
        assert gate is not None
        if how == "decline":
            await ack(store.decline(ME, session_id, gate.action_id, Caller("me")))
            return
        await ack(store.confirm(ME, session_id, gate.action_id, Caller("me")))
        again: Claim | None = await ack(store.claim(epoch))
        assert again is not None
        assert await ack(store.complete(again, []))


@asynccontextmanager
async def recorded(folder: Path, draw: random.Random) -> AsyncGenerator[History]:
    """A store that was opened, used and closed some times on a recorded disk."""
    with Disk() as disk, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "connect", disk.connect)
        history = History(disk, draw)
        for verbs in LIVES:
            await history.live(StoreLocation.of(folder), verbs)
        patch.undo()
        yield history


@dataclass
class Tally:
    """What the images were found to be."""

    images: int = 0
    acknowledged: int = 0
    lost: int = 0
    half_done: list[str] = field(default_factory=list[str])
    corrupt: list[str] = field(default_factory=list[str])

    def look(self, database: Path, history: History, returned: int) -> None:
        """Judge an image that was made when `returned` verbs had returned."""
        self.images += 1
        self.acknowledged += returned
        what = f"image {self.images}"
        try:
            with closing(sqlite3.connect(database)) as found:
                checks = found.execute("PRAGMA integrity_check").fetchall()
                checks += found.execute("PRAGMA foreign_key_check").fetchall()
                known = bool(found.execute("SELECT 1 FROM sqlite_schema").fetchone())
                content = content_of(found) if known else NO_TABLES
                half = found.execute(HALF_STARTS).fetchone()[0] if known else 0
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self.corrupt.append(f"{what}: {error}")
            return
        if checks != [("ok",)]:
            self.corrupt.append(f"{what}: {checks[:3]}")
        elif content not in history.contents or half:
            self.half_done.append(f"{what}: {half} halves of a start")
        else:
            # The last of its kind: a verb that changed nothing is there as soon as the one before it.
            last = len(history.contents) - 1 - history.contents[::-1].index(content)
            self.lost += max(0, returned - last)


async def goes_on(folder: Path) -> None:
    """The store itself opens what a power cut left, and takes the next message."""
    async with SqliteStore(StoreLocation.of(folder), ManualClock()) as store:
        project = await store.open_project(ME, "/srv/new", "new")
        session = await store.latest_session(ME, project.id)
        started = await store.start(ME, session.id, "go", Plan((BUILD,)))
        assert (await store.workflow(ME, started.workflow_id)).status == "pending"


async def test_nothing_acknowledged_is_lost_or_half_done_when_the_power_is_cut(
    quick_path: Path, proof: Proof
) -> None:
    tally = Tally()
    for number in proof.rounds(2, long=20):  # of 100 images each
        folder = quick_path / f"store{number}"
        after = quick_path / f"after{number}"
        after.mkdir()
        async with recorded(folder, proof.random) as history:
            ops = history.disk.ops
            database = StoreLocation.of(after).database
            platter = Platter(database.name)
            at = returned = 0
            for moment in moments(ops, IMAGES_A_STORE, proof.random):
                for op in ops[at:moment]:
                    platter.apply(op)
                    returned += op.kind == "ack"
                at = moment
                place(platter.cut(proof.random), after)
                tally.look(database, history, returned)
                if tally.images % OPENED_EVERY == 0:
                    await goes_on(after)
    told = f"{tally.corrupt[:3]}, {tally.half_done[:3]}"
    assert (tally.lost, len(tally.half_done), len(tally.corrupt)) == (0, 0, 0), told
    assert tally.images >= 200
    proof.figure(
        f"{tally.images} images of the disk after a power cut; of {tally.acknowledged} acknowledged transactions "
        f"in them {tally.lost} lost; {len(tally.half_done)} half-done, {len(tally.corrupt)} corrupt"
    )
