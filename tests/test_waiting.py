"""Held calls, in this process: what they are told, when they look again, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from mcp import Client

from bilt_mcp.engine import LocalEngine, local
from bilt_mcp.server import create_server
from bilt_mcp.state import Session, SqliteStore, Status
from bilt_mcp.tools import Desk, send_message
from bilt_mcp.tools import waiting as held
from bilt_mcp.tools.waiting import wait_until

from .support.agents import Agent, Hand, Json, StillEngine, checked, waiting
from .support.agents import agent as agent  # a fixture, like the next three
from .support.agents import hand as hand
from .support.agents import still as still
from .support.builds import ME, build_in
from .support.places import Place
from .support.places import place as place
from .support.waiting import wait_until as until

pytestmark = pytest.mark.anyio

LONG = '[[step]]\nname = "build"\nrun = "echo begun; exec sleep 1000"\n'


@contextlib.asynccontextmanager
async def holding() -> AsyncGenerator[TaskGroup]:
    """A task group whose calls have to end by themselves."""
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            yield tasks


# -- telling that it is alive ----------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["bilt_get_session", "bilt_send_message"])
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_while_a_call_is_held_its_progress_rises_and_after_the_answer_there_is_none(
    place: Place, hand: Hand, monkeypatch: pytest.MonkeyPatch, tool: str, mode: str
) -> None:
    monkeypatch.setattr(held, "BEAT_SECONDS", 0.02)
    told: list[tuple[float, str | None]] = []
    enough = anyio.Event()
    answered_after: list[int] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        assert total is None
        told.append((progress, message))
        if len(told) == 5:
            enough.set()

    async with Client(create_server(place.config()), mode=mode) as client:
        agent = Agent(client)
        session_id = await agent.session_id()
        call: Json = {"session_id": session_id, "message": "build", "wait_for_response": True}
        if tool == "bilt_get_session":
            await agent.start()
            call = {"session_id": session_id, "wait_seconds": 45}

        async def hold() -> None:
            found = await client.call_tool(tool, call, progress_callback=on_progress)
            answered_after.append(len(told))
            checked(tool, found)

        async with holding() as tasks:
            tasks.start_soon(hold)
            await enough.wait()
            await hand.complete(await hand.claim())
        await anyio.sleep(0.1)
        assert answered_after == [len(told)]
    values = [progress for progress, _ in told]
    assert values == sorted(set(values))
    assert told[0][1] == "0 %, Step 1 of 1: build"


async def test_what_has_been_told_is_never_taken_back_whoever_goes_on_with_the_call(
    agent: Agent, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that goes on with the call after this one died tells more than this one did."""
    session_id, _ = await agent.start()
    session = await hand.store.session(ME, session_id)
    told: list[float] = []

    class Ctx:
        async def report_progress(self, progress: float, *_: object) -> None:
            told.append(progress)

    beats = [held.Beat(Ctx()) for _ in range(3)]  # type: ignore[arg-type]
    for beat in beats:
        await beat.tell(session)
        await anyio.sleep(0.005)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # a clock that is set back
    await beats[-1].tell(session)
    await beats[-1].tell(session)
    assert told == sorted(set(told))


# -- the limit -------------------------------------------------------------------------------------


async def test_at_the_limit_the_status_is_the_one_of_then(
    agent: Agent, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_message, "WAIT_SECONDS", 3)
    found: list[Json] = []
    session_id = await agent.session_id()

    async def send() -> None:
        call = {"session_id": session_id, "message": "build", "wait_for_response": True}
        found.append(await agent.call("bilt_send_message", **call))

    async with holding() as tasks:
        tasks.start_soon(send)
        while (await agent.call("bilt_get_session"))["status"] == "idle":
            await anyio.lowlevel.checkpoint()
        await hand.claim()
    assert (found[0]["status"], found[0]["workflow_started"]) == ("running", True)


@pytest.mark.parametrize(("seconds", "well"), [(0.05, True), (45, True), (45.01, False)])
async def test_a_wait_may_be_a_fraction_and_45_seconds_at_most(
    agent: Agent, seconds: float, well: bool
) -> None:
    session_id, _ = await agent.start()
    found = await agent.call(
        "bilt_get_session", session_id=session_id, wait_seconds=seconds, after_revision=0
    )
    assert ("error" not in found) == well


# -- a question that expires -----------------------------------------------------------------------


@pytest.mark.parametrize("on_decline", ["cancel", "skip"])
async def test_who_waits_at_a_gate_is_told_in_the_moment_in_which_it_expires(
    agent: Agent, hand: Hand, place: Place, on_decline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.workflow(
        f'[[step]]\nname = "ship"\nrun = "true"\nconfirm = "Ship?"\non_decline = "{on_decline}"\n'
        'confirm_timeout = "1s"\n[[step]]\nname = "tell"\nrun = "true"\n'
    )
    session_id, _ = await agent.start()
    await hand.pause(await hand.claim(), "Ship?")
    gate = (await hand.store.session("local", session_id)).pending_action
    assert gate is not None
    assert gate.expires_at is not None
    reads = 0
    read = SqliteStore.session

    async def session(*given: Any) -> Session:
        nonlocal reads
        reads += 1
        return await read(*given)

    monkeypatch.setattr(SqliteStore, "session", session)
    found = await agent.call("bilt_get_session", session_id=session_id, wait_seconds=45)
    late = time.time() - gate.expires_at / 1000
    assert found["pending_action"] is None
    assert found["status"] == ("cancelled" if on_decline == "cancel" else "running")
    assert 0 <= late < 5
    assert reads < 8, "when it comes, and when it expires"


async def test_a_gate_whose_end_the_store_cannot_record_is_not_looked_at_all_the_time(
    agent: Agent, hand: Hand, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id, _ = await agent.start()
    await hand.pause(await hand.claim(), "Ship?")
    reads = 0
    read = SqliteStore.session

    async def session(*given: Any) -> Session:
        """As a store reads it that is full: still waiting, long after its time."""
        nonlocal reads
        reads += 1
        found = await read(*given)
        assert found.pending_action is not None
        return replace(found, pending_action=replace(found.pending_action, expires_at=1))

    monkeypatch.setattr(SqliteStore, "session", session)
    await agent.call("bilt_get_session", session_id=session_id, wait_seconds=1)
    assert reads <= 4


# -- a worker that dies ----------------------------------------------------------------------------


async def test_many_who_wait_ask_together_whether_the_worker_lives(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[int] = []
    now = 1_000_000.0

    def ring(_: LocalEngine) -> None:
        rung.append(1)

    def start(*_: object) -> None:
        pass

    monkeypatch.setattr(LocalEngine, "_ring", ring)
    monkeypatch.setattr(LocalEngine, "_start_worker", start)
    async with SqliteStore(place.location) as store:
        engines = [LocalEngine(store, place.location, place.environ) for _ in range(5)]
        monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: now))
        for _ in range(15):
            for engine in engines:
                await engine.wake(news=False)
            now += 0.1
        assert len(rung) == 2
        await engines[0].wake()
        assert len(rung) == 3, "news are never kept back"


async def test_who_waits_sees_to_a_worker_every_two_seconds_and_reads_nothing_meanwhile(
    agent: Agent, hand: Hand, still: list[StillEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert held.LOOK_AGAIN_SECONDS <= 2.0
    monkeypatch.setattr(held, "LOOK_AGAIN_SECONDS", 0.02)
    session_id, _ = await agent.start()
    reads = 0
    read = SqliteStore.session

    async def session(*given: Any) -> Session:
        nonlocal reads
        reads += 1
        return await read(*given)

    monkeypatch.setattr(SqliteStore, "session", session)
    enough = still[0].wakes + 10
    async with holding() as tasks:
        wait = {"session_id": session_id, "wait_seconds": 45}
        tasks.start_soon(partial(agent.call, "bilt_get_session", **wait))
        await until(lambda: still[0].wakes >= enough, "it sees to a worker")
        assert reads == 2, "at first, and when the wait begins"
        await hand.claim()


async def test_who_waits_alone_is_told_that_worker_and_keeper_were_killed(tmp_path: Path) -> None:
    async with build_in(tmp_path) as build:
        build.declare(LONG)
        await build.start()
        await build.until(Status.RUNNING, step="build")
        await build.says("begun")
        desk = Desk(build.store, build.engine, ME, build.project)
        over = partial(wait_until, desk, build.session_id, lambda now: now.status == "failed", 30)
        found: list[Session] = []

        async def wait() -> None:
            found.append(await over())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(0.1)
            build.kill(build.keeper_pid(), build.worker_pid())
        assert found[0].workflow is not None
        assert found[0].workflow.failure is not None
        assert found[0].workflow.failure.code in ("worker_lost", "step_failed")


# -- nothing is left -------------------------------------------------------------------------------


async def test_of_calls_that_were_cancelled_nothing_is_left_and_the_workflow_runs_on(
    agent: Agent, hand: Hand
) -> None:
    session_id, workflow_id = await agent.start()
    claim = await hand.claim()

    async def cancelled(count: int) -> None:
        wait = {"session_id": session_id, "wait_seconds": 45}
        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(agent.client.call_tool, "bilt_get_session", wait)
            await waiting(agent)
            tasks.cancel_scope.cancel()
        await waiting(agent)

    await cancelled(20)
    gc.collect()
    tasks, objects = len(asyncio.all_tasks()), len(gc.get_objects())
    for _ in range(10):
        await cancelled(20)
    await until(lambda: len(asyncio.all_tasks()) <= tasks, "the calls have ended")
    gc.collect()
    assert len(gc.get_objects()) - objects < 300, "a call that stays has dozens"
    found = await agent.call("bilt_get_session", session_id=session_id)
    assert (found["status"], found["workflow_id"]) == ("running", workflow_id)
    await hand.complete(claim)
