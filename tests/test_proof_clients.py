"""Sixteen client processes on one store: no call meets a locked store, nobody starves, nothing acknowledged is lost.

Every client has a server, a project and a session of its own; they all share the store and its worker. The long form
kills servers and workers all the while.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup

from bilt_mcp.state import SqliteStore

from .support.builds import ME
from .support.fleet import Agent, Ledger, Seat, dismiss, kill, neighbour, workers
from .support.places import Place, open_place
from .support.proof import Proof
from .support.rpc import Json

pytestmark = pytest.mark.anyio

CLIENTS = 16
STARTING = 4
"""As many servers start at once: it is computing, so more would only be slower each."""
LONGEST_SECONDS = 5.0
"""Nobody waits longer for a call that is not asked to wait; 15 s while others are killed."""
FAIR = 3
"""Nobody does less than a third of what the one in the middle does."""
WRITING = ("bilt_send_message", "bilt_cancel_workflow")
KILLING_FROM_SECONDS = 100
"""A run that is shorter kills nobody."""


class Load:
    """Sixteen clients at work, and how long each of their calls took."""

    def __init__(self, place: Place, tasks: TaskGroup, draw: random.Random) -> None:
        self.place = place
        self.random = draw
        self.tasks = tasks
        self.ledger = Ledger(place.location.database)
        self.agents: list[Agent] = []
        self.waits: dict[str, dict[str, list[float]]] = {}
        self.troubles: list[str] = []
        self.kills = {"server": 0, "worker": 0}

    async def open(self) -> None:
        """Start every server, at once."""
        async with SqliteStore(self.place.location) as store:
            for n in range(CLIENTS):
                name = f"client{n:02d}"
                # Half of them share the resident, half are processes that write for themselves.
                seat = Seat(neighbour(self.place, name, resident=n % 2 == 0))
                project = await store.open_project(ME, str(seat.place.project), name)
                session = (await store.latest_session(ME, project.id)).id
                agent = Agent(name, seat, session, self.ledger, random.Random(self.random.random()))
                agent.timed = self._noting(name)
                self.agents.append(agent)
        at_once = anyio.CapacityLimiter(STARTING)

        async def fill(seat: Seat) -> None:
            async with at_once:
                await seat.fill(self.tasks)

        async with anyio.create_task_group() as starting:
            for agent in self.agents:
                starting.start_soon(fill, agent.seat)

    def _noting(self, name: str) -> Callable[[str, float, Json], None]:
        waits = self.waits[name] = {}

        def note(tool: str, seconds: float, answer: Json) -> None:
            waits.setdefault(tool, []).append(seconds)
            told = f"{answer.get('error')}: {answer.get('details')}"
            if any(word in told for word in ("Internal error", "locked")):
                self.troubles.append(f"{name}, {tool} after {seconds:.1f} s: {told}")

        return note

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            for agent in self.agents:
                if (caller := agent.seat.leave()) is not None:
                    await caller.close()
            await dismiss(self.place)

    async def work(self, agent: Agent, until: float) -> None:
        """Turn after turn, until the time is over."""
        while time.monotonic() < until:
            await agent.turn()

    async def kill_now_and_then(self, until: float) -> None:
        """Kill a server or the worker every 5 to 40 s, and look after what was acknowledged."""
        while (wait := self.random.uniform(5, 40)) < until - time.monotonic():
            await anyio.sleep(wait)
            seat = self.random.choice(self.agents).seat
            victim = self.random.choice(("server", "worker"))
            if victim == "worker":
                kill(workers(self.place.location.database))
            elif (caller := seat.leave()) is not None:
                caller.kill()
                await caller.close()
                await seat.fill(self.tasks)
            self.kills[victim] += 1
            self.ledger.check()

    def writing(self, name: str) -> list[float]:
        """What one client waited for calls that write."""
        return [wait for tool in WRITING for wait in self.waits[name].get(tool, [])]


@pytest.mark.timeout(300)  # before the load, sixteen servers compute for a second or two each
async def test_sixteen_clients_meet_no_locked_store_and_none_of_them_starves(
    tmp_path: Path, proof: Proof
) -> None:
    seconds = proof.size(14, 7200)
    killing = seconds >= KILLING_FROM_SECONDS
    with open_place(tmp_path, BILT_WORKER_IDLE="30") as place:
        async with anyio.create_task_group() as tasks:
            load = Load(place, tasks, proof.random)
            try:
                began = time.monotonic()
                await load.open()
                ready = time.monotonic() - began
                await run(load, proof, seconds, killing)
                judge(load, proof, ready, killing)
            finally:
                tasks.cancel_scope.cancel()
                await load.close()


async def run(load: Load, proof: Proof, seconds: int, killing: bool) -> None:
    """Let them all work for this long."""
    until = time.monotonic() + seconds
    with proof.progress(seconds) as bar:
        async with anyio.create_task_group() as working:
            for agent in load.agents:
                working.start_soon(load.work, agent, until)
            if killing:
                working.start_soon(load.kill_now_and_then, until)
            while time.monotonic() < until:
                await anyio.sleep(1)
                bar.advance(1)
    load.ledger.check(whole=True)


def judge(load: Load, proof: Proof, ready: float, killing: bool) -> None:
    """Say what was measured, then hold it to what is promised."""
    turns = {agent.name: agent.turns for agent in load.agents}
    middle = statistics.median(turns.values())
    calls = [wait for waits in load.waits.values() for some in waits.values() for wait in some]
    worst = {name: max(load.writing(name), default=0.0) for name in turns}
    medians = {name: statistics.median(load.writing(name) or [0.0]) for name in turns}
    median = statistics.median(medians.values())
    killed = "".join(f", {count} x {kind} killed" for kind, count in load.kills.items() if count)
    proof.figure(
        f"{CLIENTS} clients, ready after {ready:.1f} s{killed}: {len(calls)} calls, {len(load.troubles)} met a "
        f"locked store; {sum(turns.values())} loops, {min(turns.values())} to {max(turns.values())} a client; calls "
        f"that write: median {1000 * median:.0f} ms (of a client {1000 * min(medians.values()):.0f} to "
        f"{1000 * max(medians.values()):.0f}), longest of a client {1000 * min(worst.values()):.0f} to "
        f"{1000 * max(worst.values()):.0f} ms, longest / median {max(worst.values()) / median:.0f}"
    )
    assert load.troubles == []
    starved = {name: count for name, count in turns.items() if FAIR * count < middle}
    assert starved == {}, f"the others did {middle:g}: {starved}"
    assert max(calls) <= (15.0 if killing else LONGEST_SECONDS), worst
    if not killing:
        assert load.ledger.rows("SELECT id FROM workflow WHERE status = 'failed'") == []
