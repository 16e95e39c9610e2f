"""A store that cannot be written while a build runs: the answer is clear, and a cancel kills first all the same."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bilt_mcp.state import StoreLocation

from .support.hostile import alive, command, end
from .support.places import Place
from .support.places import place as place  # a fixture
from .support.rpc import Json, Server
from .support.small_disk import small_disk
from .support.waiting import wait_until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="asks /proc who is alive"),
]


@pytest.fixture
def marker() -> Iterator[str]:
    """Marks a test's processes; what a failed test leaves of them is ended."""
    drawn = f"marker-{os.urandom(8).hex()}"
    yield drawn
    while left := alive(drawn):
        end(left)


def declare(place: Place, marker: str) -> None:
    argv = ", ".join(f"'''{word}'''" for word in command("three children", marker))
    place.workflow(
        f"[[step]]\nname = 'build'\nrun = [{argv}]\ngrace = '100ms'\n"
        "[[step]]\nname = 'deploy'\nrun = 'touch deployed'\ndeploy = true\n"
    )


async def start(server: Server, marker: str) -> str:
    session_id = str(server.call("bilt_get_session")["session_id"])
    server.call("bilt_send_message", session_id=session_id, message="go")
    await wait_until(lambda: len(alive(marker)) >= 4, "the step has grown", timeout=30)
    return session_id


async def until(server: Server, session_id: str, status: str) -> Json:
    found: Json = {}

    def reached() -> bool:
        nonlocal found
        found = server.call("bilt_get_session", session_id=session_id)
        return bool(found.get("status") == status)

    await wait_until(reached, f"the session is {status}", timeout=30)
    return found


def hold(location: StoreLocation) -> sqlite3.Connection:
    """Another program that locks the database for itself."""
    other = sqlite3.connect(location.database, isolation_level=None, timeout=30)
    other.execute("BEGIN IMMEDIATE")
    return other


def damage(location: StoreLocation) -> None:
    """Write nonsense over the whole database, in place."""
    with contextlib.closing(sqlite3.connect(location.database)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with location.database.open("r+b") as file:
        file.write(os.urandom(location.database.stat().st_size))


async def test_a_cancel_on_a_full_disk_is_recorded_at_once_with_the_room_kept_for_it(
    place: Place, marker: str
) -> None:
    declare(place, marker)
    with small_disk(place, "80m") as disk:
        session_id = await start(disk.server, marker)
        assert disk.location.reserve.exists()
        disk.fill()
        found = disk.server.call("bilt_cancel_workflow", session_id=session_id)
        assert alive(marker) == []
        assert found["status"] == "cancelled"
        assert found["stopped"]["verified"] is True
        assert found["stopped"]["processes_killed"] >= 4
        assert found["stopped"]["deploy"] == "not_started"
    assert not (place.project / "deployed").exists()


async def test_a_cancel_that_a_full_disk_cannot_take_kills_first_and_is_recorded_when_there_is_room(
    place: Place, marker: str
) -> None:
    declare(place, marker)
    with small_disk(place, "48m") as disk:
        session_id = await start(disk.server, marker)
        assert not disk.location.reserve.exists()
        disk.fill()
        found = disk.server.call("bilt_cancel_workflow", session_id=session_id, reason="stop it")
        assert alive(marker) == []
        assert found["status"] == "cancelling"
        assert found["stopped"]["verified"] is True
        assert found["stopped"]["processes_killed"] >= 4
        assert "full" in found["message"]
        # What needs room says so, and what only reads goes on.
        refused = disk.server.call("bilt_send_message", session_id=session_id, message="again")
        assert "error" in refused
        assert disk.server.call("bilt_get_session", session_id=session_id)["status"] == "running"
        disk.make_room()
        await until(disk.server, session_id, "cancelled")
        receipt = disk.server.call("bilt_get_messages", session_id=session_id)["messages"]
        assert any("stop it" in message["content"] for message in receipt)
        started = disk.server.call("bilt_send_message", session_id=session_id, message="again")
        assert started["workflow_started"] is True
        disk.server.call("bilt_cancel_workflow", session_id=session_id)
    assert not (place.project / "deployed").exists()


async def test_a_message_on_a_full_disk_is_refused_in_words_that_help_and_nothing_is_lost(
    place: Place,
) -> None:
    with small_disk(place, "48m") as disk:
        session_id = str(disk.server.call("bilt_get_session")["session_id"])
        disk.fill()
        refused = disk.server.call("bilt_send_message", session_id=session_id, message="go")
        assert refused["error"] == "Store full"
        assert "Make room" in refused["details"]["message"]
        disk.make_room()
        assert disk.server.call("bilt_get_messages", session_id=session_id)["total"] == 0
        disk.server.call("bilt_send_message", session_id=session_id, message="go")
        await until(disk.server, session_id, "completed")


async def test_a_build_that_ends_on_a_full_disk_is_recorded_when_there_is_room(
    place: Place,
) -> None:
    place.workflow(
        "[[step]]\nname = 'a'\nrun = 'touch up; while test ! -e go; do sleep 0.01; done'\n"
    )
    with small_disk(place, "48m") as disk:
        session_id = str(disk.server.call("bilt_get_session")["session_id"])
        disk.server.call("bilt_send_message", session_id=session_id, message="go")
        await wait_until((place.project / "up").exists, "the step is up")
        keeper = int(disk.query("SELECT keeper_pid FROM step_run"))
        disk.fill()
        (place.project / "go").touch()
        await wait_until(lambda: not _exists(keeper), "the step and its keeper are over")
        assert disk.server.call("bilt_get_session", session_id=session_id)["status"] == "running"
        disk.make_room()
        await until(disk.server, session_id, "completed")


async def test_a_cancel_while_another_program_locks_the_store_kills_first_and_is_recorded_later(
    place: Place, marker: str
) -> None:
    declare(place, marker)
    with Server(place.arguments, place.environ) as server:
        session_id = await start(server, marker)
        with contextlib.closing(hold(place.location)) as other:
            began = time.monotonic()
            found = server.call("bilt_cancel_workflow", session_id=session_id)
            assert time.monotonic() - began < 8  # not the ten seconds that a lock is waited for
            assert alive(marker) == []
            assert found["status"] == "cancelling"
            assert found["stopped"]["verified"] is True
            other.rollback()
        await until(server, session_id, "cancelled")
    assert not (place.project / "deployed").exists()


async def test_a_cancel_on_a_store_that_was_damaged_meanwhile_still_kills(
    place: Place, marker: str
) -> None:
    declare(place, marker)
    with Server(place.arguments, place.environ) as server:
        session_id = await start(server, marker)
        worker = _worker_pid(place.location)
        damage(place.location)
        found = server.call("bilt_cancel_workflow", session_id=session_id)
        # The worker stumbles over the damage now and then, or is asked in time: both end the build.
        await wait_until(lambda: alive(marker) == [], "nothing of it is alive", timeout=2)
        assert found.get("status", "cancelling") == "cancelling", found
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, 9)  # it would try for ever to record it
        await wait_until(lambda: not _held(place.location), "no worker is left", timeout=20)
    assert not (place.project / "deployed").exists()


def _worker_pid(location: StoreLocation) -> int:
    with contextlib.closing(sqlite3.connect(location.database)) as database:
        return int(database.execute("SELECT pid FROM worker").fetchone()[0])


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _held(location: StoreLocation) -> bool:
    return f":{location.lock.stat().st_ino} " in Path("/proc/locks").read_text("ascii")
