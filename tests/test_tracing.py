"""OpenTelemetry: a span for every message and every step, one trace from the client to the step's own tools."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from .support.otlp import Collector, collector
from .support.places import Place, residents
from .support.places import place as place  # a fixture
from .support.places import resident as resident  # a fixture
from .support.rpc import STATELESS, Server
from .support.traced import (
    LONG,
    TELL,
    asking,
    read,
    running,
    said,
    sending_call,
    started,
    worker_of,
)
from .support.traced import collected as collected  # a fixture

SERVER_KIND, INTERNAL_KIND = 2, 1
SECRET = "s3cret-Value-42"
CLIENT_TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT_PARENT = f"00-{CLIENT_TRACE}-b7ad6b7169203331-01"


def test_a_step_is_a_child_of_the_call_that_started_it_and_its_tools_go_on_below(
    place: Place, collected: Collector, resident: str
) -> None:
    place.workflow(TELL)
    before = time.time_ns()
    environ = asking(place, collected.endpoint, BILT_RESIDENT=resident, TOKEN=SECRET)
    with Server(place.arguments, environ) as client:
        done = started(client, message="a very private message")
        (step,) = collected.wait("step tell")
        call = sending_call(collected)
        told = said(client, done["session_id"])
    assert call.kind == SERVER_KIND
    assert step.kind == INTERNAL_KIND
    assert (step.trace_id, step.parent_id) == (call.trace_id, call.span_id)
    assert f"parent={step.traceparent} state=\n" in told + "\n"
    assert step.attributes == {
        "bilt.workflow_id": done["workflow_id"],
        "bilt.session_id": done["session_id"],
        "bilt.step": "tell",
        "bilt.attempt": 1,
        "bilt.deploy": False,
        "bilt.outcome": "succeeded",
        "process.exit.code": 0,
    }
    assert not step.is_error
    assert before < step.start < step.end < time.time_ns()
    assert step.resource["service.name"] == call.resource["service.name"] == "bilt-mcp"
    for private in (b"printed-by-the-step", SECRET.encode(), b"a very private message"):
        assert private not in collected.raw


def test_every_attempt_is_a_span_and_a_failed_one_an_error(
    place: Place, collected: Collector
) -> None:
    place.workflow(
        "[[step]]\nname = 'flaky'\nrun = 'test -e tried || { touch tried; exit 7; }'\nretries = 1\ndeploy = true\n"
        "[[step]]\nname = 'slow'\nrun = 'sleep 1000'\ntimeout = '100ms'\n"
    )
    with Server(place.arguments, asking(place, collected.endpoint)) as client:
        assert started(client)["status"] == "failed"
        first, second = collected.wait("step flaky", 2)
        (slow,) = collected.wait("step slow")
    told = [
        (s.attributes["bilt.attempt"], s.attributes["bilt.outcome"], s.is_error)
        for s in (first, second, slow)
    ]
    assert told == [(1, "failed", True), (2, "succeeded", False), (1, "timed_out", True)]
    assert first.attributes["process.exit.code"] == 7
    assert first.attributes["error.type"] == "failed"
    assert first.attributes["bilt.deploy"] is True
    assert first.parent_id == second.parent_id == slow.parent_id
    assert first.end <= second.start


def test_a_cancelled_step_is_told_as_cancelled_and_as_no_error(
    place: Place, collected: Collector
) -> None:
    place.workflow(LONG)
    with Server(place.arguments, asking(place, collected.endpoint)) as client:
        begun = started(client, wait=False)
        running(client, begun)
        session_id = begun["session_id"]
        cancelled = client.call("bilt_cancel_workflow", session_id=session_id)
        assert cancelled["stopped"]["verified"]
        (step,) = collected.wait("step build")
    assert step.attributes["bilt.outcome"] == "cancelled"
    assert not step.is_error
    assert step.parent_id == sending_call(collected).span_id


@pytest.mark.parametrize("spans", [True, False], ids=["with spans of ours", "without"])
def test_a_trace_that_the_client_began_goes_on_in_the_step(
    place: Place, collected: Collector, spans: bool
) -> None:
    place.workflow(TELL)
    environ = {**(asking(place, collected.endpoint) if spans else place.environ), "TOKEN": SECRET}
    with Server(place.arguments, environ, era=STATELESS) as client:
        session_id = client.call("bilt_get_session")["session_id"]
        given = {"session_id": session_id, "message": "go", "wait_for_response": True}
        client.ask(
            "tools/call",
            {
                "name": "bilt_send_message",
                "arguments": given,
                "_meta": {"traceparent": CLIENT_PARENT, "tracestate": "vendor=x", "baggage": "a=b"},
            },
        )
        told = said(client, session_id)
        if spans:
            (step,) = collected.wait("step tell")
            assert step.trace_id == CLIENT_TRACE
            assert sending_call(collected).parent_id == CLIENT_PARENT.split("-")[2]
            assert f"parent={step.traceparent} state=vendor=x" in told
        else:
            assert f"parent={CLIENT_PARENT} state=vendor=x" in told


def test_a_bad_place_in_a_trace_reaches_no_step(place: Place) -> None:
    place.workflow(TELL)
    bad = {
        "zz": ("00-zz-1-01", "", False),
        "zero": (f"00-{'0' * 32}-b7ad6b7169203331-01", "", False),
        "more": (CLIENT_PARENT + "\nLD_PRELOAD=x", "", False),
        "a long state": (CLIENT_PARENT, "a=" + "x" * 250 + ",b=" + "y" * 250 + ",c=zzzzzz", True),
        "an odd state": (CLIENT_PARENT, "a=$(touch pwned)\n\x1b[2J", True),
        "no text": (17, ["a=b"], False),
    }
    with Server(place.arguments, {**place.environ, "TOKEN": SECRET}, era=STATELESS) as client:
        session_id = client.call("bilt_get_session")["session_id"]
        for name, (parent, state, kept) in bad.items():
            given = {"session_id": session_id, "message": name, "wait_for_response": True}
            asked = {
                "name": "bilt_send_message",
                "arguments": given,
                "_meta": {"traceparent": parent, "tracestate": state},
            }
            client.ask("tools/call", asked)
            told = client.call("bilt_get_messages", session_id=session_id, variant="log", limit=1)
            wanted = f"parent={CLIENT_PARENT if kept else ''} state="
            content = told["messages"][0]["content"]
            assert content.strip() == f"printed-by-the-step {wanted}", name


# -- who asks, and who does not --------------------------------------------------------------------


def test_each_client_s_spans_go_where_its_own_variables_say(place: Place, tmp_path: Path) -> None:
    place.workflow(TELL)
    other = tmp_path / "other"
    other.mkdir()
    (other / "bilt.toml").write_text(TELL)
    there = ("--project", str(other), "--store", str(place.store))
    with collector() as ones, collector() as twos, ExitStack() as clients:
        environ = {
            "TOKEN": SECRET,
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=of-one",
            "OTEL_SERVICE_NAME": "one",
            "OTEL_RESOURCE_ATTRIBUTES": "team=a%20b",
        }
        one = clients.enter_context(
            Server(place.arguments, asking(place, ones.endpoint, **environ))
        )
        plain = clients.enter_context(Server(place.arguments, {**place.environ, "TOKEN": SECRET}))
        two = clients.enter_context(Server(there, asking(place, twos.endpoint, TOKEN=SECRET)))
        assert started(one)["status"] == "completed"
        plain_call = started(plain)
        assert plain_call["status"] == started(two)["status"] == "completed"
        (step_one,), (step_two,) = ones.wait("step tell"), twos.wait("step tell")
        call_one, call_two = sending_call(ones), sending_call(twos)
        assert len(residents(place.location)) == 1
        for process in (*residents(place.location), worker_of(place)):
            variables = Path(f"/proc/{process}/environ").read_bytes()
            assert b"OTEL_" not in variables
    assert (step_one.parent_id, step_two.parent_id) == (call_one.span_id, call_two.span_id)
    assert step_one.headers["api-key"] == call_one.headers["api-key"] == "of-one"
    assert "api-key" not in step_two.headers
    assert "api-key" not in call_two.headers
    assert (step_one.resource["service.name"], step_one.resource["team"]) == ("one", "a b")
    assert step_two.resource["service.name"] == "bilt-mcp"
    assert plain_call["workflow_id"].encode() not in ones.raw + twos.raw


def test_whoever_says_no_sends_nothing(place: Place, collected: Collector) -> None:
    noes = {
        "OTEL_SDK_DISABLED": "TRUE",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_TRACES_SAMPLER": "always_off",
    }
    for name, value in noes.items():
        more = {name: value}
        with Server(place.arguments, asking(place, collected.endpoint, **more)) as client:
            assert started(client)["status"] == "completed"
    with Server(place.arguments, asking(place, collected.endpoint)) as client:
        last = started(client)["workflow_id"]
        (step,) = collected.wait("step build")
    assert step.attributes["bilt.workflow_id"] == last
    assert len(collected.wait("tools/call bilt_send_message")) == 1


def test_without_these_variables_nothing_of_the_sdk_is_loaded(place: Place) -> None:
    with Server(place.arguments, {**place.environ, "BILT_RESIDENT": "0"}) as client:
        started(client)
        for process in (client.process.pid, worker_of(place)):
            assert b"upb" not in read(Path(f"/proc/{process}/maps"))
    script = (
        "import sys, bilt_mcp.server.stdio, bilt_mcp.server.residence, bilt_mcp.engine.worker\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')\n"
        "    or name.startswith('opentelemetry.exporter') or name in ('requests', 'google')])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=dict(place.environ), capture_output=True, check=True)
    assert done.stdout == b"[]\n"
