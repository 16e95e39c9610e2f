"""What one call shows of a build that has failed, whatever it printed before: a real one, through a real server."""

from __future__ import annotations

import json

import pytest

from .support.places import Place
from .support.places import place as place  # a fixture
from .support.rpc import Json, Server

LAST = ["src/Basket.tsx(14,7): error TS2345: not assignable", "Found 1 error.", "make: *** [all] 2"]
SAYS_LAST = "; ".join(f"echo '{line}' >&2" for line in LAST)
BEFORE = {
    "nothing": "true",
    "ten lines": "seq 10",
    "five megabytes": "yes '[build] compiled src/components/Basket.tsx in 41 ms' | head -c 5000000; echo",
    "a megabyte without a line's end": "head -c 1000000 /dev/zero | tr '\\0' x; echo",
    "a hundred errors": 'for n in $(seq 100); do echo "::error::$n is wrong"; done',
}


def failed(place: Place, server: Server, run: str, **step: str) -> str:
    """The id of a session whose only workflow has failed."""
    more = "".join(f"{name} = {value}\n" for name, value in step.items())
    place.workflow(f"[[step]]\nname = \"build\"\nrun = '''{run}'''\n{more}")
    session_id = str(server.call("bilt_get_session")["session_id"])
    server.call("bilt_send_message", session_id=session_id, message="build", wait_for_response=True)
    assert server.call("bilt_get_session", session_id=session_id)["status"] == "failed"
    return session_id


def shown(found: Json) -> list[str]:
    """The lines of an answer, oldest first."""
    contents = [str(message["content"]) for message in reversed(found["messages"])]
    return "\n".join(contents).split("\n")


@pytest.mark.parametrize("before", BEFORE)
def test_one_call_shows_that_it_failed_and_its_last_lines(place: Place, before: str) -> None:
    with Server(place.arguments, place.environ) as server:
        session_id = failed(place, server, f"{BEFORE[before]}; {SAYS_LAST}; exit 3")
        for asked in ({}, {"variant": "error"}, {"variant": "error", "max_chars": 2500}):
            found = server.call("bilt_get_messages", session_id=session_id, **asked)
            newest = found["messages"][0]
            assert (newest["variant"], newest["step"]) == ("error", "build")
            lines = newest["content"].split("\n")
            assert lines[0] == "Step build failed with exit code 3. Its last lines:"
            assert lines[-3:] == LAST
            assert len(lines) <= 21
            assert len(newest["content"]) <= 2100
            assert len(json.dumps(found, ensure_ascii=False)) <= 21_000
            if not asked:
                assert shown({"messages": found["messages"][1:]})[-3:] == LAST
        failure = server.call("bilt_get_session", session_id=session_id)["failure"]
        assert failure["message"] == "Step build failed with exit code 3.", "no output in it"


def test_one_call_shows_what_a_step_said_last_whose_time_was_up(place: Place) -> None:
    with Server(place.arguments, place.environ) as server:
        run = f"{SAYS_LAST}; exec sleep 600"
        session_id = failed(place, server, run, timeout="1", grace="0.1")
        found = server.call("bilt_get_messages", session_id=session_id, variant="error")
        (newest,) = found["messages"]
        assert newest["content"].startswith("Step build took too long and was stopped;")
        assert newest["content"].split("\n")[1:] == LAST


def test_a_step_that_said_nothing_has_no_last_lines(place: Place) -> None:
    with Server(place.arguments, place.environ) as server:
        session_id = failed(place, server, "exit 1")
        found = server.call("bilt_get_messages", session_id=session_id, variant="error")
        (newest,) = found["messages"]
        assert newest["content"] == "Step build failed with exit code 1."
