"""Waiting: how soon a held call is answered after another process's commit, and what a hundred of them cost."""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import anyio

from bilt_mcp.state import (
    VERSION,
    Claim,
    Note,
    Plan,
    PlannedStep,
    ProcessRecord,
    SqliteStore,
    StoreLocation,
    boot_id,
)

from .figures import Row, Target, rounds
from .jsonrpc import StdioClient
from .kernel import MS, bearers, cpu_ns, now
from .product import leave, server_argv

ACCOUNT = "local"
CLIENTS = 20
EACH = 5
"""Calls that each client holds, for as many sessions."""
HOLD_SECONDS = 45
WINDOW_SECONDS = 2.0
MESSAGES_A_SECOND = 4
POLLING = "a process that looks at SQLite's data_version every 20 ms and says so by a pipe"
POLLER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1])
version = lambda: database.execute("PRAGMA data_version").fetchone()[0]
while sys.stdin.readline():
    seen = version()
    print("looking", flush=True)
    while version() == seen:
        time.sleep(0.02)
    print("changed", flush=True)
"""


def measure_waiting(
    folder: Path, count: int, windows: int, clients: int = CLIENTS, each: int = EACH
) -> list[Row]:
    """Wake one who waits; then let a hundred wait for nothing, alone and beside a build that talks."""
    return anyio.run(_measure, folder, count, windows, clients, each)


async def _measure(folder: Path, count: int, windows: int, clients: int, each: int) -> list[Row]:
    location = StoreLocation.of(folder / "waiting-store")
    with ExitStack() as stack:
        async with SqliteStore(location) as store:
            stack.callback(leave, location.folder, patience=0)
            *quiet, talking = await claimed(store, folder, clients * each + 1)
            stack.enter_context(worker_lock(location))
            poller = stack.enter_context(polling(location))
            served = [stack.enter_context(_client(folder, location)) for _ in range(clients)]
            row = await _wake(store, talking, served[0], poller, count)
            return [row, *await _cost(store, location, quiet, talking, served, poller, windows)]


async def claimed(store: SqliteStore, folder: Path, count: int) -> Sequence[Claim]:
    """Running workflows of as many sessions, held by this process as by a worker."""
    plan = Plan((PlannedStep("build", {}),))
    for number in range(count):
        project = await store.open_project(ACCOUNT, str(folder / f"waiting{number}"), "waiting")
        session = await store.latest_session(ACCOUNT, project.id)
        await store.start(ACCOUNT, session.id, "build", plan)
    epoch = await store.take_over(ProcessRecord(boot_id(), os.getpid(), 0), VERSION)
    claims = [await store.claim(epoch) for _ in range(count)]
    return [claim for claim in claims if claim is not None]


@contextmanager
def worker_lock(location: StoreLocation) -> Generator[None]:
    """While it is held, nobody starts another worker."""
    with location.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _client(folder: Path, location: StoreLocation) -> Generator[StdioClient]:
    argv = server_argv(folder, location.folder.name)
    with StdioClient(argv, cwd=folder, log=folder / "waiting.log") as client:
        client.call("bilt_get_session")
        yield client


class Poller:
    """The least that notices another process's commit."""

    def __init__(self, location: StoreLocation) -> None:
        argv = (sys.executable, "-I", "-S", "-c", POLLER, str(location.database))
        self._process = subprocess.Popen(argv, stdin=-1, stdout=-1, bufsize=0, process_group=0)
        self.pid = self._process.pid

    def look(self) -> None:
        """Let it look from now on, until something has changed."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._said(b"looking\n")

    def has_seen(self) -> None:
        """Return when it says that something has changed."""
        self._said(b"changed\n")

    def _said(self, line: bytes) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != line:
            raise RuntimeError("the floor of waiting has failed")

    def close(self) -> None:
        """Stop looking."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def polling(location: StoreLocation) -> Generator[Poller]:
    """A floor that has nothing to do until it is told to look."""
    poller = Poller(location)
    try:
        yield poller
    finally:
        poller.close()


async def _wake(
    store: SqliteStore, claim: Claim, client: StdioClient, poller: Poller, count: int
) -> Row:
    row = Row("wake", "a held call, from another process's change", POLLING, target=Target(p95=50))
    session_id = await session_of(store, claim)
    for number in rounds(row.what, 2 * count):
        ours = bool(number % 2)
        held = 0
        if ours:
            wait = {"session_id": session_id, "wait_seconds": HOLD_SECONDS}
            held = client.begin_call("bilt_get_session", **wait)
        else:
            poller.look()
        # Not in step with anybody's polling.
        await anyio.sleep(random.uniform(0.05, 0.1))
        began = now()
        await store.note(claim, [], percent=number % 100)
        if ours:
            client.answer(held)
        else:
            poller.has_seen()
        (row.ours if ours else row.floor).append((now() - began) / MS)
    return row


async def session_of(store: SqliteStore, claim: Claim) -> str:
    """The session of a claimed workflow."""
    return (await store.workflow(ACCOUNT, claim.workflow_id)).session_id


async def _cost(
    store: SqliteStore,
    location: StoreLocation,
    quiet: Sequence[Claim],
    talking: Claim,
    clients: Sequence[StdioClient],
    poller: Poller,
    windows: int,
) -> list[Row]:
    what = f"a core's share of {len(quiet)} held calls of {len(clients)} clients"
    target = Target(p50=3)
    alone = Row("waiters", what, POLLING, unit="%", target=target)
    beside = Row("waiters beside", f"{what}, 1 build beside", POLLING, unit="%", target=target)
    for number, claim in enumerate(quiet):
        session_id = await session_of(store, claim)
        wait = {"session_id": session_id, "wait_seconds": HOLD_SECONDS}
        clients[number % len(clients)].begin_call("bilt_get_session", **wait)
    await anyio.sleep(1.0)  # until all are held
    ours = {process.pid for process in bearers(str(location.folder))} - {poller.pid}

    def spent() -> tuple[int, int]:
        return sum(map(cpu_ns, ours)), cpu_ns(poller.pid)

    poller.look()

    async def talk() -> None:
        until = time.monotonic() + WINDOW_SECONDS
        while time.monotonic() < until:
            await store.note(talking, [Note("working", "log", "build")], wrote_output=True)
            poller.has_seen()
            poller.look()
            await anyio.sleep(1 / MESSAGES_A_SECOND)

    for row, meanwhile in ((alone, partial(anyio.sleep, WINDOW_SECONDS)), (beside, talk)):
        for _ in rounds(row.what, windows):
            began, before = now(), spent()
            await meanwhile()
            took = now() - began
            for samples, then, since in zip((row.ours, row.floor), spent(), before, strict=True):
                samples.append(100 * (then - since) / took)
    return [alone, beside]
