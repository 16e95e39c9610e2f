"""A store on a small disk of its own, which a test can fill to the last byte.

The server gets the disk in a mount namespace of its own; a test reaches its files through /proc.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bilt_mcp.state import StoreLocation

from .places import GONE_SECONDS, Place, is_held
from .rpc import Server

_QUERY = (
    "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone()[0])"
)
_MOUNT = 'mount -t tmpfs -o size="$1",mode=0700 tmpfs "$2" && shift 2 && exec "$@"'


def _unshare() -> list[str]:
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


def _can_mount() -> bool:
    try:
        tried = subprocess.run(
            [*_unshare(), "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True
        )
    except OSError:
        return False
    return tried.returncode == 0


@dataclass(frozen=True)
class SmallDisk:
    """A server whose store is alone on its disk."""

    server: Server
    folder: Path
    """The store's folder, as this process reaches it."""
    database: Path
    """The database, as the server reaches it."""

    @property
    def location(self) -> StoreLocation:
        """The store's files, as this process reaches them."""
        return StoreLocation.of(self.folder)

    def query(self, sql: str) -> str:
        """The first column of an SQL query's first row, asked where the disk is: SQLite resolves links."""
        enter = ["nsenter", "--target", str(self.server.process.pid), "--mount"]
        enter += [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        asked = [*enter, sys.executable, "-c", _QUERY, str(self.database), sql]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()

    def fill(self) -> None:
        """Leave not one byte, and nothing in the log of the database that could be written over."""
        self.query("PRAGMA wal_checkpoint(TRUNCATE)")
        block = bytes(1 << 20)
        with open(self.folder / "filler", "ab", buffering=0) as filler:
            while block:
                try:
                    filler.write(block)
                except OSError:
                    block = block[: len(block) // 2]

    def make_room(self) -> None:
        (self.folder / "filler").unlink()


def on_small_disk(folder: Path, size: str) -> list[str]:
    """What goes before a command so that, for it alone, `folder` is a disk of `size`; skips where there can be none."""
    if not _can_mount():
        # Loud: CI fails for it, and whoever runs the tests elsewhere reads it in the summary.
        if os.environ.get("CI"):
            raise AssertionError("cannot mount a small disk here, so a full one cannot be tested")
        pytest.skip("cannot mount a small disk here: needs unshare and mount, and the right to")
    return [*_unshare(), "sh", "-c", _MOUNT, "small-disk", size, str(folder)]


@contextlib.contextmanager
def small_disk(place: Place, size: str) -> Generator[SmallDisk]:
    """A server for `place` whose store lies on a disk of `size`."""
    within = on_small_disk(place.store, size)
    place.store.mkdir()
    with Server(place.arguments, place.environ, within=within) as server:
        folder = Path(f"/proc/{server.process.pid}/root{place.store}")
        disk = SmallDisk(server, folder, StoreLocation.of(place.store).database)
        try:
            yield disk
        finally:
            with contextlib.suppress(FileNotFoundError):
                disk.make_room()
            _dismiss(disk)


def _dismiss(disk: SmallDisk) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while is_held(disk.location.lock) or is_held(disk.location.starting):
        number = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(int(disk.query("SELECT pid FROM worker")), number)
        assert time.monotonic() < deadline + 5, "the worker does not go"
        time.sleep(0.05)
