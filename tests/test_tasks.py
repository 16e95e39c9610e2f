"""The tasks extension on workflows: which calls become tasks, and what a task is told as at each moment."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any
from uuid import uuid4

import anyio
import pytest
from mcp_types import CallToolResult

from bilt_mcp.server import workflow_tasks
from bilt_mcp.server.tasks import TASKS
from bilt_mcp.state import MessageQuery, iso

from .support.agents import STAMP, UNKNOWN, Hand, Json, StillEngine, agent_at, checked
from .support.agents import hand as hand  # a fixture, like the next one
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place
from .support.task_client import TakesTasks, task_client

pytestmark = pytest.mark.anyio

TOOL = "bilt_send_message"
MONTH_MS = 30 * 86_400_000
NOT_FOUND = (-32602, "Task not found: it never was, has expired, or is not yours", None)
UNDECLARED: Json = {"requiredCapabilities": {"extensions": {TASKS: {}}}}


def started(task: Json, session_id: str, status: str) -> Json:
    """What the tool says of the workflow."""
    return {
        "session_id": session_id,
        "workflow_started": True,
        "subscriber_count": 0,
        "workflow_id": task["taskId"],
        "status": status,
    }


# -- which calls become tasks ----------------------------------------------------------------------


async def test_a_call_that_would_wait_becomes_a_task_that_is_durable(
    place: Place, still: list[StillEngine]
) -> None:
    async with task_client(place) as client:
        before = time.time() * 1000
        handle = await client.start()
        workflow_id = handle["taskId"]
        assert handle == {
            "taskId": workflow_id,
            "status": "working",
            "statusMessage": "Accepted and durable; it starts when a worker is free.",
            "createdAt": handle["createdAt"],
            "lastUpdatedAt": handle["lastUpdatedAt"],
            "ttlMs": MONTH_MS,
            "pollIntervalMs": 250,
        }
        assert STAMP.fullmatch(handle["createdAt"])
        assert iso(round(before) - 5) <= handle["createdAt"] <= handle["lastUpdatedAt"]
        assert place.kept() == ([workflow_id], [f"{workflow_id}.json"])
        assert await client.get(workflow_id) == handle
    async with task_client(place) as later:
        assert (await later.get(workflow_id))["status"] == "working"
    assert sum(engine.wakes for engine in still)


@pytest.mark.parametrize(
    ("declares", "waits"), [(True, False), (True, "no"), (False, False), (True, None)]
)
async def test_a_call_that_does_not_wait_is_a_plain_call(
    place: Place, declares: bool, waits: Any
) -> None:
    async with task_client(place, declares=declares) as client:
        given = {"session_id": await client.session_id(), "message": "build"}
        found = await client.call(TOOL, **given, wait_for_response=waits)
        assert isinstance(found, CallToolResult)
        assert found.structured_content["status"] == "pending"
        assert checked(TOOL, found)


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_who_does_not_declare_the_extension_waits_as_before(
    place: Place, hand: Hand, mode: str
) -> None:
    found: list[Json] = []
    async with agent_at(place, mode=mode) as agent, anyio.create_task_group() as tasks:
        session_id = await agent.session_id()

        async def wait() -> None:
            given: Json = {"session_id": session_id, "message": "x", "wait_for_response": True}
            found.append(await agent.call(TOOL, **given))

        tasks.start_soon(wait)
        while (await agent.call("bilt_get_session", session_id=session_id))["status"] == "idle":
            await anyio.lowlevel.checkpoint()
        claim = await hand.claim()
        await hand.do_step(claim)
        assert found == []
        await hand.complete(claim)
    assert [answer["status"] for answer in found] == ["completed"]


async def test_other_tools_never_become_tasks(place: Place) -> None:
    async with task_client(place) as client:
        found = await client.call("bilt_get_session", wait_seconds=0)
        assert isinstance(found, CallToolResult)
        refused = await client.call("bilt_get_session", wait_for_response=True)
        assert isinstance(refused, CallToolResult)
        assert refused.is_error


async def test_what_is_refused_before_the_start_is_refused_plainly(place: Place) -> None:
    async with task_client(place) as client:
        handle = await client.start()
        session_id = await client.session_id()
        for wrong, told in (
            ({}, "Workflow already active"),
            ({"session_id": UNKNOWN}, "Session not found"),
            ({"message": ""}, "Invalid arguments"),
            ({"wait_for_response": "perhaps"}, "Invalid arguments"),
            ({"mesage": "x"}, "Invalid arguments"),
        ):
            given = {"session_id": session_id, "message": "x", "wait_for_response": True, **wrong}
            found = await client.call(TOOL, **given)
            assert isinstance(found, CallToolResult)
            assert found.is_error
            assert found.structured_content["error"] == told
        assert place.count("workflow") == 1
        assert (await client.get(handle["taskId"]))["status"] == "working"


async def test_a_call_that_is_repeated_has_the_same_task_and_then_its_result(
    place: Place, hand: Hand
) -> None:
    async with task_client(place) as client:
        session_id = await client.session_id()
        first = await client.start(idempotency_key="k")
        assert (await client.start(idempotency_key="k"))["taskId"] == first["taskId"]
        claim = await hand.claim()
        await hand.do_step(claim)
        await hand.complete(claim)
        given = {"session_id": session_id, "message": "build", "wait_for_response": True}
        again = await client.call(TOOL, **given, idempotency_key="k")
        assert isinstance(again, CallToolResult)
        assert again.structured_content == started(first, session_id, "completed")


# -- what a task is told as ------------------------------------------------------------------------


async def test_a_task_follows_its_workflow_to_the_result_that_the_tool_would_give(
    place: Place, hand: Hand
) -> None:
    async with task_client(place) as client:
        session_id = await client.session_id()
        task_id = (await client.start())["taskId"]
        claim = await hand.claim()
        await hand.begin(claim)
        await hand.store.note(claim, [], percent=40, progress="half way")
        running = await client.get(task_id)
        assert (running["status"], running["statusMessage"]) == ("working", "40 %, half way")
        await hand.complete(claim)
        over = await client.get(task_id)
        assert over["status"] == "completed"
        assert over["statusMessage"].startswith("Completed. ")
        result = CallToolResult.model_validate(over["result"])
        checked(TOOL, result)
        assert not result.is_error
        assert result.structured_content == started(over, session_id, "completed")
        assert "_meta" not in over["result"]
        # Terminal states never change, whatever becomes of the session.
        await client.start()
        await client.cancel(task_id)
        assert await client.get(task_id) == over


async def test_a_failed_workflow_is_an_answer_of_the_tool(place: Place, hand: Hand) -> None:
    async with task_client(place) as client:
        session_id = await client.session_id()
        task_id = (await client.start())["taskId"]
        claim = await hand.claim()
        await hand.begin(claim)
        await hand.fail(claim)
        found = await client.get(task_id)
        assert found["status"] == "completed"
        assert found["statusMessage"].startswith("Step build ended with 3. ")
        assert found["result"]["structuredContent"] == started(found, session_id, "failed")
        assert "error" not in found


async def test_a_task_is_working_while_it_is_being_cancelled_and_cancelled_when_it_is_dead(
    place: Place, hand: Hand, still: list[StillEngine]
) -> None:
    async with task_client(place) as client:
        task_id = (await client.start())["taskId"]
        claim = await hand.claim()
        await hand.begin(claim)
        wakes = still[0].wakes
        await client.cancel(task_id)
        assert still[0].wakes == wakes + 1
        for _ in range(2):
            found = await client.get(task_id)
            assert found["status"] == "working"
            assert found["statusMessage"] == "Being cancelled; processes are being killed."
            await client.cancel(task_id)
        await hand.stopped(claim)
        found = await client.get(task_id)
        assert found["status"] == "cancelled"
        assert "result" not in found
        await client.cancel(task_id)
        assert await client.get(task_id) == found
    said = await history(hand, task_id)
    assert sum("Cancelled by by-hand 1 " in content for content in said) == 1


async def history(hand: Hand, task_id: str) -> list[str]:
    workflow = await hand.store.workflow("local", task_id)
    page = await hand.store.messages("local", workflow.session_id, MessageQuery())
    return [message.content for message in page.messages]


async def test_a_task_that_has_not_begun_is_cancelled_at_once_and_nothing_is_kept_of_it(
    place: Place,
) -> None:
    async with task_client(place) as client:
        task_id = (await client.start())["taskId"]
        await client.cancel(task_id)
        assert (await client.get(task_id))["status"] == "cancelled"
        assert place.kept()[1] == []


async def test_a_task_that_is_over_never_cancels_what_its_session_does_now(
    place: Place, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with task_client(place) as client:
        first = (await client.start())["taskId"]
        looked = workflow_tasks._find  # pyright: ignore[reportPrivateUsage]

        async def and_then_it_ends(*given: Any) -> Any:
            found = await looked(*given)
            claim = await hand.claim()
            await hand.do_step(claim)
            await hand.complete(claim)
            monkeypatch.setattr(workflow_tasks, "_find", looked)
            await client.start()
            return found

        monkeypatch.setattr(workflow_tasks, "_find", and_then_it_ends)
        await client.cancel(first)
        assert (await client.get(first))["status"] == "completed"
        session_id = await client.session_id()
        assert (await hand.store.session("local", session_id)).status == "pending"


# -- who may ask, and for how long -----------------------------------------------------------------

METHODS: list[tuple[str, Json]] = [
    ("tasks/get", {}),
    ("tasks/update", {"inputResponses": {}}),
    ("tasks/cancel", {}),
]


@pytest.mark.parametrize(("method", "more"), METHODS)
async def test_unknown_foreign_malformed_and_expired_ids_are_refused_alike(
    place: Place, monkeypatch: pytest.MonkeyPatch, method: str, more: Json
) -> None:
    async with task_client(place) as client, task_client(place, "other") as other:
        task_id = (await client.start())["taskId"]
        assert await other.refused(method, taskId=task_id, **more) == NOT_FOUND
        for wrong in (str(uuid4()), task_id.upper(), task_id + "\n", "", "\0", "x" * 100_000):
            assert await client.refused(method, taskId=wrong, **more) == NOT_FOUND
        monkeypatch.setattr(workflow_tasks, "TTL_MS", 0)
        assert await client.refused(method, taskId=task_id, **more) == NOT_FOUND
        monkeypatch.undo()
        assert (await client.get(task_id))["status"] == "working"


async def test_a_task_of_a_store_that_keeps_nothing_for_long_says_so(
    place: Place, hand: Hand
) -> None:
    (place.location.folder / "settings.toml").write_text("keep_days = 0.5\n")
    async with task_client(place) as client:
        handle = await client.start()
        assert handle["ttlMs"] == MONTH_MS
        claim = await hand.claim()
        await hand.do_step(claim)
        await hand.complete(claim)
        assert 43_200_000 <= (await client.get(handle["taskId"]))["ttlMs"] < 43_260_000


@pytest.mark.parametrize(("method", "more"), METHODS)
async def test_who_does_not_declare_the_extension_is_told_so(
    place: Place, method: str, more: Json
) -> None:
    async with task_client(place) as client, task_client(place, declares=False) as plain:
        task_id = (await client.start())["taskId"]
        code, _, data = await plain.refused(method, taskId=task_id, **more)
        assert (code, data) == (-32021, UNDECLARED)


@pytest.mark.parametrize("method", ["tasks/list", "tasks/result"])
async def test_methods_of_the_older_tasks_are_unknown(place: Place, method: str) -> None:
    async with task_client(place) as client:
        assert (await client.refused(method, taskId=UNKNOWN))[0] == -32601


async def test_a_poll_is_asked_for_a_tenth_late_at_most(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with task_client(place) as client:
        task = await client.start()
        task_id, begun = task["taskId"], datetime.fromisoformat(task["createdAt"]).timestamp()
        for seconds, wanted in ((20, 2000), (3600, 5000)):
            monkeypatch.setattr(time, "time", lambda seconds=seconds: begun + seconds)
            assert abs((await client.get(task_id))["pollIntervalMs"] - wanted) < 100


async def test_a_program_that_only_waits_for_a_result_gets_it(place: Place, hand: Hand) -> None:
    follower = TakesTasks()
    async with (
        task_client(place, extension=follower) as client,
        anyio.create_task_group() as tasks,
    ):
        session_id = await client.session_id()

        async def work() -> None:
            while place.count("workflow") == 0:  # noqa: ASYNC110 - a store sets no Event
                await anyio.sleep(0.01)
            claim = await hand.claim()
            await hand.do_step(claim)
            await hand.complete(claim)

        tasks.start_soon(work)
        given = {"session_id": session_id, "message": "x", "wait_for_response": True}
        found = await client.client.call_tool(TOOL, given)
        assert found.structured_content["status"] == "completed"
    assert follower.seen[0]["status"] == "working"
    assert follower.seen[-1]["status"] == "completed"
