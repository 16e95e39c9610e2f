"""Where a SQLite store may live: permissions, file systems, and what is private."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bilt_mcp.state import SqliteStore, StoreLocation, StoreUnavailable
from bilt_mcp.state.location import NETWORK_FILE_SYSTEMS, file_system_of

from .store_contract import ME

pytestmark = pytest.mark.anyio

# Does everything once while it may still read all of Python, then becomes nobody and says what opening answers.
NOBODY = """
import asyncio, os, sys, tempfile
from bilt_mcp.state import BiltError, SqliteStore, StoreLocation, migrate
async def main(place):
    async with SqliteStore(StoreLocation.of(place)):
        return "opened"
known = migrate.migrations()
migrate.migrations = lambda kind: known
with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(folder))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    print(asyncio.run(main(sys.argv[1])))
except BiltError as error:
    print(error.error, "|", error.details["message"])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are private."""
    made = Path(tempfile.mkdtemp(prefix="bilt-test-"))
    made.chmod(0o755)
    yield made
    for path in (made, *made.rglob("*")):
        path.chmod(0o700)
    shutil.rmtree(made)


async def make(folder: Path) -> StoreLocation:
    """A closed store with something in it."""
    location = StoreLocation.of(folder)
    async with SqliteStore(location) as store:
        for n in range(50):
            await store.open_project(ME, f"/srv/{n}", "shop")
    return location


async def refused(path: Path) -> str:
    """The words with which opening is refused."""
    with pytest.raises(StoreUnavailable) as error:
        async with SqliteStore(StoreLocation.of(path)):
            pass
    assert error.value.error == "Internal error"
    assert len(error.value.message) < 500
    return error.value.message


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def as_nobody(path: Path) -> str:
    """What a user without privileges is told who opens the store there."""
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_folder_that_cannot_be_written_is_refused(public: Path) -> None:
    folder = public / "store"
    folder.mkdir()
    folder.chmod(0o555)
    told = as_nobody(folder)
    assert told.startswith("Internal error | ")
    assert f"The store's folder {folder} cannot be written by this user." in told
    assert "--store PATH or BILT_STORE" in told
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(public: Path) -> None:
    inside = public / "closed"
    inside.mkdir()
    inside.chmod(0o555)
    told = as_nobody(inside / "store")
    assert f"Cannot make the folder {inside / 'store'}: Permission denied." in told


def test_a_file_that_cannot_be_written_is_refused(public: Path) -> None:
    folder = public / "store"
    asyncio.run(make(folder))
    database = folder / "bilt.db"
    for path in (folder, *folder.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
    database.chmod(0o444)
    before = database.read_bytes()
    told = as_nobody(folder)
    assert f"Cannot write {database}: Permission denied." in told
    assert database.read_bytes() == before


def test_who_may_write_the_place_may_open_it_without_privileges(public: Path) -> None:
    public.chmod(0o777)
    assert as_nobody(public / "store") == "opened\n"


def pretend(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def file_system_of(_: Path) -> str:
        return kind

    monkeypatch.setattr("bilt_mcp.state.location.file_system_of", file_system_of)


@pytest.mark.parametrize("kind", sorted(NETWORK_FILE_SYSTEMS))
async def test_a_network_file_system_is_refused(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, kind)
    told = await refused(folder)
    assert f"is on a network file system ({kind})" in told
    assert not (folder / "bilt.db").exists()


@pytest.mark.parametrize("kind", ["ext4", "tmpfs", "apfs", "overlay", ""])
async def test_local_and_unknown_file_systems_are_fine(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, kind)
    await make(folder)


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:5 / /proc rw - proc proc rw
31 22 0:40 / /mnt/share rw - nfs4 server:/ rw
32 31 8:2 / /mnt/share/local rw - xfs /dev/sdb1 rw
33 22 0:41 / /mnt/two\\040words rw shared:7 master:1 - cifs //server/x rw
34 22 0:42 / /mnt/größe rw - fuse.sshfs me@server: rw
35 22 8:3 / /mnt/over rw - ext4 /dev/sdc1 rw
36 22 0:43 / /mnt/over rw - nfs server:/ rw
cut off
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/.bilt", "ext4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/deep/inside", "nfs4"),
        ("/mnt/shared", "ext4"),
        ("/mnt/share/local/x", "xfs"),
        ("/mnt/two words/x", "cifs"),
        ("/mnt/größe/x", "fuse.sshfs"),
        ("/mnt/over", "nfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_innermost_mount(
    path: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(*_: object) -> str:
        return MOUNTS

    monkeypatch.setattr(Path, "read_text", read_text)
    assert file_system_of(Path(path)) == kind


async def test_everything_of_a_store_is_private(folder: Path) -> None:
    location = StoreLocation.of(folder)
    before = os.umask(0o000)
    try:
        async with SqliteStore(location) as store:
            await store.open_project(ME, "/srv/shop", "shop")
            files = [
                path for path in (folder / name for name in os.listdir(folder)) if path.is_file()
            ]
            assert {path.name for path in files} == {
                *("bilt.db", "bilt.db-wal", "bilt.db-shm"),
                "write.turn",
            }
            assert {mode(path) for path in files} == {0o600}
            assert {mode(path) for path in (folder, location.runs, location.open)} == {0o700}
    finally:
        os.umask(before)


async def test_a_folder_of_ours_that_others_can_read_is_closed_to_them(folder: Path) -> None:
    os.mkdir(folder, 0o755)
    await make(folder)
    assert mode(folder) == 0o700


async def test_a_database_in_somebodys_folder_gets_a_private_folder_beside_it(
    tmp_path: Path,
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    theirs.chmod(0o755)
    location = await make(theirs / "shop.db")
    assert (location.database, location.folder) == (theirs / "shop.db", theirs / "shop.db.d")
    assert mode(theirs) == 0o755
    assert mode(location.database) == 0o600
    for private in (location.folder, location.runs, location.open):
        assert mode(private) == 0o700
    for path in (location.lock, location.worker_log, location.run("w")):
        assert path.is_relative_to(location.folder)
    assert {path.name for path in theirs.iterdir()} == {"shop.db", "shop.db.d"}


async def test_an_existing_file_is_a_database_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    location = await make(tmp_path / "state")
    assert location.database == tmp_path / "state"
    assert location.folder == tmp_path / "state.d"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists who holds which lock")
async def test_opening_a_store_twice_in_one_process_leaves_the_locks_of_the_first(
    folder: Path,
) -> None:
    location = StoreLocation.of(folder)

    def locks() -> list[str]:
        mine = f" {os.getpid()} ", f":{location.database.stat().st_ino} "
        lines = Path("/proc/locks").read_text("ascii").splitlines()
        return sorted(
            line.partition(": ")[2] for line in lines if all(word in line for word in mine)
        )

    async with SqliteStore(location):
        held = locks()
        assert (
            held != []
        )  # or another process would take itself for the last one, and delete the log
        location.prepare()
        assert locks() == held
