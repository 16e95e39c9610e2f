"""What comes again because a resident died: requests that it had done, and answers to what it had asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from typing import Any

from bilt_mcp.server import frames as kinds
from bilt_mcp.server.frames import Frames, frame
from bilt_mcp.server.joining import Asked, join

from .support.places import Place, residents
from .support.places import place as place  # a fixture
from .support.rpc import CLIENT, ENVELOPE, HANDSHAKE, PATIENCE, Json, Server, request, structured

STEPS = """
[[step]]
name = "build"
run = "while test ! -e go; do sleep 0.02; done"
[[step]]
name = "check"
run = "true"
[[step]]
name = "ship"
run = "touch shipped"
confirm = "Ship it?"
"""
YES: Json = {"action": "accept", "content": {"confirm": True}}


class Joined:
    """A connection to the resident by hand; of as many as one likes with the same name, as if residents had died."""

    def __init__(self, asked: Asked) -> None:
        found = join(asked)
        assert found is not None
        self._socket = socket.socket(fileno=found.detach())
        self._socket.settimeout(PATIENCE)
        self._frames = Frames()

    def call(self, number: int, tool: str, arguments: Json) -> Json:
        """The answer to a tool call that is the client's line of this number."""
        params = {"name": tool, "arguments": arguments, "_meta": ENVELOPE}
        line = request(number, "tools/call", params).strip()
        self._socket.sendall(frame(kinds.LINE, number, line))
        while data := self._socket.recv(65536):
            for kind, answers, payload in self._frames.feed(data):
                if kind == kinds.ANSWER and answers == number:
                    return structured(json.loads(payload))
        raise AssertionError("the resident has gone")

    def close(self) -> None:
        self._socket.close()


def test_whatever_was_done_before_is_answered_as_done_and_done_once(place: Place) -> None:
    place.workflow(STEPS)
    asked = Asked(str(place.project), str(place.store), dict(place.environ))
    first, later = Joined(asked), Joined(asked)
    lines = iter(range(1, 1000))

    def twice(tool: str, **arguments: Any) -> Json:
        number = next(lines)
        before = first.call(number, tool, arguments)
        again = later.call(number, tool, arguments)
        assert "error" not in before
        assert "error" not in again, again
        named = ("workflow_id", "id", "answer")
        assert [again.get(name) for name in named] == [before.get(name) for name in named]
        return before

    def until_paused() -> Json:
        found = first.call(next(lines), "bilt_get_session", at)
        while found["status"] != "paused":
            seen = {"wait_seconds": 5, "after_revision": found["revision"]}
            found = first.call(next(lines), "bilt_get_session", {**at, **seen})
        return found

    with contextlib.closing(first), contextlib.closing(later):
        at = {"session_id": twice("bilt_get_session")["session_id"]}
        twice("bilt_send_message", **at, message="x")
        twice("bilt_pause_workflow", **at)
        (place.project / "go").touch()
        until_paused()
        twice("bilt_resume_workflow", **at)
        action = until_paused()["pending_action"]["action_id"]
        assert twice("bilt_cancel_action", **at, action_id=action)["answer"] == "declined"
        twice("bilt_create_project", name="new")
        refused = first.call(next(lines), "bilt_create_project", {"name": "new"})
        assert refused["error"] == "Project already exists"
    told = [row[0] for row in place.rows("SELECT action FROM audit ORDER BY n")]
    assert told == ["start", "pause", "resume", "decline", "create_project"]


def answer_to(question: Json) -> bytes:
    """A person's yes, as the client sends it."""
    return json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": YES}).encode() + b"\n"


def test_an_answer_to_what_a_dead_one_has_asked_is_none_to_what_the_next_one_asks(
    place: Place,
) -> None:
    place.workflow(STEPS)
    (place.project / "go").touch()
    hello: Json = {
        "protocolVersion": HANDSHAKE,
        "clientInfo": CLIENT,
        "capabilities": {"elicitation": {"form": {}}},
    }
    with Server(place.arguments, place.environ, era=None) as client:
        client.write(request(0, "initialize", hello))
        client.answer(0)
        client.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        at = {"session_id": client.call("bilt_get_session")["session_id"]}
        client.call("bilt_send_message", **at, message="x", wait_for_response=True)
        action = client.call("bilt_get_session", **at)["pending_action"]["action_id"]
        call = client.start_call("bilt_confirm_action", **at, action_id=action)
        first = client.next()
        for resident in residents(place.location):
            with contextlib.suppress(ProcessLookupError):
                os.kill(resident, signal.SIGKILL)
        second = client.next()
        assert first["params"]["message"] == second["params"]["message"]
        assert first["id"] != second["id"]
        client.write(answer_to(first))
        assert client.call("bilt_get_session", **at)["status"] == "paused"
        client.write(answer_to(second))
        assert structured(client.answer(call))["answer"] == "confirmed"
