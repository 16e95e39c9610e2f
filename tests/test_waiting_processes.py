"""Held calls of real servers: woken by other processes' commits, the same bytes from each, and nothing left of them."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import time
from collections.abc import AsyncGenerator, Generator
from functools import partial
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters

from bilt_mcp.state import SqliteStore
from bilt_mcp.state.driver import sqlite3

from .store_contract import Kind, Scene, Subject
from .support.agents import Agent, Json, agent_at
from .support.places import Place, is_held, open_place, residents
from .support.places import resident as resident  # a fixture
from .support.rpc import PATIENCE, Server, command, structured

pytestmark = pytest.mark.anyio

SLOW = '[[step]]\nname = "build"\nrun = "exec sleep 1000"\n'
CLOCKS = re.compile(r',?"(?:elapsed|quiet)_seconds":[\d.]+')


@pytest.fixture
def place(quick_path: Path, resident: str) -> Generator[Place]:
    with open_place(quick_path, BILT_RESIDENT=resident) as found:
        yield found


@contextlib.asynccontextmanager
async def by_hand(place: Place) -> AsyncGenerator[Scene]:
    """A store whose worker is this test: no server starts another one."""
    async with SqliteStore(place.location) as store:
        with place.location.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Scene(store)


def make_ours(place: Place) -> None:
    """Give everything in the store to the account that servers on standard streams act for."""
    with contextlib.closing(sqlite3.connect(place.location.database)) as database, database:
        for table in ("project", "session"):
            database.execute(f"UPDATE {table} SET account = 'local'")


def text_of(server: Server, request_id: int) -> str:
    return str(server.answer(request_id)["result"]["content"][0]["text"])


# -- being woken -----------------------------------------------------------------------------------


async def test_a_held_call_is_answered_within_milliseconds_of_another_process_s_commit(
    place: Place,
) -> None:
    async with by_hand(place) as scene:
        subject = await scene.subject(Kind.RUNNING)
        make_ours(place)
        with Server(place.arguments, place.environ) as server:
            found = server.call("bilt_get_session", session_id=subject.session_id)
            delays: list[float] = []
            for percent in range(10):
                known = {"wait_seconds": 45, "after_revision": found["revision"]}
                waiting = server.start_call(
                    "bilt_get_session", session_id=subject.session_id, **known
                )
                server.ask("ping")
                await anyio.sleep(0.05)  # mostly it is held then; if not, nothing is missed
                await scene.store.note(subject.claim, [], percent=percent)
                committed = time.monotonic()
                found = structured(server.answer(waiting))
                delays.append(time.monotonic() - committed)
                assert found["progress"]["percent"] == percent // 2
    assert min(delays) < 0.05
    assert max(delays) < 2.0


# -- the same bytes --------------------------------------------------------------------------------


async def test_the_same_look_is_the_same_bytes_in_every_situation_and_from_every_process(
    place: Place,
) -> None:
    async with by_hand(place) as scene:
        subjects: list[tuple[Kind, Subject]] = []
        # What waits for a worker comes last, or this one would claim it again.
        last = (Kind.RESUMED, Kind.PENDING)
        for kind in (*(kind for kind in Kind if kind not in last), *last):
            subjects.append((kind, await scene.subject(kind)))
        make_ours(place)
        with (
            Server(place.arguments, place.environ) as one,
            Server(place.arguments, place.environ) as two,
            Server((*place.arguments, "--no-resident"), place.environ) as three,
        ):
            async with agent_at(place) as inside:
                for kind, subject in subjects:
                    call: Json = {"session_id": subject.session_id}
                    texts = [
                        text_of(server, server.start_call("bilt_get_session", **call, **wait))
                        for server in (one, two, three)
                        for wait in ({}, {"wait_seconds": 0.02})
                    ]
                    texts.append(await inside.text("bilt_get_session", **call))
                    assert len({CLOCKS.sub("", text) for text in texts}) == 1, kind
                    running = json.loads(texts[0])["status"] == "running"
                    assert all(len(CLOCKS.findall(text)) == 2 * running for text in texts), kind


# -- telling that it is alive ----------------------------------------------------------------------


@pytest.mark.parametrize("resident", ["1"])
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_sdks_client_is_told_every_five_seconds_that_its_calls_are_held(
    place: Place, mode: str
) -> None:
    place.workflow(SLOW)
    program, *arguments = command(*place.arguments)
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(place.environ))
    beats: dict[str, list[tuple[float, float]]] = {"bilt_send_message": [], "bilt_get_session": []}
    enough = anyio.Event()

    async with Client(parameters, mode=mode, read_timeout_seconds=PATIENCE) as client:
        agent = Agent(client)
        session_id = await agent.session_id()

        async def hold(tool: str, **call: object) -> None:
            async def on_progress(
                progress: float, total: float | None, message: str | None
            ) -> None:
                assert message
                assert total is None
                beats[tool].append((time.monotonic(), progress))
                if min(map(len, beats.values())) >= 2:
                    enough.set()

            beats[tool].append((time.monotonic(), -1.0))
            await client.call_tool(
                tool, {"session_id": session_id, **call}, progress_callback=on_progress
            )

        beats_seen = dict[str, list[tuple[float, float]]]()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                call = {"message": "x", "wait_for_response": True}
                tasks.start_soon(partial(hold, "bilt_send_message", **call))
                wait = {"wait_seconds": 45, "after_revision": 1000}
                tasks.start_soon(partial(hold, "bilt_get_session", **wait))
                await enough.wait()
                beats_seen = {tool: list(told) for tool, told in beats.items()}
                await agent.call("bilt_cancel_workflow", session_id=session_id)
                tasks.cancel_scope.cancel()
    for told in beats_seen.values():
        begun, _ = told[0]
        for number, ((_, before), (moment, progress)) in enumerate(itertools.pairwise(told), 1):
            assert moment - begun >= 5 * number
            assert progress > before


# -- nothing is left -------------------------------------------------------------------------------


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0])


def hold_and_cancel(server: Server, session_id: str, count: int) -> None:
    calls = [
        server.start_call("bilt_get_session", session_id=session_id, wait_seconds=45)
        for _ in range(count)
    ]
    server.call("bilt_get_session")
    for call in calls:
        cancelled = {"requestId": call, "reason": "enough"}
        line = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}
        server.write(json.dumps(line).encode() + b"\n")
    server.call("bilt_get_session")


def test_hundreds_of_cancelled_waits_and_lost_clients_leave_nothing_and_stop_nothing(
    place: Place,
) -> None:
    place.workflow(SLOW)
    with Server(place.arguments, place.environ) as server:
        session_id = server.call("bilt_get_session")["session_id"]
        started = server.call("bilt_send_message", session_id=session_id, message="x")
        revision = 0
        while (found := server.call("bilt_get_session"))["status"] != "running":
            revision = found["revision"]
            server.call("bilt_get_session", wait_seconds=5, after_revision=revision)
        serving = (residents(place.location) or [server.process.pid])[0]

        def lose_a_client() -> None:
            with Server(place.arguments, place.environ) as lost:
                for _ in range(20):
                    lost.start_call("bilt_get_session", session_id=session_id, wait_seconds=45)
                lost.ask("ping")

        hold_and_cancel(server, session_id, 60)
        lose_a_client()
        files, memory = descriptors(serving), memory_kib(serving)
        for _ in range(2):
            hold_and_cancel(server, session_id, 60)
            lose_a_client()
        deadline = time.monotonic() + PATIENCE
        while descriptors(serving) > files:
            assert time.monotonic() < deadline, "descriptors are left"
            time.sleep(0.02)
        assert memory_kib(serving) - memory < 6000
        found = server.call("bilt_get_session", session_id=session_id)
        assert (found["status"], found["workflow_id"]) == ("running", started["workflow_id"])
        assert is_held(place.location.lock)
        assert server.call("bilt_cancel_workflow", session_id=session_id)["stopped"]["verified"]
        assert not [line for line in server.lines if b'"isError":true' in line]


def test_who_was_cancelled_while_it_waited_for_the_response_has_started_it_all_the_same(
    place: Place,
) -> None:
    place.workflow(SLOW)
    with Server(place.arguments, place.environ) as server:
        session_id = server.call("bilt_get_session")["session_id"]
        call = server.start_call(
            "bilt_send_message", session_id=session_id, message="x", wait_for_response=True
        )
        while server.call("bilt_get_session")["status"] != "running":
            time.sleep(0.01)
        cancelled = {"requestId": call}
        line = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}
        server.write(json.dumps(line).encode() + b"\n")
        server.ask("ping")
        assert server.call("bilt_get_session", wait_seconds=0.5)["status"] == "running"
        assert server.call("bilt_cancel_workflow", session_id=session_id)["stopped"]["verified"]
        assert not [line for line in server.lines if b'"id":%d,' % call in line]
