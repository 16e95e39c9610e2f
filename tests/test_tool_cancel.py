"""`bilt_cancel_workflow`: receipts, joined cancels, dry runs, and what cannot be cancelled."""

from __future__ import annotations

import json
from typing import Literal

import anyio
import anyio.lowlevel
import pytest

from bilt_mcp.tools import cancelling

from .support.agents import (
    DEPLOYING,
    STAMP,
    Agent,
    Hand,
    Json,
    waiting,
)
from .support.agents import agent as agent  # a fixture, like the next three
from .support.agents import hand as hand
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place

pytestmark = pytest.mark.anyio


async def test_what_has_not_started_is_cancelled_at_once(agent: Agent, place: Place) -> None:
    session_id, workflow_id = await agent.start()
    found = await agent.call("bilt_cancel_workflow", session_id=session_id, reason="not now")
    assert STAMP.fullmatch(found["cancelled_at"])
    assert found == {
        "session_id": session_id,
        "status": "cancelled",
        "cancelled_at": found["cancelled_at"],
        "message": "Workflow cancelled; nothing of it is alive. Nothing was deployed. Start again with "
        "bilt_send_message.",
        "workflow_id": workflow_id,
        "reason": "not now",
        "stopped": {
            "verified": True,
            "processes_killed": 0,
            "survivors": 0,
            "took_ms": 0.0,
            "step": None,
            "deploy": "not_started",
        },
    }
    assert place.kept() == ([workflow_id], [])  # its environment is forgotten
    (newest, *_) = (await agent.call("bilt_get_messages", session_id=session_id))["messages"]
    assert newest["content"] == "Cancelled by by-hand 1 (nothing was running). Reason: not now"


async def test_a_cancel_without_a_reason_has_none(agent: Agent) -> None:
    session_id, _ = await agent.start()
    found = await agent.call("bilt_cancel_workflow", session_id=session_id, reason="")
    assert found["reason"] is None


async def test_the_longest_reason_is_kept(agent: Agent) -> None:
    session_id, _ = await agent.start()
    found = await agent.call("bilt_cancel_workflow", session_id=session_id, reason="x" * 500)
    assert found["reason"] == "x" * 500


async def test_a_cancel_at_a_gate_closes_the_gate(agent: Agent, hand: Hand) -> None:
    session_id, _ = await agent.start()
    await hand.pause(await hand.claim(), "Ship?")
    found = await agent.call("bilt_cancel_workflow", session_id=session_id)
    assert (found["status"], found["stopped"]["deploy"]) == ("cancelled", "not_started")
    assert (await agent.call("bilt_get_session"))["pending_action"] is None


async def test_cancels_of_what_runs_are_held_until_it_is_dead_and_get_one_answer(
    agent: Agent, hand: Hand, place: Place
) -> None:
    place.workflow(DEPLOYING)
    session_id, workflow_id = await agent.start()
    claim = await hand.claim()
    await hand.begin(claim)
    found: list[str] = []

    async def cancel(reason: str) -> None:
        call = {"session_id": session_id, "reason": reason}
        found.append(await agent.text("bilt_cancel_workflow", **call))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel, "first")
            while (await agent.call("bilt_get_session"))["status"] != "cancelling":
                await anyio.lowlevel.checkpoint()
            tasks.start_soon(cancel, "second")
            await waiting(agent)
            assert not found
            await hand.stopped(claim, killed=7)
    assert found[0] == found[1]
    answer = json.loads(found[0])
    took = answer["stopped"].pop("took_ms")
    assert took >= 0
    assert answer["stopped"] == {
        "verified": True,
        "processes_killed": 7,
        "survivors": 0,
        "step": "build",
        "deploy": "not_started",
    }
    assert (answer["status"], answer["workflow_id"]) == ("cancelled", workflow_id)
    assert answer["reason"] == "first"


@pytest.mark.parametrize(("ended", "deploy"), [(False, "interrupted"), (True, "done")])
async def test_a_cancel_says_what_it_knows_of_a_deploy(
    agent: Agent, hand: Hand, place: Place, ended: bool, deploy: str
) -> None:
    place.workflow('[[step]]\nname = "build"\nrun = "true"\ndeploy = true\n')
    session_id, _ = await agent.start()
    claim = await hand.claim()
    await (hand.do_step if ended else hand.begin)(claim)
    found: list[Json] = []

    async def cancel() -> None:
        found.append(await agent.call("bilt_cancel_workflow", session_id=session_id))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel)
            while (await agent.call("bilt_get_session"))["status"] != "cancelling":
                await anyio.lowlevel.checkpoint()
            await hand.stopped(claim)
    told = {
        "interrupted": "A deploy step was interrupted: look what it has done.",
        "done": "A deploy step had already been done.",
    }[deploy]
    assert found[0]["stopped"]["deploy"] == deploy
    assert found[0]["message"] == (
        f"Workflow cancelled; nothing of it is alive. {told} Start again with bilt_send_message."
    )


async def test_what_cannot_be_verified_dead_in_time_is_told_so_and_never_called_cancelled(
    agent: Agent, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "VERIFY_SECONDS", 0.05)
    session_id, _ = await agent.start()
    claim = await hand.claim()
    found = await agent.call("bilt_cancel_workflow", session_id=session_id)
    assert found["status"] == "cancelling"
    assert found["stopped"]["verified"] is False
    assert found["message"] == (
        "Cancelled, but not everything could be verified dead within 10 s; the kill goes on. Call "
        "bilt_cancel_workflow again to wait for the receipt."
    )
    looked = await agent.call("bilt_get_session")
    assert looked["message"] == (
        "Being cancelled; processes are being killed. bilt_cancel_workflow waits for the receipt."
    )
    await hand.stopped(claim)
    assert (await agent.call("bilt_get_session"))["status"] == "cancelled"


async def test_a_dry_run_tells_and_changes_nothing(agent: Agent, hand: Hand, place: Place) -> None:
    place.workflow(DEPLOYING)
    session_id, _ = await agent.start()
    claim = await hand.claim()
    await hand.do_step(claim)
    assert await hand.store.advance(claim, 2)
    before = place.count("message"), (await agent.call("bilt_get_session"))["revision"]
    found = await agent.call("bilt_cancel_workflow", session_id=session_id, dry_run=True)
    assert found == {
        "would_stop": ["ship it"],
        "steps_done": ["build"],
        "deploy": "not_started",
        "status": "running",
    }
    after = await agent.call("bilt_get_session")
    assert (place.count("message"), after["revision"]) == before
    assert after["status"] == "running"


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("completed", "Workflow has already completed"),
        ("failed", "Workflow has already failed"),
        ("cancelled", "Workflow is already cancelled"),
    ],
)
async def test_what_is_over_cannot_be_cancelled(
    agent: Agent,
    hand: Hand,
    status: Literal["completed", "failed", "cancelled"],
    told: str,
    dry_run: bool,
) -> None:
    session_id, workflow_id = await agent.start()
    if status == "cancelled":
        await agent.call("bilt_cancel_workflow", session_id=session_id)
    else:
        await (hand.complete if status == "completed" else hand.fail)(await hand.claim())
    before = await agent.text("bilt_get_session")
    found = await agent.call("bilt_cancel_workflow", session_id=session_id, dry_run=dry_run)
    details = found["details"]
    assert found == {
        "error": "Cannot cancel workflow",
        "details": {
            "current_status": status,
            "workflow_id": workflow_id,
            "finished_at": details["finished_at"],
            "message": told,
        },
    }
    assert STAMP.fullmatch(details["finished_at"])
    assert await agent.text("bilt_get_session") == before


async def test_a_session_without_a_workflow_has_nothing_to_cancel(agent: Agent) -> None:
    session_id = await agent.session_id()
    assert await agent.text("bilt_cancel_workflow", session_id=session_id) == (
        '{"error":"Cannot cancel workflow","details":{"current_status":"idle",'
        '"message":"Session has no workflow to cancel"}}'
    )


async def test_after_a_cancel_the_session_goes_on_and_the_log_is_kept(agent: Agent) -> None:
    session_id, first = await agent.start()
    await agent.call("bilt_cancel_workflow", session_id=session_id)
    _, second = await agent.start("again")
    assert first != second
    found = await agent.call("bilt_get_messages", session_id=session_id, workflow_id=first)
    assert found["total"] == 3


async def test_a_waiting_cancel_gets_its_own_receipt_although_somebody_has_started_another(
    agent: Agent, hand: Hand
) -> None:
    session_id, workflow_id = await agent.start()
    claim = await hand.claim()
    await hand.begin(claim)
    found: list[Json] = []

    async def cancel() -> None:
        found.append(await agent.call("bilt_cancel_workflow", session_id=session_id))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel)
            while (await agent.call("bilt_get_session"))["status"] != "cancelling":
                await anyio.lowlevel.checkpoint()
            await waiting(agent)
            await hand.stopped(claim, killed=7)
            await agent.start()  # before the one who waits has looked again
    assert (found[0]["workflow_id"], found[0]["status"]) == (workflow_id, "cancelled")
    assert found[0]["stopped"]["processes_killed"] == 7
