"""Kill -9 of any process of ours at any moment, while several write: nothing acknowledged is lost, nothing is half
done, and the next call works.

Servers, a worker, its keepers and two processes that write into the store themselves are killed in the midst of short
steps, starts and cancels. What each had acknowledged before is looked up afterwards, by no code of ours.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process, TaskGroup

from bilt_mcp.state import FailureCode, SqliteStore, Status

from .support.builds import ME, build_in
from .support.fleet import (
    NOT_FINAL,
    Agent,
    Ledger,
    Seat,
    dismiss,
    kill,
    lines,
    neighbour,
    numbers,
    read,
    workers,
)
from .support.places import Place, open_place
from .support.proof import Proof
from .support.rpc import Json
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

START_SECONDS = 2.0
"""Within this time the next message is accepted, and the loss of a worker told."""
SETTLE_SECONDS = 60.0
SERVERS, WRITERS, SESSIONS, PROBES = 2, 2, 3, 16
ONE = {"writer": 10, "keeper": 14, "worker": 8, "server": 1}
MORE = {"two": 3, "all": 1}
"""Who is killed, and how often. A server takes a second or two to start again, so it is a rare victim."""

WRITER = """
import anyio, itertools, json, os, random, sys
from bilt_mcp.engine import LocalEngine
from bilt_mcp.state import ACTIVE, CannotCancel, SqliteStore, StoreLocation, iso
ME = "local"
def say(**said):
    os.write(1, json.dumps(said).encode() + b"\\n")
async def settled(store, engine, hold, session_id):
    while True:
        seen = store.changes()
        session = await store.session(ME, session_id)
        if session.status not in ACTIVE:
            return session.workflow
        if not os.path.exists(hold):
            await engine.wake()
        await store.wait_change(seen, 0.5)
async def write(store, engine, hold, root, generation, draw):
    project = await store.open_project(ME, root, os.path.basename(root))
    session = await store.latest_session(ME, project.id)
    await settled(store, engine, hold, session.id)
    for number in itertools.count():
        while os.path.exists(hold):
            await anyio.sleep(0.01)
        drawn = draw.random()
        text = f"{generation}.{number:06d}" + (" long" if drawn < 0.1 else "")
        prepared = await engine.prepare(project, text)
        started = await store.start(ME, session.id, text, prepared.plan, workflow_id=prepared.workflow_id)
        say(session=session.id, text=text, workflow=started.workflow_id)
        if drawn < 0.7:
            await engine.wake()
        if drawn < 0.3:
            await anyio.sleep(0.1 * draw.random())
        if drawn < 0.1 or drawn > 0.3:
            try:
                told = (await store.cancel(ME, session.id, None, "a writer")).workflow
                say(workflow=told.id, cancelled=told.finished_at and iso(told.finished_at))
            except CannotCancel as error:
                say(workflow=started.workflow_id, ended=error.details["current_status"])
        over = await settled(store, engine, hold, session.id)
        say(workflow=over.id, ended=over.status.value)
async def main(database, hold, generation, seed, *roots):
    location = StoreLocation.of(database)
    async with SqliteStore(location) as store, anyio.create_task_group() as tasks:
        engine = LocalEngine(store, location, os.environ, 30)
        for n, root in enumerate(roots):
            tasks.start_soon(write, store, engine, hold, root, generation, random.Random(f"{seed} {n}"))
anyio.run(main, *sys.argv[1:])
"""


class Fleet:
    """Servers with agents, writers, a worker with its keepers, and sessions to try the next start in."""

    def __init__(self, place: Place, draw: random.Random, tasks: TaskGroup) -> None:
        self.place = place
        self.random = draw
        self.tasks = tasks
        self.ledger = Ledger(place.location.database)
        self.seats = [Seat(neighbour(place, f"server{n}", n % 2 == 0)) for n in range(SERVERS)]
        self.writers: dict[int, Process] = {}
        self.starts: list[float] = []
        self.first_starts: list[float] = []
        self.killed: dict[str, int] = {}
        self.agents: list[Agent] = []
        self._probes: list[str] = []
        self._texts = itertools.count()
        self._generations = itertools.count()
        self._held = place.project.parent / "hold"
        self._go = anyio.Event()
        self._turning = 0
        self._roots = [
            [neighbour(place, f"writer{n}-{m}").project for m in range(SESSIONS)]
            for n in range(WRITERS)
        ]

    async def open(self) -> None:
        async with SqliteStore(self.place.location) as store:

            async def session(name: str) -> str:
                root = str(neighbour(self.place, name).project)
                project = await store.open_project(ME, root, name)
                return (await store.latest_session(ME, project.id)).id

            self._probes = [await session(f"probe{n}") for n in range(PROBES)]
            for n, m in itertools.product(range(SERVERS), range(SESSIONS)):
                drawn = random.Random(self.random.random())
                name = f"agent{n}-{m}"
                self.agents.append(
                    Agent(name, self.seats[n], await session(name), self.ledger, drawn)
                )
        async with anyio.create_task_group() as starting:
            for seat in self.seats:
                starting.start_soon(seat.fill, self.tasks)
        for n in range(WRITERS):
            await self.start_writer(n)
        for agent in self.agents:
            self.tasks.start_soon(self._run, agent)
        self.let_go()

    async def close(self) -> None:
        """End everything that was started."""
        with anyio.CancelScope(shield=True):
            for writer in self.writers.values():
                kill([writer.pid])
                await writer.aclose()
            for caller in [seat.leave() for seat in self.seats]:
                if caller is not None:
                    await caller.close()
            await dismiss(self.place)

    async def _run(self, agent: Agent) -> None:
        while True:
            await self._go.wait()
            self._turning += 1
            await agent.turn()
            self._turning -= 1

    def let_go(self) -> None:
        self._held.unlink(missing_ok=True)
        self._go.set()

    async def hold(self) -> None:
        self._held.touch()
        self._go = anyio.Event()
        await wait_until(lambda: not self._turning, "every agent is still", timeout=30)
        await wait_until(lambda: not self.ledger.unfinished(), "all is over", timeout=30)

    async def start_writer(self, n: int) -> None:
        generation = f"writer{n} {next(self._generations):05d}"
        arguments = [self.place.store, self._held, generation, self.random.random()]
        program = [sys.executable, "-P", "-c", WRITER]
        with (self.place.store.parent / "errors.log").open("ab") as errors:
            process = await anyio.open_process(
                [*program, *map(str, [*arguments, *self._roots[n]])],
                env=dict(self.place.environ),
                stdin=subprocess.DEVNULL,
                stderr=errors,
            )
        self.writers[n] = process
        self.tasks.start_soon(self._book, process)

    async def _book(self, process: Process) -> None:
        async for line in lines(process.stdout):
            said: Json = json.loads(line)
            if "text" in said:
                self.ledger.accepted(said["session"], said["text"], said["workflow"])
            elif "ended" in said:
                self.ledger.ended(said["workflow"], said["ended"])
            else:
                self.ledger.cancelled(said["workflow"], said["cancelled"])
        await process.aclose()

    # -- killing ---------------------------------------------------------------------------------

    async def kill(self, *kinds: str) -> None:
        """Kill these at the same instant, and start servers and writers again."""
        found = workers(self.place.location.database)
        seats: list[Seat] = []
        writers: list[int] = []
        victims: list[int] = []
        for kind in kinds:
            if kind == "server":
                seats = seats or [self.random.choice(self.seats)]  # an empty one is being filled
            elif kind == "writer":
                writers = writers or [self.random.choice(sorted(self.writers))]
            elif kind in ("all", "engine"):
                victims = [*found, *keepers(found)]
                if kind == "all":
                    seats, writers = self.seats, sorted(self.writers)
            else:
                some = found if kind == "worker" else keepers(found)
                victims += [self.random.choice(some)] if some else []
        dead = {seat: caller for seat in seats if (caller := seat.leave()) is not None}
        servers = [caller.process.pid for caller in dead.values()]
        kill([*victims, *servers, *(self.writers[n].pid for n in writers)])
        for kind in kinds:
            self.killed[kind] = self.killed.get(kind, 0) + 1
        for caller in dead.values():
            await caller.close()
        for n in writers:
            await self.start_writer(n)
        for seat in dead:
            self.tasks.start_soon(self._fill, seat)

    async def _fill(self, seat: Seat) -> None:
        began = time.monotonic()
        await seat.fill(self.tasks)
        self.first_starts.append(time.monotonic() - began)

    async def next_start(self, words: str = "") -> None:
        """Send a message by any server that is there, or comes first, and note how long its acceptance took."""
        there = [seat for seat in self.seats if seat.caller is not None]
        caller = await self.random.choice(there or self.seats).present()
        await wait_until(lambda: self._free_probes() != [], "a session is free", timeout=30)
        session = self.random.choice(self._free_probes())
        text = f"probe {next(self._texts):06d}{words}"
        began = time.monotonic()
        answer = await caller.call("bilt_send_message", session_id=session, message=text)
        self.starts.append(time.monotonic() - began)
        assert "error" not in answer, answer
        self.ledger.accepted(session, text, answer["workflow_id"])

    def _free_probes(self) -> list[str]:
        sql = f"""SELECT s.id FROM session AS s JOIN workflow AS w ON w.session = s.n
                  WHERE w.{NOT_FINAL}"""
        busy = {row["id"] for row in self.ledger.rows(sql)}
        return [probe for probe in self._probes if probe not in busy]

    def nothing_dead_lives(self) -> None:
        """No process of a step is alive whose workflow is over."""
        runs = self.place.location.runs
        begun = set(steps_alive(runs).values())
        over = {
            row["id"]
            for workflow in begun
            for row in self.ledger.rows(
                "SELECT id FROM workflow WHERE id = ? AND finished_at IS NOT NULL", workflow
            )
        }
        left = {pid: of for pid, of in steps_alive(runs).items() if of in over} if over else {}
        assert not left, f"alive, and its workflow is over: {left}"


def keepers(worker_pids: list[int]) -> list[int]:
    return [
        pid
        for pid in numbers()
        if read(pid, "comm").strip() == b"bilt-keeper" and _parent(pid) in worker_pids
    ]


def _parent(pid: int) -> int:
    fields = read(pid, "stat").rpartition(b") ")[2].split()
    return int(fields[1]) if fields else 0


def steps_alive(runs: Path) -> Mapping[int, str]:
    """What lives of any step of this store: process numbers, and the workflow that each belongs to."""
    mine, name = b"BILT_ARTIFACTS=" + os.fsencode(runs), b"BILT_WORKFLOW_ID="
    found: dict[int, str] = {}
    for pid in numbers():
        environ = read(pid, "environ").split(b"\0")
        if any(word.startswith(mine) for word in environ):
            (workflow,) = (word for word in environ if word.startswith(name))
            found[pid] = workflow.removeprefix(name).decode()
    return found


@contextlib.asynccontextmanager
async def open_fleet(folder: Path, draw: random.Random) -> AsyncGenerator[Fleet]:
    with open_place(folder, BILT_WORKER_IDLE="30") as place:
        async with anyio.create_task_group() as tasks:
            fleet = Fleet(place, draw, tasks)
            try:
                await fleet.open()
                yield fleet
            finally:
                tasks.cancel_scope.cancel()
                await fleet.close()


async def test_nothing_acknowledged_is_lost_when_any_process_of_ours_is_killed(
    tmp_path: Path, proof: Proof
) -> None:
    async with open_fleet(tmp_path, proof.random) as fleet:
        settled: list[float] = []
        for number in proof.rounds(45, long=1000):
            if number % 25 == 24:
                settled.append(await everything_still(fleet))
            else:
                await anyio.sleep(proof.random.uniform(0, 0.2))
                await fleet.kill(*drawn(proof.random))
                await fleet.next_start()
            fleet.nothing_dead_lives()
            fleet.ledger.check(whole=number % 25 == 24)
        await fleet.hold()
        fleet.ledger.check(whole=True)
        assert max(fleet.starts) <= START_SECONDS
        killed = ", ".join(f"{count} x {kind}" for kind, count in sorted(fleet.killed.items()))
        proof.figure(
            f"{sum(fleet.killed.values())} kills ({killed}); 0 of {fleet.ledger.acknowledged} acknowledgements lost; "
            f"the next message accepted after {spread(fleet.starts)}, a new server ready after "
            f"{spread(fleet.first_starts)}; left alone then, all was over after {spread(settled)}"
        )


def drawn(draw: random.Random) -> list[str]:
    (kind,) = draw.choices([*ONE, *MORE], [*ONE.values(), *MORE.values()])
    return draw.choices([*ONE], [*ONE.values()], k=2) if kind == "two" else [kind]


async def everything_still(fleet: Fleet) -> float:
    """Kill worker and keepers while nobody asks for anything: one call is enough to bring all to an end."""
    await fleet.hold()
    for words in (" long", " long", "", ""):
        await fleet.next_start(words)
    held = "SELECT id FROM workflow WHERE status = 'running'"
    began = "SELECT 1 FROM step_run WHERE outcome IS NULL AND leader_pid IS NOT NULL"
    await wait_until(lambda: fleet.ledger.rows(began) != [], "a step runs", timeout=30)
    await fleet.kill(fleet.random.choice(["engine", "engine", "all"]))
    lost = [row["id"] for row in fleet.ledger.rows(held)]
    assert lost
    at = time.monotonic()
    await fleet.next_start()
    await wait_until(lambda: not fleet.ledger.unfinished(), "all is over", timeout=SETTLE_SECONDS)
    for workflow in lost:
        fleet.ledger.ended(workflow, "failed")
    fleet.ledger.check()
    fleet.let_go()
    return time.monotonic() - at


async def test_the_loss_of_a_worker_is_told_within_two_seconds_although_nobody_asks(
    tmp_path: Path, proof: Proof
) -> None:
    took: list[float] = []
    async with build_in(tmp_path) as build:
        build.declare("[[step]]\nname = 'long'\nrun = 'sleep 1000; true'\n")
        ledger = Ledger(build.location.database)
        for _ in proof.rounds(10, long=100):
            workflow = await build.start()
            await build.until(Status.RUNNING, step="long")
            runs = build.location.runs
            await wait_until(lambda: workflow in steps_alive(runs).values(), "it is up")  # noqa: B023
            await anyio.sleep(proof.random.uniform(0, 0.1))
            build.kill(build.worker_pid())
            began = time.monotonic()
            sql = "SELECT failure FROM workflow WHERE id = ? AND status = 'failed'"
            await wait_until(lambda: ledger.rows(sql, workflow) != [], "its loss is told")  # noqa: B023
            took.append(time.monotonic() - began)
            failure = json.loads(ledger.rows(sql, workflow)[0]["failure"])
            assert failure["code"] == FailureCode.WORKER_LOST
            assert workflow not in steps_alive(runs).values()
    proof.figure(f"{len(took)} workers killed in a step; worker_lost told after {spread(took)}")
    assert max(took) <= START_SECONDS


def spread(seconds: list[float]) -> str:
    ordered = sorted(seconds) or [0.0]
    slow = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    middle = statistics.median(ordered)
    return f"{1000 * middle:.0f}, {1000 * slow:.0f}, {1000 * ordered[-1]:.0f} ms (p50, p95, max)"
