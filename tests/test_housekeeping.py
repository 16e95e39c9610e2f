"""A store's own limits, with a real worker: `settings.toml`, pruning with the files, and the limit of its size."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bilt_mcp.engine.housekeeping import prune, size_of
from bilt_mcp.state import SessionNotFound, StoreFull, StoreUnavailable

from .support.builds import ME, Build, build_in
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

SAYS_MUCH = "[[step]]\nname = 'a'\nrun = 'head -c 200000 /dev/zero > \"$BILT_ARTIFACTS/zeros\"'\n"
ALMOST_NOTHING = "keep_days = 0.00000001\n"


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    async with build_in(tmp_path, idle_seconds=0.0) as made:
        yield made


def megabytes(build: Build) -> float:
    """What the database takes."""
    return build.location.database.stat().st_size / 1e6


async def has_left(build: Build) -> None:
    await wait_until(lambda: not build.worker_is_alive(), "the idle worker has gone")


async def test_nothing_is_ever_deleted_where_no_age_is_set(build: Build) -> None:
    build.declare(SAYS_MUCH)
    workflow_id = await build.start()
    await build.ended()
    await has_left(build)
    assert await prune(build.store, build.location, build.epoch()) == 0
    assert (build.location.run(workflow_id) / "artifacts/zeros").exists()


async def test_a_worker_prunes_what_is_old_with_its_files_and_leaves_what_runs(
    build: Build,
) -> None:
    build.declare(SAYS_MUCH)
    workflow_id = await build.start()
    await build.ended()
    await has_left(build)
    outside = Path(build.project.root) / "precious"
    outside.write_text("not a file of the store")
    (build.location.run(workflow_id) / "artifacts/link").symlink_to(outside)
    (build.location.run(workflow_id) / "artifacts/all").symlink_to(outside.parent)
    build.location.settings.write_text(ALMOST_NOTHING)
    old = build.session_id
    build.declare("[[step]]\nname = 'waits'\nrun = 'while test ! -e go; do sleep 0.02; done'\n")
    fresh = await build.store.latest_session(
        ME, (await build.store.open_project(ME, build.project.root + "/", "again")).id
    )
    running = Build(build.store, build.location, build.engine, build.project, fresh.id)
    second = await running.start()
    await wait_until(
        lambda: not build.location.run(workflow_id).exists(), "the old one's files are gone"
    )
    with pytest.raises(SessionNotFound):
        await build.store.session(ME, old)
    assert outside.read_text() == "not a file of the store"
    assert (await running.session()).status == "running"
    (Path(build.project.root) / "go").touch()
    assert (await running.ended()).status == "completed"
    assert build.location.run(second).exists()


async def test_what_a_killed_worker_has_not_deleted_the_next_one_deletes(build: Build) -> None:
    build.declare(SAYS_MUCH)
    workflow_id = await build.start()
    await build.ended()
    await has_left(build)
    # Decided, and killed before anything was deleted.
    assert await build.store.hide_old(build.epoch(), 10**15) == 1
    assert build.location.run(workflow_id).exists()
    assert await prune(build.store, build.location, build.epoch()) == 0
    assert not build.location.run(workflow_id).exists()
    assert list(await build.store.pruned()) == []


async def test_what_a_workflow_leaves_counts_for_the_limit_and_the_refusal_says_what_to_do(
    build: Build,
) -> None:
    build.declare(SAYS_MUCH)
    await build.start()
    await build.ended()
    await has_left(build)
    database = megabytes(build)
    build.location.settings.write_text(f"max_megabytes = {database + 0.15}\n")
    with pytest.raises(StoreFull, match="max_megabytes") as refused:
        await build.start("again")
    assert refused.value.error == "Store full"
    assert refused.value.details["used_bytes"] > 200_000 + database * 500_000
    before = await build.messages()
    assert [m.content for m in before if m.side == "user"] == ["go"]
    build.location.settings.write_text(f"max_megabytes = {database + 1}\n")
    await build.start("again")
    assert (await build.ended()).status == "completed"


async def test_pruning_makes_room_below_the_limit(build: Build) -> None:
    build.declare(SAYS_MUCH)
    await build.start()
    await build.ended()
    await has_left(build)
    database = megabytes(build)
    build.location.settings.write_text(f"{ALMOST_NOTHING}max_megabytes = {database + 0.15}\n")
    assert await prune(build.store, build.location, build.epoch()) == 1
    project = await build.store.open_project(ME, build.project.root, "project")
    session = await build.store.latest_session(ME, project.id)
    again = Build(build.store, build.location, build.engine, project, session.id)
    await again.start("go")
    assert (await again.ended()).status == "completed"


async def test_a_disk_that_is_nearly_full_accepts_nothing(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearly_full(_: object) -> SimpleNamespace:
        return SimpleNamespace(free=10_000_000)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    build.declare(SAYS_MUCH)
    with pytest.raises(StoreFull, match="Make room"):
        await build.start()
    assert await build.messages() == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("keep_days = -1", "keep_days must be a number above 0"),
        ("keep_days = true", "keep_days must be a number above 0"),
        ("max_megabytes = 'ten'", "max_megabytes must be a number above 0"),
        ("max_megabytes = nan", "max_megabytes must be a number above 0"),
        ("keep_day = 3", "no such setting: keep_day; known: keep_days, max_megabytes, max_running"),
        ("max_running = 1.5", "max_running must be a whole number"),
        ("max_running = 0", "max_running must be a number above 0"),
        ("keep_days = ", "Invalid value"),
        ("\0", ""),
    ],
)
async def test_settings_that_are_wrong_are_told_and_delete_nothing(
    build: Build, text: str, told: str
) -> None:
    build.declare(SAYS_MUCH)
    await build.start()
    await build.ended()
    build.location.settings.write_text(text)
    with pytest.raises(StoreUnavailable) as refused:
        await build.start("again")
    assert str(build.location.settings) in refused.value.message
    assert told in refused.value.message
    with pytest.raises(StoreUnavailable):
        await prune(build.store, build.location, build.epoch())
    assert (await build.session()).status == "completed"


def test_what_is_reached_by_a_link_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1_000_000))
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below/file").write_bytes(bytes(8192))
    (folder / "link").symlink_to(tmp_path / "large")
    (folder / "all").symlink_to(tmp_path)
    assert 8192 <= size_of(folder) < 100_000
    assert size_of(tmp_path / "nothing") == 0


# Deletes as a user whom permissions bind.
AS_NOBODY = """
import os, sys
from pathlib import Path
from bilt_mcp.engine import housekeeping
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
folder = Path(sys.argv[1])
(folder / "cache" / "module").mkdir(parents=True)
(folder / "cache" / "module" / "file.go").write_text("package a")
(folder / "cache" / "out").symlink_to(folder.parent / "kept", target_is_directory=True)
(folder / "cache" / "module").chmod(0o500)
(folder / "cache").chmod(0o500)
housekeeping._delete(folder)
"""


def test_read_only_folders_are_deleted_too_and_nothing_behind_a_link_is_touched() -> None:
    with tempfile.TemporaryDirectory(prefix="bilt-test-") as made:
        public = Path(made)
        public.chmod(0o777)
        (public / "kept").mkdir(mode=0o555)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(public / "run")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert not (public / "run").exists()
        assert stat.S_IMODE((public / "kept").stat().st_mode) == 0o555
