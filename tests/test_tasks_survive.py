"""A task outlives every process: the client's, the one that serves it, the worker; over real stdio, with kills."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .support.memory_wire import TASK_CAPABILITIES
from .support.places import Place, residents, signal_worker, stop_apart, worker_of
from .support.places import place as place  # a fixture, like the next one
from .support.places import resident as resident
from .support.rpc import PATIENCE, STATELESS, Json, Server

GATED = """
[[step]]
name = "build"
run = "touch building; while test ! -e go; do sleep 0.02; done"
[[step]]
name = "ship"
run = "echo shipped >> shipped"
deploy = true
confirm = "Ship?"
"""
DECLARED = {"io.modelcontextprotocol/clientCapabilities": TASK_CAPABILITIES}


class Client(Server):
    """A client that declares the extension, in a process and on a connection of its own."""

    def __init__(self, place: Place, **environ: str) -> None:
        super().__init__(place.arguments, {**place.environ, **environ}, era=STATELESS)

    def send(self, method: str, params: Any = None) -> int:
        return super().send(method, {**(params or {}), "_meta": DECLARED})

    def start(self) -> str:
        session_id = self.call("bilt_get_session")["session_id"]
        given: Json = {"session_id": session_id, "message": "x", "wait_for_response": True}
        found = self.ask("tools/call", {"name": "bilt_send_message", "arguments": given})
        return str(found["result"]["taskId"])

    def task(self, task_id: str) -> Json:
        found: Json = self.ask("tasks/get", {"taskId": task_id})["result"]
        return found

    def until(self, task_id: str, status: str) -> Json:
        """The task when it has this status; polled as it asks for."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.task(task_id))["status"] != status:
            assert time.monotonic() < deadline, found
            time.sleep(found["pollIntervalMs"] / 1000)
        return found


def until(reached: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def signal_the_worker(place: Place, number: int) -> None:
    """Signal the store's worker; at a gate it may have gone by itself."""
    found = worker_of(place.location.database)
    if found is not None:
        signal_worker(found, number)


def stop_the_worker(place: Place) -> None:
    """Stop it, if there is one."""
    if (found := worker_of(place.location.database)) is not None:
        stop_apart(found[0], place.location)


def shipped(place: Place) -> bool:
    return (Path(place.project) / "shipped").exists()


def test_a_task_goes_on_whoever_is_killed_and_is_answered_by_another_client(
    place: Place, resident: str
) -> None:
    place.workflow(GATED)
    with Client(place, BILT_RESIDENT=resident) as client:
        task_id = client.start()
        until((place.project / "building").exists, "the build has not begun")
        if resident == "1":
            kill(residents(place.location)[0])
            assert client.task(task_id)["status"] == "working"
        client.process.kill()
    (place.project / "go").touch()
    with Client(place, BILT_RESIDENT=resident) as later:
        asked = later.until(task_id, "input_required")
        (key,) = asked["inputRequests"]
        signal_the_worker(place, signal.SIGKILL)
        # The gate is open whether or not anything of us is alive.
        assert later.task(task_id)["inputRequests"] == asked["inputRequests"]
        assert not shipped(place)
        yes: Json = {key: {"action": "accept", "content": {"confirm": True}}}
        later.ask("tasks/update", {"taskId": task_id, "inputResponses": yes})
        over = later.until(task_id, "completed")
        assert over["result"]["structuredContent"]["status"] == "completed"
    assert shipped(place)
    with Client(place, BILT_RESIDENT=resident) as last:
        assert last.task(task_id) == over


def test_a_task_whose_worker_is_killed_is_answered_as_the_tool_would(
    place: Place, resident: str
) -> None:
    place.workflow(GATED)
    with Client(place, BILT_RESIDENT=resident) as client:
        task_id = client.start()
        until((place.project / "building").exists, "the build has not begun")
        signal_the_worker(place, signal.SIGKILL)
        over = client.until(task_id, "completed")
        assert over["result"]["structuredContent"]["status"] == "failed"
        assert "bilt_send_message" in over["statusMessage"]


def test_a_cancel_is_carried_out_also_when_no_worker_is_alive(place: Place, resident: str) -> None:
    place.workflow(GATED)
    with Client(place, BILT_RESIDENT=resident) as client:
        task_id = client.start()
        until((place.project / "building").exists, "the build has not begun")
        stop_the_worker(place)
        try:
            asked = client.send("tasks/cancel", {"taskId": task_id})
            found = client.answer(asked)
            assert found.get("result", {}).get("resultType") == "complete", found
            assert client.task(task_id)["status"] == "working"
        finally:
            signal_the_worker(place, signal.SIGKILL)
        assert "result" not in client.until(task_id, "cancelled")
    assert not shipped(place)


def test_a_stream_that_watches_a_task_outlives_the_process_that_serves_it(place: Place) -> None:
    place.workflow(GATED)
    with Client(place) as client, Client(place) as other:
        task_id = client.start()
        number = client.send("subscriptions/listen", {"notifications": {"taskIds": [task_id]}})
        told: list[Json] = []

        def heard(status: str) -> bool:
            found = client.next()
            if found["method"] == "notifications/tasks":
                stamp = {"io.modelcontextprotocol/subscriptionId": number}
                assert found["params"]["_meta"] == stamp
                told.append(found["params"])
            return bool(told) and told[-1]["status"] == status

        until(lambda: heard("working"), "it is not told")
        kill(residents(place.location)[0])
        (place.project / "go").touch()
        until(lambda: heard("input_required"), "it is not told after the kill")
        other.ask("tasks/cancel", {"taskId": task_id})
        until(lambda: heard("cancelled"), "another process's cancel is not told")


def test_the_extension_is_advertised_to_who_can_have_it_and_to_nobody_else(place: Place) -> None:
    with Client(place) as client:
        found = client.ask("server/discover")["result"]["capabilities"]["extensions"]
        assert "io.modelcontextprotocol/tasks" in found
    with Server(place.arguments, place.environ) as legacy:
        assert "extensions" not in legacy.hello["capabilities"]
        assert legacy.ask("tasks/get", {"taskId": "x"})["error"]["code"] == -32601


@pytest.mark.parametrize("kills", ["nobody", "resident"])
def test_a_start_whose_answer_is_lost_is_one_task(place: Place, kills: str) -> None:
    place.workflow(GATED)
    with Client(place) as client:
        session_id = client.call("bilt_get_session")["session_id"]
        given: Json = {"session_id": session_id, "message": "x", "wait_for_response": True}
        asked = client.send("tools/call", {"name": "bilt_send_message", "arguments": given})
        if kills == "resident":
            kill(residents(place.location)[0])
        task_id = client.answer(asked)["result"]["taskId"]
        assert place.count("workflow") == 1
        assert client.task(task_id)["status"] == "working"
        client.ask("tasks/cancel", {"taskId": task_id})
        client.until(task_id, "cancelled")
