"""`bilt_send_message`: one workflow durably, once, or nothing at all."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from bilt_mcp.state import SqliteStore, StoreUnavailable
from bilt_mcp.tools import cancelling, send_message
from bilt_mcp.tools import waiting as held

from .support.agents import (
    Agent,
    Hand,
    Json,
    checked,
    waiting,
)
from .support.agents import agent as agent  # a fixture, like the next three
from .support.agents import hand as hand
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place

pytestmark = pytest.mark.anyio


async def test_a_message_starts_a_workflow_durably(agent: Agent, place: Place) -> None:
    session_id = await agent.session_id()
    found = await agent.call("bilt_send_message", session_id=session_id, message="build")
    assert found == {
        "session_id": session_id,
        "workflow_started": True,
        "subscriber_count": 0,
        "workflow_id": found["workflow_id"],
        "status": "pending",
    }
    assert place.kept() == ([found["workflow_id"]], [f"{found['workflow_id']}.json"])
    assert (place.count("workflow"), place.count("message")) == (1, 2)


ACTIVE = "Wait for it with bilt_get_session, or stop it with bilt_cancel_workflow, then send the message again."


@pytest.mark.parametrize("status", ["pending", "running", "paused", "cancelling"])
async def test_a_session_with_an_active_workflow_refuses_another(
    agent: Agent, hand: Hand, place: Place, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "VERIFY_SECONDS", 0.0)
    session_id, workflow_id = await agent.start()
    claim = await hand.claim() if status != "pending" else None
    if claim is not None and status == "paused":
        await hand.pause(claim, "Ship?")
    if status == "cancelling":
        await agent.call("bilt_cancel_workflow", session_id=session_id)
    before = place.kept(), place.count("message"), place.count("workflow")
    assert await agent.call("bilt_send_message", session_id=session_id, message="again") == {
        "error": "Workflow already active",
        "details": {
            "current_status": status,
            "workflow_id": workflow_id,
            "message": f"The session's workflow is {status}. {ACTIVE}",
        },
    }
    assert (place.kept(), place.count("message"), place.count("workflow")) == before


async def test_of_many_messages_at_once_one_starts_a_workflow(agent: Agent, place: Place) -> None:
    session_id = await agent.session_id()
    found: list[Json] = []

    async def send() -> None:
        found.append(await agent.call("bilt_send_message", session_id=session_id, message="build"))

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(send)
    (started,) = (answer for answer in found if "error" not in answer)
    assert {answer.get("error") for answer in found} == {None, "Workflow already active"}
    assert place.kept() == ([started["workflow_id"]], [f"{started['workflow_id']}.json"])


async def test_a_key_gets_the_first_answer_again_and_starts_nothing(
    agent: Agent, hand: Hand, place: Place
) -> None:
    session_id = await agent.session_id()
    call = {"session_id": session_id, "message": "build", "idempotency_key": "k" * 128}
    first = await agent.text("bilt_send_message", **call)
    assert await agent.text("bilt_send_message", **call) == first
    await hand.complete(await hand.claim())
    place.workflow("broken")
    assert await agent.text("bilt_send_message", **call) == first
    assert place.count("workflow") == 1
    assert len(place.kept()[0]) == 1


async def test_a_key_that_came_with_another_message_is_refused(agent: Agent, place: Place) -> None:
    session_id, workflow_id = await agent.start(idempotency_key="k")
    other = {"session_id": session_id, "message": "deploy", "idempotency_key": "k"}
    assert await agent.call("bilt_send_message", **other) == {
        "error": "Idempotency key reused",
        "details": {
            "workflow_id": workflow_id,
            "message": "This idempotency_key came before with another message in this session. Nothing was started. "
            "Use a new key for a new message.",
        },
    }
    assert place.count("workflow") == 1


async def test_calls_with_one_key_at_once_start_one_workflow(agent: Agent, place: Place) -> None:
    session_id = await agent.session_id()
    found: list[str] = []

    async def send() -> None:
        call = {"session_id": session_id, "message": "build", "idempotency_key": "k"}
        found.append(await agent.text("bilt_send_message", **call))

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(send)
    assert len(set(found)) == 1
    assert "error" not in found[0]
    assert len(place.kept()[0]) == 1


@pytest.mark.parametrize("end", ["completed", "failed", "paused"])
async def test_who_waits_for_the_response_gets_the_status_then(
    agent: Agent, hand: Hand, end: str
) -> None:
    found: list[Json] = []
    session_id = await agent.session_id()

    async def send() -> None:
        call = {"session_id": session_id, "message": "build", "wait_for_response": True}
        found.append(await agent.call("bilt_send_message", **call))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            while (await agent.call("bilt_get_session"))["status"] != "pending":
                await anyio.lowlevel.checkpoint()
            claim = await hand.claim()
            await waiting(agent)
            assert not found
            if end == "paused":
                await hand.pause(claim, "Ship?")
            else:
                await (hand.complete if end == "completed" else hand.fail)(claim)
    assert [answer["status"] for answer in found] == [end]


async def test_who_waits_to_the_limit_gets_a_status_and_no_error(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_message, "WAIT_SECONDS", 0.1)
    session_id = await agent.session_id()
    call = {"session_id": session_id, "message": "build", "wait_for_response": True}
    assert (await agent.call("bilt_send_message", **call))["status"] == "pending"


async def test_a_long_wait_tells_the_client_that_it_is_alive(
    agent: Agent, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "BEAT_SECONDS", 0.02)
    session_id = await agent.session_id()
    told: list[tuple[float, str | None]] = []
    beaten = anyio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))
        if len(told) == 2:
            beaten.set()

    async def send() -> None:
        call = {"session_id": session_id, "message": "build", "wait_for_response": True}
        result = await agent.client.call_tool(
            "bilt_send_message", call, progress_callback=on_progress
        )
        checked("bilt_send_message", result)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await beaten.wait()
            await hand.complete(await hand.claim())
    assert [message for _, message in told[:2]] == ["0 %, Step 1 of 1: build"] * 2
    assert 0 < told[0][0] < told[1][0] < 20


async def test_without_a_workflow_file_it_says_how_to_write_one(agent: Agent, place: Place) -> None:
    file = place.project / "bilt.toml"
    file.unlink()
    found = await agent.call(
        "bilt_send_message", session_id=await agent.session_id(), message="build"
    )
    where = str(place.project)
    assert found == {
        "error": "No workflow configured",
        "details": {
            "file": str(file),
            "message": f"There is no bilt.toml in {where if len(where) < 150 else '…' + where[-149:]}. Create one "
            'there, for example:\n\n[[step]]\nname = "build"\nrun = "npm run build"\ntimeout = "10m"\n\nThen call '
            "bilt_send_message again.",
        },
    }
    nothing_remains(place)


def nothing_remains(place: Place) -> None:
    assert place.kept() == ([], [])
    rows = {table: place.count(table) for table in ("workflow", "message", "idempotency")}
    assert rows == {"workflow": 0, "message": 0, "idempotency": 0}


async def test_a_message_that_no_step_applies_to_starts_nothing(agent: Agent, place: Place) -> None:
    place.workflow('[[step]]\nname = "a"\nrun = "true"\nwhen = "deploy"\n')
    session_id = await agent.session_id()
    call = {"session_id": session_id, "message": "build", "idempotency_key": "k"}
    assert await agent.call("bilt_send_message", **call) == {
        "error": "No workflow configured",
        "details": {
            "file": str(place.project / "bilt.toml"),
            "when": ["deploy"],
            "message": "No step of bilt.toml applies to this message; nothing was started. The steps look for "
            '"deploy". Call bilt_send_message with a message that names one of them.',
        },
    }
    nothing_remains(place)


@pytest.mark.parametrize("error", [StoreUnavailable, RuntimeError])
async def test_when_the_store_fails_nothing_of_the_message_remains(
    agent: Agent, place: Place, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    session_id = await agent.session_id()

    async def fail(*_: object, **__: object) -> None:
        raise error("full")

    monkeypatch.setattr(SqliteStore, "start", fail)
    found = await agent.call("bilt_send_message", session_id=session_id, message="build")
    assert found["error"] == "Internal error"
    assert set(found["details"]) == {"error_id", "message"}
    nothing_remains(place)


@pytest.mark.parametrize(
    ("text", "field", "told"),
    [
        (
            "[[step\n",
            "line 1, column 7",
            "is not TOML: Expected ']]' at the end of an array declaration",
        ),
        ("", "step", 'at least one step is needed, under "[[step]]" with two brackets'),
        ('[[step]]\nname = "a"\n', 'step[1] "a".run', "is required"),
        (
            '[[step]]\nname = "a"\nrun = "x"\nsecrets = ["DEPLOY_TOKEN"]\n',
            'step "a".secrets',
            "DEPLOY_TOKEN is not set where bilt-mcp runs; set it in the client's `env` for this server",
        ),
    ],
)
async def test_a_workflow_file_that_cannot_be_used_starts_nothing(
    agent: Agent, place: Place, text: str, field: str, told: str
) -> None:
    place.workflow(text)
    session_id = await agent.session_id()
    call = {"session_id": session_id, "message": "build", "idempotency_key": "k"}
    found = await agent.call("bilt_send_message", **call)
    file = str(place.project / "bilt.toml")
    message = f"Nothing was started. Correct {file} and send the message again: {field}: {told}"
    assert found == {
        "error": "Invalid workflow file",
        "details": {
            "file": file,
            "fields": [{"field": field, "message": told}],
            "message": message if len(message) < 500 else message[:498] + "…",
        },
    }
    nothing_remains(place)


async def test_a_file_with_very_many_problems_still_has_a_short_message(
    agent: Agent, place: Place
) -> None:
    place.workflow("".join(f'[[step]]\nname = "{n}"\nrum = "x"\n' for n in range(60)))
    session_id = await agent.session_id()
    found = await agent.call("bilt_send_message", session_id=session_id, message="build")
    assert found["error"] == "Invalid workflow file"
    assert len(found["details"]["fields"]) == 100 + 1
    assert len(found["details"]["message"]) == 499


async def test_a_call_repeated_with_its_key_waits_on(agent: Agent, hand: Hand) -> None:
    given = {"message": "build", "idempotency_key": "k"}
    session_id, workflow_id = await agent.start(**given)
    claim = await hand.claim()
    found: list[Json] = []

    async def again() -> None:
        found.append(
            await agent.call(
                "bilt_send_message", session_id=session_id, wait_for_response=True, **given
            )
        )

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(again)
            await waiting(agent)
            assert not found
            await hand.complete(claim)
    assert [(answer["workflow_id"], answer["status"]) for answer in found] == [
        (workflow_id, "completed")
    ]
