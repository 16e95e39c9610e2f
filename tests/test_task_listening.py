"""Tasks on a `subscriptions/listen` stream: what is acknowledged and told, beside what else the stream carries."""

from __future__ import annotations

import anyio
import pytest
from mcp.server.subscriptions import ResourceUpdated

from bilt_mcp.server import create_server, task_listening

from .support.agents import UNKNOWN, Hand, Json, StillEngine
from .support.agents import hand as hand  # a fixture, like the next one
from .support.agents import still as still
from .support.memory_wire import TASK_CAPABILITIES, MemoryWire, memory_wire
from .support.places import Place
from .support.places import place as place
from .support.task_fixtures import task_server

pytestmark = pytest.mark.anyio

QUIET_SECONDS = 0.3
"""How long nothing must be told where nothing is to be told; a change is told within some 20 ms."""


async def start(wire: MemoryWire) -> str:
    """A task of a workflow that waits for its worker."""
    found = await wire.ask("tools/call", name="bilt_get_session", arguments={})
    session_id = found["result"]["structuredContent"]["session_id"]
    given: Json = {"session_id": session_id, "message": "x", "wait_for_response": True}
    found = await wire.ask("tools/call", name="bilt_send_message", arguments=given)
    return str(found["result"]["taskId"])


async def listen(wire: MemoryWire, **notifications: object) -> tuple[int, Json]:
    """A stream: its id, and what it acknowledges."""
    number = await wire.send("subscriptions/listen", notifications=notifications)
    found = await wire.next()
    assert found["method"] == "notifications/subscriptions/acknowledged"
    assert found["params"]["_meta"] == stamp(number)
    return number, found["params"]["notifications"]


def stamp(number: int) -> Json:
    return {"io.modelcontextprotocol/subscriptionId": number}


async def told(wire: MemoryWire, number: int) -> Json:
    """The task that the stream tells next, which must be what a poll would tell."""
    found = await wire.next()
    assert found["method"] == "notifications/tasks"
    task: Json = dict(found["params"])
    assert task.pop("_meta") == stamp(number)
    return task


async def polled(wire: MemoryWire, task_id: str) -> Json:
    found = (await wire.ask("tasks/get", taskId=task_id))["result"]
    return {key: value for key, value in found.items() if key not in {"resultType", "_meta"}}


async def test_a_stream_tells_its_tasks_as_they_are_and_as_they_change(
    place: Place, hand: Hand
) -> None:
    async with memory_wire(create_server(place.config())) as wire:
        task_id = await start(wire)
        number, acknowledged = await listen(wire, taskIds=[task_id, UNKNOWN, "?", task_id])
        assert acknowledged == {"taskIds": [task_id]}
        first = await told(wire, number)
        assert first["taskId"] == task_id
        assert first == await polled(wire, task_id)
        claim = await hand.claim()
        assert (await told(wire, number))["statusMessage"].startswith("0 %")
        await hand.pause(claim, "Ship?")
        asked = await told(wire, number)
        assert asked["status"] == "input_required"
        assert asked == await polled(wire, task_id)
        (key,) = asked["inputRequests"]
        answer: Json = {key: {"action": "decline"}}
        asking = await wire.send("tasks/update", taskId=task_id, inputResponses=answer)
        found = [await wire.next(), await wire.next()]
        (over,) = (one["params"] for one in found if one.get("method"))
        assert over["status"] == "cancelled"
        assert [one["id"] for one in found if "id" in one] == [asking]


async def test_a_completed_task_is_told_with_its_result(place: Place, hand: Hand) -> None:
    async with memory_wire(create_server(place.config())) as wire:
        task_id = await start(wire)
        claim = await hand.claim()
        number, _ = await listen(wire, taskIds=[task_id])
        await told(wire, number)
        await hand.begin(claim)
        await hand.complete(claim)
        over = await told(wire, number)
        while over["status"] == "working":
            over = await told(wire, number)
        assert over == await polled(wire, task_id)
        assert over["result"]["structuredContent"]["status"] == "completed"


async def test_output_alone_is_told_to_nobody(place: Place, hand: Hand) -> None:
    async with memory_wire(create_server(place.config())) as wire:
        task_id = await start(wire)
        claim = await hand.claim()
        await hand.begin(claim)
        number, _ = await listen(wire, taskIds=[task_id])
        await told(wire, number)
        for _ in range(20):
            await hand.say(claim, "a line")
        with pytest.raises(TimeoutError):
            await wire.next(QUIET_SECONDS)


async def test_one_stream_carries_tasks_and_what_it_asks_for_besides() -> None:
    server = task_server()
    async with memory_wire(server) as wire:
        given: Json = {"filename": "x"}
        begun = await wire.ask("tools/call", name="confirm_delete", arguments=given)
        task_id = begun["result"]["taskId"]
        number, acknowledged = await listen(
            wire, taskIds=[task_id], resourceSubscriptions=["test://x"], toolsListChanged=True
        )
        assert acknowledged == {
            "taskIds": [task_id],
            "resourceSubscriptions": ["test://x"],
            "toolsListChanged": True,
        }
        assert (await told(wire, number))["status"] == "input_required"
        bus = server._subscriptions  # pyright: ignore[reportPrivateUsage]
        await bus.publish(ResourceUpdated("test://x"))
        found = await wire.next()
        assert found["method"] == "notifications/resources/updated"
        assert found["params"] == {"uri": "test://x", "_meta": stamp(number)}
        await wire.send("tasks/cancel", taskId=task_id)
        heard = [await wire.next(), await wire.next()]
        (over,) = (one["params"] for one in heard if one.get("method") == "notifications/tasks")
        assert over["status"] == "cancelled"


async def test_a_session_and_its_task_are_told_on_one_stream(place: Place, hand: Hand) -> None:
    async with memory_wire(create_server(place.config())) as wire:
        task_id = await start(wire)
        session = (await hand.store.workflow("local", task_id)).session_id
        uri = f"bilt://sessions/{session}"
        number, acknowledged = await listen(wire, taskIds=[task_id], resourceSubscriptions=[uri])
        assert acknowledged == {"taskIds": [task_id], "resourceSubscriptions": [uri]}
        await told(wire, number)
        await hand.claim()
        heard = [await wire.next(), await wire.next()]
        methods = {one["method"] for one in heard}
        assert methods == {"notifications/tasks", "notifications/resources/updated"}
        assert [one["params"]["_meta"] for one in heard] == [stamp(number)] * 2


async def test_a_stream_without_tasks_is_the_sdks_own(place: Place) -> None:
    async with memory_wire(create_server(place.config()), {}) as wire:
        _, acknowledged = await listen(wire, toolsListChanged=True)
        assert acknowledged == {"toolsListChanged": True}
        _, acknowledged = await listen(wire, taskIds=[])
        assert acknowledged == {}


async def test_who_asks_for_tasks_without_the_extension_or_wrongly_is_refused(place: Place) -> None:
    server = create_server(place.config())
    async with memory_wire(server, {}) as wire:
        found = await wire.ask("subscriptions/listen", notifications={"taskIds": [UNKNOWN]})
        assert found["error"]["code"] == -32021
        assert found["error"]["data"] == {
            "requiredCapabilities": {"extensions": TASK_CAPABILITIES["extensions"]}
        }
    async with memory_wire(server) as wire:
        wrong: object
        for wrong in (UNKNOWN, [1], [None], 7):
            found = await wire.ask("subscriptions/listen", notifications={"taskIds": wrong})
            assert found["error"]["code"] == -32602


async def test_foreign_tasks_are_not_acknowledged_and_not_told(place: Place, hand: Hand) -> None:
    async with (
        memory_wire(create_server(place.config())) as wire,
        memory_wire(create_server(place.config("other"))) as other,
    ):
        task_id = await start(wire)
        _, acknowledged = await listen(other, taskIds=[task_id])
        assert acknowledged == {"taskIds": []}
        await hand.claim()
        with pytest.raises(TimeoutError):
            await other.next(QUIET_SECONDS)


async def test_a_stream_watches_no_more_than_its_limit(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_listening, "MAX_WATCHED", 2)
    async with memory_wire(create_server(place.config())) as wire:
        task_id = await start(wire)
        _, acknowledged = await listen(wire, taskIds=["a", "b", task_id])
        assert acknowledged == {"taskIds": []}


async def test_a_stream_that_is_closed_watches_no_more(
    place: Place, hand: Hand, still: list[StillEngine]
) -> None:
    async with memory_wire(create_server(place.config())) as wire:
        task_id = await start(wire)
        number, _ = await listen(wire, taskIds=[task_id])
        await told(wire, number)
        await wire.notify("notifications/cancelled", requestId=number)
        # An answer that comes later shows that the notification has been seen.
        for _ in range(3):
            await polled(wire, task_id)
        await hand.claim()
        with pytest.raises(TimeoutError):
            await wire.next(QUIET_SECONDS)


async def test_the_suites_tasks_are_told_too() -> None:
    async with memory_wire(task_server()) as wire:
        given: Json = {"seconds": 0.2, "label": "x"}
        found = await wire.ask("tools/call", name="slow_compute", arguments=given)
        number, _ = await listen(wire, taskIds=[found["result"]["taskId"]])
        assert (await told(wire, number))["status"] == "working"
        assert (await told(wire, number))["result"]["content"][0]["text"] == "x computed for 0.2 s"
        await anyio.lowlevel.checkpoint()
