"""Rules of the store that no other test would miss: room, clocks, receipts, upgrades, what a key still answers."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bilt_mcp.state import (
    Caller,
    DeployState,
    Plan,
    PlannedStep,
    SqliteStore,
    Status,
    StoreFull,
    StoreLocation,
    StoreSettings,
    StoreUnavailable,
)
from bilt_mcp.state.migrate import migrations
from bilt_mcp.state.reserve import RESERVE_BYTES, ROOMY_BYTES, keep_reserve
from bilt_mcp.state.settings import read_settings

from .store_contract import BUILD, ME, PLAN, Kind, ManualClock, Scene, Subject

pytestmark = pytest.mark.anyio

DEPLOY_THEN_ASK = Plan(
    (PlannedStep("deploy", {"run": "x"}, deploy=True), replace(BUILD, confirm="Go on?"))
)


def has_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """From now on every disk has this many bytes left."""

    def usage(_: object) -> SimpleNamespace:
        return SimpleNamespace(total=10**12, used=10**12 - free, free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)


# -- claiming and clocks ----------------------------------------------------------------------------


async def test_what_was_let_go_at_a_pause_does_not_take_its_own_place(scene: Scene) -> None:
    subject = await scene.subject(Kind.RESUMED, Plan((BUILD,), max_parallel=1))
    assert (await scene.claim()).workflow_id == subject.workflow_id


async def test_time_since_the_start_goes_on_over_a_restart_of_the_machine(
    scene: Scene, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = await scene.subject(Kind.RESUMED)
    clock.go_on(60_000)
    clock.mono = 1000
    for module in ("sqlite_worker", "sqlite_rows"):
        monkeypatch.setattr(f"bilt_mcp.state.{module}.boot_id", lambda: "the next boot")
    await scene.claim()
    assert (await scene.workflow(subject)).elapsed_seconds == 60.0


async def test_what_a_step_said_of_its_progress_is_not_said_of_the_next_one(scene: Scene) -> None:
    subject = await scene.subject(Kind.RUNNING)
    await scene.begin(subject)
    await scene.store.note(subject.claim, [], percent=90, progress="nearly")
    await scene.begin(subject, 2)
    again = await scene.workflow(subject)
    assert (again.step_percent, again.step_message) == (None, None)
    await scene.store.note(subject.claim, [], percent=90, progress="nearly")
    assert await scene.store.advance(subject.claim, 2)
    following = await scene.workflow(subject)
    assert (following.step, following.step_percent, following.step_message) == (
        "deploy",
        None,
        None,
    )


# -- receipts ---------------------------------------------------------------------------------------


async def at_a_gate_after_a_deploy(scene: Scene) -> Subject:
    """A workflow whose deploy step is done and whose next step waits for a person."""
    subject = await scene.subject(Kind.RUNNING, DEPLOY_THEN_ASK)
    await scene.store.step_ended(await scene.begin(subject), "succeeded", 0)
    assert await scene.store.advance(subject.claim, 2)
    claim = replace(subject.claim, position=2)
    assert await scene.store.pause(claim, "Go on?")
    gate = (await scene.look(subject)).pending_action
    assert gate is not None
    return replace(subject, maybe_claim=claim, maybe_action_id=gate.action_id)


@pytest.mark.parametrize("how", ["declined", "cancelled"])
async def test_the_receipt_of_a_gate_that_ends_a_workflow_knows_of_the_deploy_before_it(
    scene: Scene, how: str
) -> None:
    subject = await at_a_gate_after_a_deploy(scene)
    if how == "declined":
        await scene.store.decline(ME, subject.session_id, subject.action_id, Caller("me"))
    else:
        await scene.store.cancel(ME, subject.session_id, None, Caller("me"))
    stopped = (await scene.workflow(subject)).stopped
    assert stopped is not None
    assert stopped.deploy is DeployState.DONE


async def test_who_answered_a_gate_is_not_rewritten_by_a_later_cancel(
    quick_path: Path, clock: ManualClock
) -> None:
    location = StoreLocation.of(quick_path / "store")
    async with SqliteStore(location, clock) as store:
        scene = Scene(store)
        subject = await scene.subject(Kind.GATED)
        await store.confirm(ME, subject.session_id, subject.action_id, Caller("a person"))
        await store.cancel(ME, subject.session_id, None, Caller("an agent"))
    with closing(sqlite3.connect(location.database)) as database:
        kept = database.execute("SELECT answer, answered_by FROM gate").fetchall()
    assert kept == [("confirmed", "a person")]


# -- room -------------------------------------------------------------------------------------------


async def test_a_key_gets_its_first_answer_also_when_there_is_no_room_for_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, session_id = scene.store, await scene.session()
    first = await store.start(ME, session_id, "go", PLAN, key="k")
    monkeypatch.setattr(store, "settings", lambda: StoreSettings(max_megabytes=0.001))
    assert await store.start(ME, session_id, "go", PLAN, key="k") == first


async def test_nothing_is_accepted_where_hardly_anything_is_free_on_the_disk(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await scene.session()
    has_free(monkeypatch, 30_000_000)
    with pytest.raises(StoreFull, match="30 MB free") as refused:
        await scene.store.start(ME, session_id, "go", PLAN)
    assert refused.value.details["free_bytes"] == 30_000_000
    assert (await scene.store.session(ME, session_id)).status == "idle"
    has_free(monkeypatch, 40_000_000)
    assert (await scene.store.start(ME, session_id, "go", PLAN)).status is Status.PENDING


def test_the_reserve_is_not_taken_of_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = tmp_path / "reserve"
    has_free(monkeypatch, ROOMY_BYTES - 1)
    keep_reserve(reserve)
    assert not reserve.exists()
    has_free(monkeypatch, ROOMY_BYTES)
    keep_reserve(reserve)
    assert reserve.stat().st_size == RESERVE_BYTES


def test_a_reserve_that_was_only_half_written_is_made_whole(tmp_path: Path) -> None:
    reserve = tmp_path / "reserve"
    reserve.write_bytes(b"half")
    keep_reserve(reserve)
    assert reserve.stat().st_size == RESERVE_BYTES


async def test_what_lies_beside_a_store_is_counted_as_it_is_now_and_not_when_it_is_gone(
    quick_path: Path, clock: ManualClock
) -> None:
    location = StoreLocation.of(quick_path / "store")

    def counted() -> int:
        with closing(sqlite3.connect(location.database)) as database:
            return int(database.execute("SELECT bytes FROM kept_total").fetchone()[0])

    async with SqliteStore(location, clock) as store:
        scene = Scene(store)
        subject = await scene.subject(Kind.COMPLETED)
        for size in (1000, 3000):
            await store.keep_files(subject.workflow_id, size)
            assert counted() == size
        clock.go_on(1000)
        assert await store.hide_old(await scene.epoch(), clock.now()) == 1
        while await store.delete_hidden(await scene.epoch()):
            pass
        assert list(await store.pruned()) == [subject.workflow_id]
        assert counted() == 3000
        await store.files_gone([subject.workflow_id])
        assert counted() == 0


# -- settings and upgrades --------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "0.0", "true", "-1", "nan", "inf", "'7'"])
def test_an_age_that_would_delete_everything_or_nothing_sensible_is_refused(
    tmp_path: Path, value: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f"keep_days = {value}\n")
    with pytest.raises(StoreUnavailable, match="keep_days must be a number above 0"):
        read_settings(file)


async def test_a_store_of_every_earlier_schema_is_brought_up_to_date_and_keeps_what_it_had(
    tmp_path: Path,
) -> None:
    newest = migrations()[-1][0]
    for number, _ in migrations()[:-1]:
        location = StoreLocation.of(tmp_path / str(number))
        location.prepare()
        with closing(sqlite3.connect(location.database)) as database:
            for step, script in migrations():
                if step <= number:
                    database.executescript(script)
            database.execute(
                """INSERT INTO project (id, account, root, name, created_at, updated_at)
                   VALUES ('p', 'me', '/srv/shop', 'shop', 1, 1)"""
            )
            database.execute(f"PRAGMA user_version = {number}")
            database.commit()
        for _ in range(2):  # the second finds it done
            async with SqliteStore(location) as store:
                assert (await store.project(ME, "p")).name == "shop"
                await store.keep_files("w", 1)
        with closing(sqlite3.connect(location.database)) as database:
            assert database.execute("PRAGMA user_version").fetchone() == (newest,)


def test_nothing_is_deleted_and_ten_gigabytes_are_taken_where_nothing_is_set(
    tmp_path: Path,
) -> None:
    assert read_settings(tmp_path / "settings.toml") == StoreSettings(None, 10_000)
