"""Every tool in every state of a session: the whole table, so that no verb has a state that nobody thought of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bilt_mcp.state import Caller

from .support.agents import UNKNOWN, Agent, Hand, Json
from .support.agents import agent as agent  # a fixture, like the next three
from .support.agents import hand as hand
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place

pytestmark = pytest.mark.anyio

GATED = """
[[step]]
name = "build"
run = "true"
[[step]]
name = "ship"
run = "true"
confirm = "Ship?"
"""

ACTIVE, NO_CANCEL = "Workflow already active", "Cannot cancel workflow"
NO_PAUSE, NO_RESUME = "Cannot pause workflow", "Cannot resume workflow"
NOTHING, PERSON = "Nothing to confirm", "Confirmation required"

TOOLS = ("send_message", "cancel", "cancel dry", "pause", "resume", "confirm", "decline")
TABLE: dict[str, tuple[str, ...]] = {
    # send_message, cancel, cancel dry, pause, resume, confirm, decline
    "idle": ("pending", NO_CANCEL, NO_CANCEL, NO_PAUSE, NO_RESUME, NOTHING, NOTHING),
    "pending": (ACTIVE, "cancelled", "pending", "pending", NO_RESUME, NOTHING, NOTHING),
    "running": (ACTIVE, "cancelling", "running", "running", NO_RESUME, NOTHING, NOTHING),
    "let go": (ACTIVE, "cancelled", "running", "running", NO_RESUME, NOTHING, NOTHING),
    "paused": (ACTIVE, "cancelled", "paused", NO_PAUSE, "running", NOTHING, NOTHING),
    "gated": (ACTIVE, "cancelled", "paused", NO_PAUSE, PERSON, PERSON, "cancelled"),
    "cancelling": (ACTIVE, "cancelling", "cancelling", NO_PAUSE, NO_RESUME, NOTHING, NOTHING),
    "cancelled": ("pending", NO_CANCEL, NO_CANCEL, NO_PAUSE, NO_RESUME, NOTHING, NOTHING),
    "completed": ("pending", NO_CANCEL, NO_CANCEL, NO_PAUSE, NO_RESUME, NOTHING, NOTHING),
    "failed": ("pending", NO_CANCEL, NO_CANCEL, NO_PAUSE, NO_RESUME, NOTHING, NOTHING),
}
"""What each tool answers: the status after it, or the error."""

CALLS: dict[str, tuple[str, Json]] = {
    "send_message": ("bilt_send_message", {"message": "go"}),
    "cancel": ("bilt_cancel_workflow", {}),
    "cancel dry": ("bilt_cancel_workflow", {"dry_run": True}),
    "pause": ("bilt_pause_workflow", {}),
    "resume": ("bilt_resume_workflow", {}),
    "confirm": ("bilt_confirm_action", {"action_id": UNKNOWN}),
    "decline": ("bilt_cancel_action", {"action_id": UNKNOWN}),
}


async def _bring(agent: Agent, hand: Hand, state: str) -> str:
    """A session in this state; its id."""
    session_id = await agent.session_id()
    if state == "idle":
        return session_id
    await agent.start()
    if state == "pending":
        return session_id
    claim = await hand.claim()
    store, me = hand.store, Caller("me")
    if state in ("paused", "let go"):
        await store.request_pause("local", session_id, me)
        assert await store.pause(claim, None)
        if state == "let go":
            await store.resume("local", session_id, me)
    elif state == "gated":
        await hand.do_step(claim)
        assert await store.advance(claim, 2)
        await hand.pause(replace(claim, position=2), "Ship?")
    elif state in ("cancelling", "cancelled"):
        await store.cancel("local", session_id, None, me)
        if state == "cancelled":
            await hand.stopped(claim)
    elif state == "completed":
        await hand.complete(claim)
    elif state == "failed":
        await hand.fail(claim)
    return session_id


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody kills here, so a cancel need not wait for that."""
    monkeypatch.setattr("bilt_mcp.tools.cancelling.VERIFY_SECONDS", 0.05)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("state", TABLE)
@pytest.mark.parametrize("tool", TOOLS)
async def test_each_tool_in_each_state(
    agent: Agent, hand: Hand, place: Place, state: str, tool: str
) -> None:
    place.workflow(GATED)
    session_id = await _bring(agent, hand, state)
    name, given = CALLS[tool]
    before = await agent.call("bilt_get_session")
    if (gate := before["pending_action"]) is not None and "action_id" in given:
        given = {"action_id": gate["action_id"]}
    audited = len(await hand.store.audit("local", session_id))
    found = await agent.call(name, session_id=session_id, **given)
    after = await agent.call("bilt_get_session")
    expected = TABLE[state][TOOLS.index(tool)]
    assert found.get("error", found.get("status")) == expected
    if "error" in found or tool == "cancel dry":
        # Nothing has changed, and who was refused knows where he is.
        for shown in (before, after):
            progress: Json = shown["progress"] or {}
            for passing in ("elapsed_seconds", "quiet_seconds"):
                progress.pop(passing, None)
        assert after == before
    if "error" in found:
        if expected != PERSON:
            assert found["details"]["current_status"] == before["status"]
        assert len(await hand.store.audit("local", session_id)) == audited
    else:
        assert after["status"] == expected
        told = audited + (tool != "cancel dry") - (tool == "cancel" and state == "cancelling")
        assert len(await hand.store.audit("local", session_id)) == told


async def test_a_pause_takes_effect_before_the_next_step_and_ends_when_it_is_resumed(
    agent: Agent, hand: Hand
) -> None:
    session_id, workflow_id = await agent.start()
    claim = await hand.claim()
    asked = await agent.call("bilt_pause_workflow", session_id=session_id, reason="lunch")
    assert asked == {
        "session_id": session_id,
        "status": "running",
        "workflow_id": workflow_id,
        "message": "It pauses before its next step, if there is one. Wait for that with bilt_get_session, go on with "
        "bilt_resume_workflow.",
    }
    assert await hand.store.pause(claim, None)
    resumed = await agent.call("bilt_resume_workflow", session_id=session_id)
    assert (resumed["status"], set(resumed)) == (
        "running",
        {"session_id", "status", "resumed_at", "message"},
    )
    found = await agent.call("bilt_get_messages", session_id=session_id, variant="info")
    assert [message["content"] for message in found["messages"][:3]] == [
        "Resumed by by-hand 1.",
        "Paused before step build.",
        "Pause before the next step asked by by-hand 1. Reason: lunch",
    ]
    told = await hand.store.audit("local", session_id)
    assert [(entry.action, str(entry.caller), entry.reason) for entry in told] == [
        ("start", "by-hand 1", None),
        ("pause", "by-hand 1", "lunch"),
        ("resume", "by-hand 1", None),
    ]
    assert {(e.workflow_id, e.caller.surface, e.caller.principal) for e in told} == {
        (workflow_id, "mcp", "local")
    }
