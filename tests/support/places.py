"""A project folder and a store for one test, and nothing of them alive afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bilt_mcp.engine.processes import identify
from bilt_mcp.server import Config
from bilt_mcp.state import StoreLocation
from bilt_mcp.state.driver import sqlite3

GONE_SECONDS = 15.0
IDLE_SECONDS = 1.0

QUICK = '[[step]]\nname = "build"\nrun = "echo built"\n'
"""A workflow that is over at once."""


@dataclass(frozen=True)
class Place:
    """Where a test's servers and workers live."""

    project: Path
    store: Path
    environ: Mapping[str, str] = field(repr=False)

    @property
    def location(self) -> StoreLocation:
        return StoreLocation.of(self.store)

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("--project", str(self.project), "--store", str(self.store))

    def workflow(self, text: str) -> None:
        (self.project / "bilt.toml").write_text(text, "utf-8")

    def config(self, account: str = "local") -> Config:
        return Config(
            project=self.project,
            store=self.store,
            account=account,
            worker_idle_seconds=IDLE_SECONDS,
            environ=self.environ,
        )

    def kept(self) -> tuple[list[str], list[str]]:
        """What lies in runs/ and open/: nothing, when nothing was accepted."""
        return sorted(os.listdir(self.location.runs)), sorted(os.listdir(self.location.open))

    def count(self, table: str) -> int:
        """How many rows a table has, read by no code of ours."""
        return int(self.rows(f"SELECT count(*) FROM {table}")[0][0])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query finds in the store."""
        with contextlib.closing(sqlite3.connect(self.location.database)) as database:
            return list(database.execute(sql))


@contextlib.contextmanager
def open_place(folder: Path, **environ: str) -> Generator[Place]:
    """A place in `folder`; when it is left, its worker is told to go and waited for."""
    project, store = folder / "project", folder / "store"
    project.mkdir()
    home = folder / "home"
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    place = Place(
        project,
        store,
        {**kept, "HOME": str(home), "BILT_WORKER_IDLE": str(IDLE_SECONDS), **environ},
    )
    place.workflow(QUICK)
    try:
        yield place
    finally:
        _dismiss(place.location)


@pytest.fixture(scope="module", params=["1", "0"], ids=["joined", "alone"])
def resident(request: pytest.FixtureRequest) -> str:
    """`BILT_RESIDENT`: served by the process for all clients of the store, and by one of its own."""
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Generator[Place]:
    with open_place(tmp_path) as found:
        yield found


def residents(location: StoreLocation) -> list[int]:
    """The processes that serve this store's clients."""
    wanted = {b"bilt_mcp.server.resident", os.fsencode(location.folder)}
    found: list[int] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if wanted <= set(Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")):
                found.append(int(name))
    return found


def _dismiss(location: StoreLocation) -> None:
    """Stop the store's resident, and its worker, which stops what it runs; only ever processes of the store."""
    for resident in residents(location):
        with contextlib.suppress(ProcessLookupError):
            os.kill(resident, signal.SIGTERM)
    deadline = time.monotonic() + GONE_SECONDS
    told: tuple[int, int] | None = None
    while is_held(location.lock) or is_held(location.starting):
        worker = worker_of(location.database)
        late = time.monotonic() > deadline
        if worker is not None and (worker != told or late):
            signal_worker(worker, signal.SIGKILL if late else signal.SIGTERM)
            told = worker
        if time.monotonic() > deadline + 5:
            print(f"a worker of {location.folder} does not go: {worker}", file=sys.stderr)
            raise AssertionError(f"the worker of {location.folder} does not go")
        time.sleep(0.02)


def signal_worker(worker: tuple[int, int], number: int) -> None:
    """Signal that very process, if it is still there."""
    pid, start_ticks = worker
    found = identify(pid)
    if found is not None and found.start_ticks == start_ticks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def worker_of(database: Path) -> tuple[int, int] | None:
    """The store's worker, as its process and when that started; None when there is none."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as found:
            row = found.execute("SELECT pid, start_ticks FROM worker").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None or row[0] is None else (int(row[0]), int(row[1]))


def stop_apart(worker: int, location: StoreLocation) -> None:
    """Stop a worker, but not while all others wait for its turn of writing to end."""
    os.kill(worker, signal.SIGSTOP)
    while is_held(location.turn):
        os.kill(worker, signal.SIGCONT)
        time.sleep(0.01)
        os.kill(worker, signal.SIGSTOP)


def is_held(lock: Path) -> bool:
    """Whether a process holds this lock."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
