"""OpenTelemetry that cannot be reached or is not installed, and processes that end: nothing else suffers."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from bilt_mcp.engine import SpanSender
from bilt_mcp.engine.span_sender import UnfitSettings

from .support.otlp import Collector, collector
from .support.places import Place, is_held
from .support.places import place as place  # a fixture
from .support.places import resident as resident  # a fixture
from .support.rpc import Server
from .support.traced import (
    LONG,
    TELL,
    asking,
    nobody,
    running,
    started,
    until,
    worker_of,
)
from .support.traced import collected as collected  # a fixture


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "only http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT=soon", "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION=zip", "_COMPRESSION"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT=localhost:4318", "does not begin with http"),
        ("OTEL_TRACES_SAMPLER=mine", "OTEL_TRACES_SAMPLER is 'mine'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(setting: str, told: str) -> None:
    name, _, value = setting.partition("=")
    with pytest.raises(UnfitSettings, match=re.escape(told)):
        SpanSender({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", name: value})


@pytest.mark.parametrize(
    ("missing", "told"),
    [(True, b'install "bilt-mcp[otel]"'), (False, b"only http/protobuf is")],
    ids=["not installed", "unfit settings"],
)
def test_what_cannot_be_done_is_told_once_and_everything_else_works(
    place: Place, tmp_path: Path, resident: str, missing: bool, told: bytes
) -> None:
    hook = tmp_path / "without"
    hook.mkdir()
    if missing:  # in every Python that is started
        (hook / "sitecustomize.py").write_text(
            "import sys\nsys.modules['opentelemetry.sdk'] = None\n"
        )
    path = os.pathsep.join(filter(None, [str(hook), place.environ.get("PYTHONPATH")]))
    more = {} if missing else {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    environ = asking(place, nobody(), PYTHONPATH=path, BILT_RESIDENT=resident, **more)
    with Server(place.arguments, environ) as client:
        assert started(client)["status"] == "completed"
        until(lambda: told in client.stderr, f"{told!r} is told")
    assert client.stderr.count(told) == client.stderr.count(b"\n") == 1


# -- nothing waits for it --------------------------------------------------------------------------


@pytest.mark.parametrize("dead", ["refuses", "hangs"])
def test_a_dead_endpoint_delays_no_step_no_cancel_and_no_end(
    place: Place, resident: str, dead: str
) -> None:
    place.workflow(
        "[[step]]\nname = 'one'\nrun = 'true'\n[[step]]\nname = 'two'\nrun = 'true'\n"
        + LONG.replace("build", "long")
    )
    with collector(hangs=True) as hanging:
        endpoint = hanging.endpoint if dead == "hangs" else nobody()
        # Whoever waited for an export would wait for longer than this test may take.
        patient = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1000", "BILT_RESIDENT": resident}
        with Server(place.arguments, asking(place, endpoint, **patient)) as client:
            begun = started(client, wait=False)
            running(client, begun)
            session_id = begun["session_id"]
            if dead == "hangs":
                hanging.wait_asked()
            cancelled = client.call("bilt_cancel_workflow", session_id=session_id)
            assert cancelled["stopped"]["verified"]
            os.kill(worker_of(place), signal.SIGTERM)
            until(lambda: not is_held(place.location.lock), "the next worker may come")
            again = started(client, wait=False)
            assert again["workflow_started"]
            running(client, again)
            client.end_input()
            assert client.exit_code() == 0


def test_a_worker_that_is_killed_loses_a_span_and_nothing_else(
    place: Place, collected: Collector
) -> None:
    place.workflow(LONG)
    with Server(place.arguments, asking(place, collected.endpoint)) as client:
        begun = started(client, wait=False)
        running(client, begun)
        session_id = begun["session_id"]
        os.kill(worker_of(place), signal.SIGKILL)
        until(
            lambda: client.call("bilt_get_session", session_id=session_id)["status"] == "failed",
            "it is told",
        )
        failure = client.call("bilt_get_session", session_id=session_id)["failure"]
        assert failure["code"] == "worker_lost"
        place.workflow(TELL.replace('["TOKEN"]', "[]"))
        assert started(client)["status"] == "completed"
        collected.wait("step tell")
    assert [s.name for s in collected.spans if s.name.startswith("step")] == ["step tell"]


def test_a_worker_that_leaves_sends_what_it_has(place: Place, collected: Collector) -> None:
    place.workflow(LONG)
    with Server(place.arguments, asking(place, collected.endpoint)) as client:
        begun = started(client, wait=False)
        running(client, begun)
        os.kill(worker_of(place), signal.SIGTERM)
        (step,) = collected.wait("step build")
    assert step.attributes["bilt.outcome"] == "interrupted"
    assert step.is_error


def test_a_server_that_leaves_sends_what_it_has(
    place: Place, collected: Collector, resident: str
) -> None:
    environ = asking(place, collected.endpoint, BILT_RESIDENT=resident)
    with Server(place.arguments, environ) as client:
        client.call("bilt_get_session")
    collected.wait("tools/call bilt_get_session")
