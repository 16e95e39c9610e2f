"""Resources, prompts, completion and live updates of the real program, in both eras, with and without a resident."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from .support.places import Place, open_place, residents
from .support.places import resident as resident  # a fixture
from .support.rpc import HANDSHAKE, PATIENCE, STATELESS, Json, Server

WORKFLOW = """
[[step]]
name = "build it"
run = "echo one; echo two; echo $TOKEN"
secrets = ["TOKEN"]
"""
SECRET = "correct-horse-battery"


@pytest.fixture
def place(resident: str, tmp_path: Path) -> Iterator[Place]:
    with open_place(tmp_path, BILT_RESIDENT=resident, TOKEN=SECRET) as found:
        found.workflow(WORKFLOW)
        yield found


@pytest.fixture(params=[HANDSHAKE, STATELESS])
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ended(server: Server, message: str = "go") -> tuple[str, str]:
    """Start a workflow and wait for its end; the ids of its session and its own."""
    session_id = str(server.call("bilt_get_session")["session_id"])
    started = server.call(
        "bilt_send_message", session_id=session_id, message=message, wait_for_response=True
    )
    assert started["status"] == "completed"
    return session_id, str(started["workflow_id"])


def read(server: Server, uri: str) -> str:
    (found,) = server.ask("resources/read", {"uri": uri})["result"]["contents"]
    return str(found["text"])


def listen(server: Server, *uris: str) -> int:
    """Listen, and return when the server has said that it does."""
    request_id = server.send(
        "subscriptions/listen", {"notifications": {"resourceSubscriptions": list(uris)}}
    )
    acknowledged = until(server, "notifications/subscriptions/acknowledged")
    assert acknowledged["notifications"]["resourceSubscriptions"] == list(uris)
    return request_id


def until(server: Server, method: str) -> Json:
    """The parameters of the next notification of this kind."""
    while True:
        message = server.next()
        if message.get("method") == method:
            found: Json = message["params"]
            return found


def test_what_a_build_left_is_listed_completed_and_read(place: Place, era: str) -> None:
    with Server(place.arguments, place.environ, era=era) as server:
        session_id, workflow_id = ended(server)
        listed = server.ask("resources/list")["result"]["resources"]
        uri = f"bilt://workflows/{workflow_id}"
        log = f"{uri}/steps/build%20it/log"
        assert [found["uri"] for found in listed] == [f"bilt://sessions/{session_id}", uri, log]
        assert read(server, log) == "one\ntwo\n[redacted]\n"
        assert read(server, f"{log}?from=-2&lines=1") == (
            f"two\n[lines 2 to 2 of 3; go on at {log}?from=3&lines=1]\n"
        )
        assert json.loads(read(server, uri))["steps"][0]["outcome"] == "succeeded"
        error = server.ask("resources/read", {"uri": uri.replace(workflow_id, session_id)})["error"]
        assert (error["code"], list(error["data"])) == (-32602, ["uri"])
        asked = {
            "ref": {"type": "ref/resource", "uri": "bilt://workflows/{workflow_id}"},
            "argument": {"name": "workflow_id", "value": workflow_id[:2]},
        }
        completed = server.ask("completion/complete", asked)["result"]["completion"]
        assert completed["values"] == [workflow_id]
        prompt = server.ask("prompts/get", {"name": "watch_build"})["result"]
        assert "bilt_get_session" in prompt["messages"][0]["content"]["text"]
        assert server.ask("prompts/get", {"name": "no"})["error"]["code"] == -32602
        if era == STATELESS:
            for method, ttl in (("tools", 300_000), ("prompts", 300_000), ("resources", 0)):
                answer = server.ask(f"{method}/list")["result"]
                scope = "private" if method == "resources" else "public"
                assert (answer["ttlMs"], answer["cacheScope"]) == (ttl, scope)
            answer = server.ask("resources/read", {"uri": uri})["result"]
            assert (answer["ttlMs"], answer["cacheScope"]) == (0, "private")


def test_one_process_listens_and_another_one_starts(place: Place, era: str) -> None:
    with (
        Server(place.arguments, place.environ, era=era) as server,
        Server(place.arguments, place.environ) as other,
    ):
        session_id = str(server.call("bilt_get_session")["session_id"])
        uri = f"bilt://sessions/{session_id}"
        request_id = 0
        if era == STATELESS:
            request_id = listen(server, uri)
        else:
            assert server.ask("resources/subscribe", {"uri": uri})["result"] == {}
        ended(other)
        told = until(server, "notifications/resources/updated")
        assert told["uri"] == uri
        while json.loads(read(server, uri))["status"] != "completed":
            until(server, "notifications/resources/updated")
        if era == STATELESS:
            cancelled = {"requestId": request_id}
            assert told["_meta"]["io.modelcontextprotocol/subscriptionId"] == request_id
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}
            server.write(json.dumps(note).encode() + b"\n")
        else:
            server.ask("resources/unsubscribe", {"uri": uri})


@pytest.mark.parametrize("resident", ["1"], indirect=True)
def test_who_listens_is_told_of_changes_also_after_the_resident_was_killed(
    place: Place, era: str
) -> None:
    with (
        Server(place.arguments, place.environ, era=era) as server,
        Server(place.arguments, place.environ) as other,
    ):
        session_id = str(server.call("bilt_get_session")["session_id"])
        uri = f"bilt://sessions/{session_id}"
        if era == STATELESS:
            listen(server, uri)
        else:
            server.ask("resources/subscribe", {"uri": uri})
        (killed,) = residents(place.location)
        os.kill(killed, signal.SIGKILL)
        read(server, uri)  # answered by the next one
        if era == STATELESS:
            until(server, "notifications/subscriptions/acknowledged")
        ended(other)
        assert until(server, "notifications/resources/updated")["uri"] == uri


def test_a_listener_is_counted_by_the_resident_for_all_its_clients(place: Place) -> None:
    with (
        Server(place.arguments, place.environ, era=STATELESS) as server,
        Server(place.arguments, place.environ) as other,
    ):
        session_id = str(server.call("bilt_get_session")["session_id"])
        listen(server, f"bilt://sessions/{session_id}")
        started = other.call("bilt_send_message", session_id=session_id, message="go")
        joined = place.environ["BILT_RESIDENT"] == "1"
        assert started["subscriber_count"] == int(joined)
        deadline = time.monotonic() + PATIENCE
        while other.call("bilt_get_session")["status"] != "completed":
            assert time.monotonic() < deadline


def test_the_server_says_who_it_is_in_few_words_and_with_a_small_icon(
    place: Place, era: str
) -> None:
    with Server(place.arguments, place.environ, era=era) as server:
        if era == HANDSHAKE:
            hello = server.hello
            capabilities = hello["capabilities"]
            assert capabilities["resources"] == {"subscribe": True, "listChanged": False}
            info = hello["serverInfo"]
        else:
            hello = server.ask("server/discover")["result"]
            capabilities = hello["capabilities"]
            assert capabilities["resources"] == {"subscribe": True, "listChanged": True}
            info = hello["_meta"]["io.modelcontextprotocol/serverInfo"]
        assert {"tools", "prompts", "completions"} <= set(capabilities)
        assert len(hello["instructions"]) < 600
        (icon,) = info["icons"]
        kind, _, drawing = icon["src"].partition(",")
        assert kind == "data:image/svg+xml"
        assert unquote(drawing).startswith("<svg ")
        assert len(json.dumps(icon)) < 300
