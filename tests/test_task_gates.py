"""A gate of a task is a question to a person: who is asked, who may answer, and what becomes of late answers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bilt_mcp.state import Caller, MessageQuery, SqliteStore, StoreUnavailable
from bilt_mcp.tools import cancelling

from .support.agents import Hand, Json, StillEngine
from .support.agents import hand as hand  # a fixture, like the next one
from .support.agents import still as still
from .support.places import Place
from .support.places import place as place
from .support.task_client import TakesTasks, TaskClient, task_client

pytestmark = pytest.mark.anyio

YES: Json = {"action": "accept", "content": {"confirm": True}}
NO: Json = {"action": "accept", "content": {"confirm": False}}
DECLINED: Json = {"action": "decline"}
DISMISSED: Json = {"action": "cancel"}


async def at_gate(client: TaskClient, hand: Hand) -> tuple[str, str]:
    """A task whose workflow waits for a person: its id, and the key of the question."""
    task_id = (await client.start())["taskId"]
    await hand.pause(await hand.claim(), "Ship?")
    (key,) = (await client.get(task_id))["inputRequests"]
    return task_id, key


async def history(hand: Hand, task_id: str) -> list[str]:
    workflow = await hand.store.workflow("local", task_id)
    page = await hand.store.messages("local", workflow.session_id, MessageQuery())
    return [message.content for message in page.messages]


async def test_an_open_gate_is_a_question_to_who_can_ask_a_person(place: Place, hand: Hand) -> None:
    async with task_client(place) as client, task_client(place, elicits=False) as mute:
        task_id, key = await at_gate(client, hand)
        found = await client.get(task_id)
        assert found["status"] == "input_required"
        assert found["statusMessage"] == "Waiting for a person to confirm step build."
        session_id = await client.session_id()
        gate = (await hand.store.session("local", session_id)).pending_action
        assert gate is not None
        assert gate.action_id == key
        asked = found["inputRequests"][key]
        assert asked["method"] == "elicitation/create"
        assert asked["params"]["mode"] == "form"
        assert "Ship?" in asked["params"]["message"]
        assert str(place.project) in asked["params"]["message"]
        schema = asked["params"]["requestedSchema"]
        assert schema["required"] == ["confirm"]
        assert schema["properties"]["confirm"]["type"] == "boolean"
        # Nothing of a poll changes anything: the question stays the same.
        assert await client.get(task_id) == found
        told = await mute.get(task_id)
        assert told["status"] == "working"
        assert "inputRequests" not in told
        assert f"confirm {session_id}" in told["statusMessage"]


async def test_what_a_build_or_an_agent_wrote_is_in_no_question(place: Place, hand: Hand) -> None:
    async with task_client(place) as client:
        task_id = (await client.start(message="SAY-YES"))["taskId"]
        claim = await hand.claim()
        await hand.begin(claim)
        await hand.store.note(claim, [], percent=1, progress="HARMLESS")
        await hand.say(claim, "HARMLESS")
        await hand.pause(claim, "Ship?")
        found = await client.get(task_id)
        assert found["status"] == "input_required"
        for written in ("SAY-YES", "HARMLESS"):
            assert written not in str(found)


async def test_a_persons_yes_lets_the_workflow_go_on(
    place: Place, hand: Hand, still: list[StillEngine]
) -> None:
    async with task_client(place) as client:
        task_id, key = await at_gate(client, hand)
        wakes = still[0].wakes
        await client.update(task_id, {key: YES, "no such key": NO})
        assert still[0].wakes > wakes
        found = await client.get(task_id)
        assert found["status"] == "working"
        assert "inputRequests" not in found
        claim = await hand.claim()
        assert (claim.workflow_id, claim.confirmed) == (task_id, True)
    assert any(
        "confirmed by" in said and "by-hand 1" in said for said in await history(hand, task_id)
    )


@pytest.mark.parametrize("no", [NO, DECLINED])
async def test_a_persons_no_cancels_it(place: Place, hand: Hand, no: Json) -> None:
    async with task_client(place) as client:
        task_id, key = await at_gate(client, hand)
        await client.update(task_id, {key: no})
        assert (await client.get(task_id))["status"] == "cancelled"
        assert place.kept()[1] == []
    assert any(
        "declined by" in said and "by-hand 1" in said for said in await history(hand, task_id)
    )


async def test_a_question_that_is_dismissed_stays_open(place: Place, hand: Hand) -> None:
    async with task_client(place) as client:
        task_id, key = await at_gate(client, hand)
        before = await client.get(task_id)
        await client.update(task_id, {key: DISMISSED})
        await client.update(task_id, {})
        assert await client.get(task_id) == before
        await client.update(task_id, {key: YES})
        assert (await client.get(task_id))["status"] == "working"


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "accept"},
        {"action": "accept", "content": {}},
        {"action": "accept", "content": {"confirm": "true"}},
        {"action": "accept", "content": {"confirm": 1}},
        {"action": "yes"},
        {},
    ],
)
async def test_what_is_no_answer_is_refused_and_changes_nothing(
    place: Place, hand: Hand, wrong: Json
) -> None:
    async with task_client(place) as client:
        task_id, key = await at_gate(client, hand)
        given: Json = {"taskId": task_id, "inputResponses": {key: wrong}}
        assert (await client.refused("tasks/update", **given))[0] == -32602
        assert (await client.get(task_id))["status"] == "input_required"


async def test_who_cannot_ask_a_person_cannot_answer_for_one(place: Place, hand: Hand) -> None:
    async with task_client(place) as client, task_client(place, elicits=False) as mute:
        task_id, key = await at_gate(client, hand)
        for answer in (YES, NO):
            given: Json = {"taskId": task_id, "inputResponses": {key: answer}}
            code, _, data = await mute.refused("tasks/update", **given)
            assert (code, data) == (-32021, {"requiredCapabilities": {"elicitation": {"form": {}}}})
        await mute.update(task_id, {"another": YES})
        assert (await client.get(task_id))["status"] == "input_required"


async def test_of_many_answers_the_first_counts_and_the_others_are_no_errors(
    place: Place, hand: Hand
) -> None:
    async with task_client(place) as one, task_client(place) as two:
        task_id, key = await at_gate(one, hand)
        async with anyio.create_task_group() as tasks:
            for client in (one, two, one, two):
                tasks.start_soon(client.update, task_id, {key: YES})
        await two.update(task_id, {key: NO})
        assert (await one.get(task_id))["status"] == "working"
    assert sum("confirmed by" in said for said in await history(hand, task_id)) == 1


async def test_an_answer_after_a_cancel_is_too_late(place: Place, hand: Hand) -> None:
    async with task_client(place) as client:
        task_id, key = await at_gate(client, hand)
        await client.cancel(task_id)
        await client.update(task_id, {key: YES})
        assert (await client.get(task_id))["status"] == "cancelled"


async def test_an_answer_that_somebody_else_is_quicker_with_is_no_error(
    place: Place, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with task_client(place) as client:
        task_id, key = await at_gate(client, hand)
        confirm = SqliteStore.confirm

        async def and_too_late(store: SqliteStore, *given: Any) -> Any:
            session = await store.workflow("local", task_id)
            await hand.store.cancel("local", session.session_id, None, given[-1])
            return await confirm(store, *given)

        monkeypatch.setattr(SqliteStore, "confirm", and_too_late)
        await client.update(task_id, {key: YES})
        assert (await client.get(task_id))["status"] == "cancelled"


async def test_each_gate_of_a_task_has_a_key_of_its_own(place: Place, hand: Hand) -> None:
    async with task_client(place) as client:
        task_id, first = await at_gate(client, hand)
        await client.update(task_id, {first: YES})
        claim = await hand.claim()
        assert await hand.store.pause(claim, "And now?")
        (second,) = (await client.get(task_id))["inputRequests"]
        assert second != first
        await client.update(task_id, {first: YES})
        assert (await client.get(task_id))["status"] == "input_required"


async def test_a_pause_by_request_asks_nobody(place: Place, hand: Hand) -> None:
    async with task_client(place) as client:
        task_id = (await client.start())["taskId"]
        claim = await hand.claim()
        session_id = await client.session_id()
        await hand.store.request_pause("local", session_id, Caller("somebody"))
        assert await hand.store.pause(claim, None)
        found = await client.get(task_id)
        assert found["status"] == "working"
        assert found["statusMessage"].startswith("Paused by request. ")


async def test_a_program_that_only_waits_answers_what_its_task_asks(
    place: Place, hand: Hand
) -> None:
    follower = TakesTasks(answer=YES)
    async with task_client(place, extension=follower) as client, anyio.create_task_group() as tasks:
        given: Json = {"session_id": await client.session_id(), "message": "x"}

        async def work() -> None:
            while place.count("workflow") == 0:  # noqa: ASYNC110 - a store sets no Event
                await anyio.sleep(0.01)
            await hand.pause(await hand.claim(), "Ship?")
            while (claim := await hand.store.claim(hand.epoch)) is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            await hand.do_step(claim)
            await hand.complete(claim)

        tasks.start_soon(work)
        found = await client.client.call_tool(
            "bilt_send_message", {**given, "wait_for_response": True}
        )
        assert found.structured_content["status"] == "completed"
    assert "input_required" in [task["status"] for task in follower.seen]


async def test_a_store_that_cannot_take_a_cancel_has_it_killed_first(
    place: Place, hand: Hand, monkeypatch: pytest.MonkeyPatch, still: list[StillEngine]
) -> None:
    async with task_client(place) as client:
        task_id = (await client.start())["taskId"]
        await hand.begin(await hand.claim())
        halted: list[str] = []

        async def full(*given: Any, **more: Any) -> Any:
            raise StoreUnavailable("The disk is full.")

        async def halt(*given: Any) -> Any:
            halted.append(given[-1])
            return None if len(halted) == 1 else object()

        monkeypatch.setattr(SqliteStore, "cancel", full)
        monkeypatch.setattr(still[0], "halt", halt)
        assert await client.refused("tasks/cancel", taskId=task_id) == (
            -32603,
            "The disk is full.",
            None,
        )
        await client.cancel(task_id)
        assert halted == [task_id] * 2

        async def slow(*given: Any, **more: Any) -> Any:
            await anyio.sleep_forever()

        monkeypatch.setattr(SqliteStore, "cancel", slow)
        monkeypatch.setattr(cancelling, "STORE_SECONDS", 0.05)
        await client.cancel(task_id)
        assert halted == [task_id] * 3
