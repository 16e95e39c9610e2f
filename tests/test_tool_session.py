"""`bilt_get_session`: where things stand, what to call next, and waiting for a change."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from bilt_mcp.state import Caller, Claim, Failure, FailureCode

from .support.agents import (
    DEPLOYING,
    STAMP,
    UNKNOWN,
    Agent,
    Hand,
    Json,
    StillEngine,
    agent_at,
    waiting,
)
from .support.agents import agent as agent  # a fixture, like the next three
from .support.agents import hand as hand
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place

pytestmark = pytest.mark.anyio


NO_PROJECT = {
    "error": "Project not found",
    "details": {
        "message": "No project with this id. Call bilt_get_session without arguments for the project of this server."
    },
}


async def test_the_first_look_makes_one_idle_session(agent: Agent, place: Place) -> None:
    found = await agent.call("bilt_get_session")
    assert STAMP.fullmatch(found["created_at"])
    assert found == {
        "session_id": found["session_id"],
        "project_id": found["project_id"],
        "status": "idle",
        "created_at": found["created_at"],
        "updated_at": found["created_at"],
        "progress": None,
        "workflow_id": None,
        "revision": 1,
        "message": "Nothing has run yet. Start a workflow with bilt_send_message.",
        "pending_action": None,
        "failure": None,
    }
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(agent.call, "bilt_get_session")
    assert await agent.session_id() == found["session_id"]
    assert place.count("session") == 1


async def test_two_servers_of_a_project_see_one_session(agent: Agent, place: Place) -> None:
    async with agent_at(place) as other:
        assert await other.session_id() == await agent.session_id()


async def test_a_project_is_found_by_its_id_and_others_are_not_told_of(
    agent: Agent, place: Place
) -> None:
    mine = await agent.call("bilt_get_session")
    async with agent_at(place, "somebody else") as other:
        foreign = (await other.call("bilt_get_session"))["project_id"]
    assert await agent.call("bilt_get_session", project_id=mine["project_id"]) == mine
    assert await agent.call("bilt_get_session", project_id=UNKNOWN) == NO_PROJECT
    assert await agent.call("bilt_get_session", project_id=foreign) == NO_PROJECT
    both = {"session_id": mine["session_id"], "project_id": UNKNOWN}
    assert await agent.call("bilt_get_session", **both) == mine


async def test_the_same_look_is_the_same_bytes(agent: Agent, hand: Hand) -> None:
    session_id, _ = await agent.start()
    for status in ("pending", "completed"):
        if status == "completed":
            await hand.complete(await hand.claim())
        text = await agent.text("bilt_get_session", session_id=session_id)
        assert f'"status":"{status}"' in text
        assert await agent.text("bilt_get_session", session_id=session_id) == text
        assert await agent.text("bilt_get_session") == text
        assert "elapsed_seconds" not in text


async def test_only_a_running_workflow_has_clocks_and_they_are_all_that_moves(
    agent: Agent, hand: Hand
) -> None:
    session_id, workflow_id = await agent.start()
    claim = await hand.claim()
    await hand.begin(claim)
    await hand.store.note(claim, [], percent=40, progress="half of it")
    first = await agent.call("bilt_get_session", session_id=session_id)
    second = await agent.call("bilt_get_session", session_id=session_id)
    for found in (first, second):
        assert found["progress"].pop("elapsed_seconds") >= 0
        assert found["progress"].pop("quiet_seconds") >= 0
    assert first == second
    assert (first["status"], first["workflow_id"]) == ("running", workflow_id)
    assert first["progress"] == {
        "step": 1,
        "total_steps": 1,
        "current_step": "build",
        "percent": 40,
        "message": "half of it",
    }


async def test_each_status_says_which_call_comes_next(
    agent: Agent, hand: Hand, place: Place
) -> None:
    place.workflow(DEPLOYING)
    session_id, _ = await agent.start()

    async def look() -> tuple[str, str]:
        found = await agent.call("bilt_get_session")
        wait = (
            "Wait for the next change with bilt_get_session(session_id, wait_seconds=45, "
            f"after_revision={found['revision']})"
        )
        return found["status"], found["message"].replace(wait, "WAIT")

    assert await look() == (
        "pending",
        "Accepted and durable; it starts when a worker is free. WAIT.",
    )
    claim = await hand.claim()
    assert await look() == (
        "running",
        "Running. WAIT, read output with bilt_get_messages, or stop with bilt_cancel_workflow.",
    )
    await hand.pause(claim, "Ship?")
    assert await look() == (
        "paused",
        "Waiting for a person to confirm step build: bilt_confirm_action has the user asked, or they run "
        f"`bilt-mcp --store {place.store} confirm {session_id}` in a terminal. You cannot approve it. WAIT, or stop "
        "with bilt_cancel_workflow.",
    )
    await agent.call("bilt_cancel_workflow", session_id=session_id)
    again = "Start again with bilt_send_message."
    assert await look() == ("cancelled", f"Cancelled; nothing of it is alive. {again}")
    await agent.start()
    await hand.complete(await hand.claim())
    assert await look() == (
        "completed",
        "Completed. Read the messages with bilt_get_messages, or start another with bilt_send_message.",
    )
    await agent.start()
    await hand.fail(await hand.claim())
    assert await look() == (
        "failed",
        "Step build ended with 3. Read its last output with bilt_get_messages, correct the cause, then start again "
        "with bilt_send_message.",
    )
    await agent.start()
    claim = await hand.claim()
    await hand.store.request_pause("local", session_id, Caller("somebody"))
    assert await hand.store.pause(claim, None)
    assert await look() == (
        "paused",
        "Paused by request. Go on with bilt_resume_workflow, or stop with bilt_cancel_workflow.",
    )


async def test_a_gate_and_a_failure_are_shown(agent: Agent, hand: Hand) -> None:
    session_id, _ = await agent.start()
    claim = await hand.claim()
    await hand.pause(claim, "Ship it?")
    gate = (await agent.call("bilt_get_session"))["pending_action"]
    assert gate == {
        "action_id": gate["action_id"],
        "step": "build",
        "message": "Ship it?",
        "expires_at": None,
    }
    await hand.store.confirm("local", session_id, gate["action_id"], Caller("me"))
    await hand.fail(await hand.claim())
    found = await agent.call("bilt_get_session")
    assert found["pending_action"] is None
    assert found["failure"] == {
        "code": "step_failed",
        "step": "build",
        "exit_code": 3,
        "message": "Step build ended with 3.",
    }


async def test_a_wait_for_a_revision_that_has_passed_ends_at_once(agent: Agent) -> None:
    await agent.start()
    with anyio.fail_after(20):
        found = await agent.call("bilt_get_session", wait_seconds=45, after_revision=1)
    assert found["revision"] == 2


async def test_a_wait_ends_when_something_changes(agent: Agent, hand: Hand) -> None:
    await agent.start()
    known = (await agent.call("bilt_get_session"))["revision"]
    found: list[Json] = []
    claims: list[Claim] = []

    async def wait(**given: Any) -> None:
        found.append(await agent.call("bilt_get_session", wait_seconds=45, **given))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await waiting(agent)
            assert not found
            claims.append(await hand.claim())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(wait, after_revision=known + 2))
            await hand.store.note(claims[0], [], percent=50)  # revision known + 2 is no news
            await waiting(agent)
            assert len(found) == 1
            await hand.complete(claims[0])
    told = [(answer["status"], answer["revision"]) for answer in found]
    assert told == [("running", known + 1), ("completed", known + 3)]


async def test_a_wait_without_a_change_ends_at_its_limit(agent: Agent) -> None:
    session_id, _ = await agent.start()
    before = await agent.text("bilt_get_session", session_id=session_id)
    started = anyio.current_time()
    after = await agent.text("bilt_get_session", session_id=session_id, wait_seconds=0.2)
    assert after == before
    assert 0.2 <= anyio.current_time() - started < 20


async def test_who_looks_at_or_waits_for_active_work_sees_to_a_worker(
    agent: Agent, hand: Hand, still: list[StillEngine]
) -> None:
    await agent.session_id()
    (engine,) = still
    assert engine.wakes == 0
    await agent.start()
    started = engine.wakes
    assert started > 0
    await agent.call("bilt_get_session")
    assert engine.wakes > started
    await hand.complete(await hand.claim())
    done = engine.wakes
    await agent.call("bilt_get_session")
    assert engine.wakes == done


@pytest.mark.parametrize("code", list(FailureCode))
async def test_every_way_to_fail_is_told_with_the_next_call(
    agent: Agent, hand: Hand, code: FailureCode
) -> None:
    session_id, _ = await agent.start()
    claim = await hand.claim()
    failure = Failure(code, "What happened.", "build")
    assert await hand.store.fail(claim, failure, [])
    found = await agent.call("bilt_get_session", session_id=session_id)
    assert found["failure"]["code"] == code.value
    assert found["message"].startswith("What happened. ")
    assert "bilt_send_message" in found["message"]
    assert len(found["message"]) < 500
