"""Invocations over REST, on a real server with a real worker: what is asked for happens and is told."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from .support.agents import STAMP
from .support.hostile import alive
from .support.rest import Rest, Served
from .support.rest_project import MARKER
from .support.rest_project import rest as rest  # a fixture, like the next one
from .support.rest_project import served as served
from .support.rpc import Server
from .support.seed import Json, fits


def test_a_caller_finds_his_space_its_runtimes_and_their_calls(rest: Rest) -> None:
    (space,) = rest.ok("GET", "/v1/spaces")["data"]
    assert space == {"id": rest.space, "name": "local"}
    page = rest.ok("GET", f"/v1/spaces/{space['id']}/runtimes")
    assert page["nextCursor"] is None
    (runtime,) = page["data"]
    calls = runtime.pop("calls")
    assert runtime == {
        "id": rest.runtime,
        "name": "project",
        "kind": "desktop",
        "status": "ready",
        "reason": None,
    }
    assert [call["name"] for call in calls][:2] == ["build", "hang"]
    assert calls[-2:] == [
        {"name": "ship", "deploys": True, "needsConfirmation": True, "timeoutMs": None},
        {"name": "careful", "deploys": False, "needsConfirmation": False, "timeoutMs": 90_000},
    ]


def test_an_invocation_is_accepted_waited_for_and_told(rest: Rest) -> None:
    asked = rest.body("build", {"call": "again"}, mode="fail-fast")
    answer = rest.ask("POST", rest.creating, asked)
    assert answer.status_code == 202
    accepted = fits(answer.json())
    assert answer.headers["location"] == f"/v1/invocations/{accepted['id']}"
    assert accepted["status"] in ("queued", "dispatching", "running")
    assert (accepted["request"], accepted["result"]) == (asked, None)
    over = rest.wait(accepted)
    still = {key: over[key] for key in ("id", "runId", "spaceId", "runtimeId", "createdAt")}
    assert still == {key: accepted[key] for key in still}
    assert (over["status"], over["entryCall"], over["stepCount"]) == ("succeeded", "build", 2)
    assert (over["progress"], over["error"], over["cancelRequestedAt"]) == (None, None, None)
    assert (over["executionMode"], over["runtimeKind"]) == ("durable", "desktop")
    assert over["artifactCount"] == 1
    times = [over[key] for key in ("createdAt", "startedAt", "finishedAt")]
    assert times == sorted(times)
    assert all(STAMP.fullmatch(moment) for moment in times)
    assert over["lastHeartbeatAt"] == over["finishedAt"]
    built, again = over["result"]["steps"]
    assert built["resolved"] == {
        "call": "build",
        "method": "run",
        "target": "project",
        "runtimeId": rest.runtime,
        "ref": None,
        "handleId": None,
        "contextId": None,
        "pageId": None,
    }
    assert (built["index"], again["index"], again["result"]["attempts"]) == (0, 1, 2)
    assert built["result"] == {
        "exitCode": 0,
        "attempts": 1,
        "durationMs": built["result"]["durationMs"],
    }
    assert 0 <= built["result"]["durationMs"] <= over["durationMs"]
    assert "built" not in json.dumps(over["result"]["steps"][0]["result"])
    assert rest.get(over) == over == rest.wait(over, 0)


def test_a_misspelt_call_runs_nothing_and_says_what_was_meant(rest: Rest) -> None:
    over = rest.run("buidl", {"call": "print", "ref": "nothing"})
    assert over["status"] == "failed"
    assert over["error"]["code"] == "invalid_workflow"
    wrong, unbound = over["result"]["steps"]
    assert wrong["error"]["code"] == "UNKNOWN_CALL"
    diagnostic = wrong["error"]["diagnostic"]
    assert diagnostic["closest"][0] == "build"
    assert diagnostic["received"] == "buidl"
    assert json.loads(diagnostic["fixes"][0]["example"]) == {"call": "build"}
    assert (unbound["index"], unbound["error"]["code"]) == (1, "UNKNOWN_REF")
    assert (over["entryCall"], over["stepCount"], over["artifactCount"]) == ("buidl", 2, 0)


def test_a_dry_run_executes_nothing_and_asks_nobody(rest: Rest, served: Served) -> None:
    over = rest.run({"call": "ship", "options": {"dryRun": True}})
    assert over["status"] == "succeeded"
    (shipped,) = over["result"]["steps"]
    assert (shipped["ok"], shipped["result"]) == (True, {"dryRun": True})
    assert not served.file("shipped").exists()


def test_a_step_that_takes_too_long_is_stopped_and_told_as_timed_out(rest: Rest) -> None:
    over = rest.run("print", {"call": "hang", "options": {"timeoutMs": 150}}, "build")
    assert alive(MARKER) == []
    assert (over["status"], over["error"]["code"]) == ("timed_out", "timed_out")
    done, late = over["result"]["steps"]
    assert (done["ok"], late["ok"], late["index"]) == (True, False, 1)
    assert late["error"]["code"] == "TIMEOUT"
    assert "options.timeoutMs" in late["error"]["diagnostic"]["fixes"][-1]["title"]


def test_a_failed_step_is_told_with_its_code_and_never_with_what_it_printed(rest: Rest) -> None:
    over = rest.run("print", "fail", "build")
    assert over["status"] == "failed"
    assert over["error"]["code"] == "step_failed"
    assert over["error"]["details"] == {"step": "fail", "exitCode": 3}
    assert over["result"]["ok"] is False
    _, failed = over["result"]["steps"]
    assert failed["error"]["code"] == "CAPABILITY_NOT_AVAILABLE"
    diagnostic = failed["error"]["diagnostic"]
    assert (diagnostic["expected"], diagnostic["received"]) == ("exit code 0", "exit code 3")
    log = f"bilt://workflows/{over['id']}/steps/fail/log?attempt=1"
    assert diagnostic["fixes"][0]["example"] == log
    assert "secret" not in json.dumps(over)


def test_a_later_step_gets_what_the_step_printed_that_it_refers_to(
    rest: Rest, served: Served
) -> None:
    args = ["two words", {"deep": [1, None]}]
    over = rest.run(
        {"call": "print", "bind": "first"}, {"call": "read", "ref": "first", "args": args}
    )
    assert over["status"] == "succeeded"
    bound, read = over["result"]["steps"]
    assert bound["binding"]["alias"] == "first"
    assert bound["binding"]["type"] == "handle"
    assert UUID(bound["binding"]["id"]).version == 5
    assert read["resolved"]["ref"] == "first"
    assert read["resolved"]["handleId"] == bound["binding"]["id"]
    assert bound["resolved"]["handleId"] is None
    assert served.file("ref.txt").read_text() == "of print\n"
    assert json.loads(served.file("args.txt").read_text()) == args


def test_a_cancel_is_answered_when_nothing_of_it_is_alive(rest: Rest) -> None:
    running = rest.until(rest.create("hang", "ship"), lambda _: len(alive(MARKER)) > 1)
    assert running["status"] == "running"
    assert running["progress"] == {
        "currentCall": "hang",
        "lastEventType": "step_started",
        "message": "Step 1 of 2: hang",
        "step": 1,
        "totalSteps": 2,
    }
    cancelled = rest.cancel(running)
    assert alive(MARKER) == []
    assert cancelled["status"] == "cancelled"
    assert STAMP.fullmatch(cancelled["cancelRequestedAt"])
    assert cancelled["result"] == {
        "mode": "fail-fast",
        "ok": False,
        "runtimeId": rest.runtime,
        "steps": [],
    }
    assert rest.cancel(cancelled) == cancelled == rest.get(cancelled)


def test_many_cancels_at_once_are_one(rest: Rest, served: Served) -> None:
    running = rest.until(rest.create("hang"), lambda _: len(alive(MARKER)) > 1)
    with served.others(5) as callers, ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(caller.cancel, running) for caller in callers]
        answers = [each.result() for each in asked]
    assert alive(MARKER) == []
    assert {answer["status"] for answer in answers} == {"cancelled"}
    assert len({answer["cancelRequestedAt"] for answer in answers}) == 1


def test_one_that_is_over_is_not_changed_by_a_cancel_and_neither_is_a_later_one(rest: Rest) -> None:
    over = rest.run("print")
    later = rest.until(rest.create("hang"), lambda now: now["status"] == "running")
    assert (later["runId"], later["sequenceNo"]) == (over["runId"], over["sequenceNo"] + 1)
    assert rest.cancel(over) == over
    assert rest.get(later)["cancelRequestedAt"] is None
    assert rest.cancel(later)["status"] == "cancelled"


def test_one_that_waits_for_its_turn_is_queued_and_cancelled_at_once(rest: Rest) -> None:
    first = rest.until(rest.create("hang"), lambda now: now["status"] == "running")
    second = rest.create("build")
    assert second["runId"] != first["runId"]
    assert second["status"] == "queued"
    assert second["lastHeartbeatAt"] is None
    assert second["progress"]["lastEventType"] == "queued"
    assert second["progress"]["currentCall"] == "build"
    cancelled = rest.cancel(second)
    assert (cancelled["status"], cancelled["startedAt"]) == ("cancelled", None)
    assert cancelled["durationMs"] is None
    assert rest.get(first)["status"] == "running"
    rest.cancel(first)


def test_the_heartbeat_of_one_that_runs_rises(rest: Rest) -> None:
    # It has beaten when the workflow was claimed, before its step began.
    running = rest.until(rest.create("hang"), lambda now: now["status"] == "running")
    first = running["lastHeartbeatAt"]
    later = rest.until(running, lambda now: now["lastHeartbeatAt"] > first)
    assert later["status"] == "running"
    over = rest.cancel(running)
    assert over["lastHeartbeatAt"] == over["finishedAt"]


def test_a_gate_is_told_and_waits_for_a_person(rest: Rest, served: Served) -> None:
    def asks(now: Json) -> bool:
        return bool(now["progress"]["lastEventType"] == "confirmation_required")

    paused = rest.until(rest.create("print", "ship"), asks)
    assert paused["status"] == "running"
    told = "Waiting for a person to confirm step ship: Ship it to production?"
    assert paused["progress"]["message"] == told
    assert paused["progress"]["currentCall"] == "ship"
    assert rest.wait(paused, 50)["status"] == "running"
    cancelled = rest.cancel(paused)
    assert cancelled["status"] == "cancelled"
    assert [done["call"] for done in cancelled["result"]["steps"]] == ["print"]
    assert not served.file("shipped").exists()


def test_a_wait_ends_when_its_time_is_up(rest: Rest) -> None:
    running = rest.create("hang")
    began = time.monotonic()
    assert rest.wait(running, 0)["status"] in ("queued", "dispatching", "running")
    assert rest.wait(running, 300)["finishedAt"] is None
    assert 0.3 < time.monotonic() - began < 10
    rest.cancel(running)


def test_a_wait_without_a_body_is_answered_at_the_end(rest: Rest, served: Served) -> None:
    running = rest.until(rest.create("hang"), lambda now: now["status"] == "running")
    answers: list[Json] = []
    path = f"/v1/invocations/{running['id']}/wait"
    with served.others(1) as (other,):
        waiter = threading.Thread(target=lambda: answers.append(other.ok("POST", path)))
        waiter.start()
        cancelled = rest.cancel(running)
        waiter.join(20)
    assert [fits(answer) for answer in answers] == [cancelled]


def test_who_waits_and_goes_away_stops_nothing(rest: Rest) -> None:
    running = rest.until(rest.create("hang"), lambda now: now["status"] == "running")
    with pytest.raises(Exception, match="timed out"):
        rest.ask("POST", f"/v1/invocations/{running['id']}/wait", {}, timeout=0.3)
    found = rest.get(running)
    assert (found["status"], found["cancelRequestedAt"]) == ("running", None)
    rest.cancel(running)


def test_a_list_is_stable_while_invocations_are_added(rest: Rest) -> None:
    made = [rest.run("print") for _ in range(4)]
    assert len({each["runId"] for each in made}) == 1
    page = rest.runs(made[0]["runId"], limit=2)
    read = page["data"]
    added = rest.run("print")
    while page["nextCursor"]:
        page = rest.runs(made[0]["runId"], limit=2, cursor=page["nextCursor"])
        read += page["data"]
    assert read[:4] == list(reversed(made))
    numbers = [each["sequenceNo"] for each in read]
    assert numbers == list(range(len(numbers), 0, -1))
    assert added["id"] not in {each["id"] for each in read}
    newest = rest.runs(made[0]["runId"], limit=1)
    assert newest["data"] == [added]


def test_a_list_is_filtered_by_any_of_some_statuses(rest: Rest) -> None:
    good, bad = rest.run("print"), rest.run("fail")
    run_id = good["runId"]
    failed = rest.runs(run_id, status="failed")["data"]
    assert failed[0] == bad
    assert {each["status"] for each in failed} == {"failed"}
    both = rest.runs(run_id, status=["failed", "succeeded"], limit=2)["data"]
    assert both == [bad, good]
    assert rest.runs(run_id, status="queued")["data"] == []


def test_the_examples_of_the_page_work_as_they_stand(rest: Rest) -> None:
    """Each with the headers and the body that its language sends."""
    forms: list[tuple[str | None, dict[str, str]]] = [
        ("{}", {"Content-Type": "application/json"}),
        ("{}", {"content-type": "application/json; charset=utf-8"}),
        (None, {}),
    ]
    for body, headers in forms:
        running = rest.until(rest.create("hang"), lambda now: now["status"] == "running")
        where = urlsplit(rest.url)
        connection = HTTPConnection(where.hostname or "", where.port)
        path = f"/v1/invocations/{running['id']}/cancel"
        authorized = {"Authorization": f"Bearer {rest.key}", **headers}
        connection.request("POST", path, body, authorized)
        answer = connection.getresponse()
        assert answer.status == 200
        assert fits(json.loads(answer.read()))["status"] == "cancelled"
        connection.close()


def test_what_an_agent_has_started_over_stdio_is_an_invocation_and_can_be_cancelled(
    rest: Rest, served: Served
) -> None:
    with Server(served.place.arguments, served.place.environ) as agent:
        session_id = agent.call("bilt_get_session")["session_id"]
        started = agent.call("bilt_send_message", session_id=session_id, message="hang")
        found = rest.until({"id": started["workflow_id"]}, lambda _: len(alive(MARKER)) > 1)
        assert found["runId"] == session_id
        assert found["request"] == {
            "runtimeId": rest.runtime,
            "mode": "fail-fast",
            "steps": [{"call": "hang"}],
        }
        assert rest.cancel(found)["status"] == "cancelled"
        assert alive(MARKER) == []
        assert agent.call("bilt_get_session")["status"] == "cancelled"


def test_a_runtime_whose_file_is_wrong_or_gone_says_so_and_so_does_an_invocation(
    tmp_path: Path, rest: Rest, served: Served
) -> None:
    file = served.file("bilt.toml")
    text = file.read_text()
    listing = f"/v1/spaces/{rest.space}/runtimes"
    try:
        file.write_text("[[step]]\nnam = 'x'\n")
        (runtime,) = rest.ok("GET", listing)["data"]
        assert (runtime["status"], runtime["calls"]) == ("invalid", [])
        assert "nam: unknown key" in runtime["reason"]
        assert str(served.place.project) not in runtime["reason"]
        over = rest.run("print")
        assert over["result"]["steps"][0]["error"]["code"] == "CAPABILITY_NOT_AVAILABLE"
        file.unlink()
        (runtime,) = rest.ok("GET", listing)["data"]
        assert runtime["status"] == "missing"
        over = rest.run("print")
        assert over["result"]["steps"][0]["error"]["code"] == "RUNTIME_NOT_FOUND"
    finally:
        file.write_text(text)
