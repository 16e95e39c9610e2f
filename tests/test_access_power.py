"""The power is cut at any moment: a key that was shown is good afterwards, and one that was revoked is not."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bilt_mcp.state import Account, SqliteAccess, StoreLocation
from bilt_mcp.state.driver import sqlite3 as shipped

from .support.power import Connection, Disk, Platter, moments, place
from .support.proof import Proof

pytestmark = pytest.mark.anyio

IMAGES = 150
LIVES = (25, 10)
"""How many keys before it is closed and opened again."""

really_connect = sqlite3.connect

State = Sequence[str]
NOTHING: State = []


def state_of(database: sqlite3.Connection | Connection) -> State:
    """Which keys there are, whether they are revoked, and which logins."""
    known = database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'login'").fetchall()
    if not known:
        return NOTHING
    keys = database.execute("SELECT name, revoked_at IS NULL, id FROM api_key").fetchall()
    logins = database.execute("SELECT id FROM login").fetchall()
    return sorted(str(tuple(row)) for row in [*keys, *logins])


@dataclass
class History:
    """What was there after each verb that has returned."""

    disk: Disk
    states: list[State] = field(default_factory=lambda: [NOTHING])

    def connect(self, path: str | os.PathLike[str], **options: Any) -> Any:
        """In place of `sqlite3.connect`: counts, which may be lost, are kept elsewhere."""
        if Path(path).name == "access.db":
            return self.disk.connect(path)
        return really_connect(path, **options)

    async def live(self, location: StoreLocation, keys: int, proof: Proof) -> None:
        async with SqliteAccess(location) as access:
            with closing(self.disk.connect(location.access)) as look:

                async def ack(verb: Awaitable[Any]) -> Any:
                    result = await verb
                    self.states.append(state_of(look))
                    self.disk.acknowledge()
                    return result

                for _ in range(keys):
                    name, digest = proof.random.randbytes(4).hex(), proof.random.randbytes(32)
                    shown = "bilt_live_x"
                    made = access.create_key(name, Account("t"), digest, shown, read_only=False)
                    key = await ack(made)
                    login = proof.random.randbytes(32)
                    await ack(access.open_login(key.id, login, 1000, 1000))
                    if proof.random.random() < 0.5:
                        await ack(access.revoke_key(name))
                    elif proof.random.random() < 0.5:
                        await ack(access.end_login(login))


async def test_keys_and_logins_outlive_a_power_cut_as_their_callers_were_told(
    quick_path: Path, proof: Proof
) -> None:
    folder, after = quick_path / "store", quick_path / "after"
    after.mkdir()
    with Disk() as disk, pytest.MonkeyPatch.context() as patch:
        history = History(disk)
        patch.setattr(shipped, "connect", history.connect)
        for keys in LIVES:
            await history.live(StoreLocation.of(folder), keys, proof)
        patch.undo()
        platter = Platter("access.db")
        at = returned = images = 0
        for moment in moments(disk.ops, IMAGES, proof.random):
            for op in disk.ops[at:moment]:
                platter.apply(op)
                returned += op.kind == "ack"
            at = moment
            place(platter.cut(proof.random), after)
            with closing(sqlite3.connect(after / "access.db")) as found:
                assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert state_of(found) in history.states[returned:]
            images += 1
    assert images >= 100
    assert returned >= 50
