"""A client that asks for spans, and what can be waited for of it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .otlp import Collector, Sent, collector
from .places import Place
from .rpc import PATIENCE, Json, Server

TELL = """
[[step]]
name = "tell"
run = 'echo "printed-by-the-step parent=$TRACEPARENT state=$TRACESTATE"'
secrets = ["TOKEN"]
"""
LONG = '[[step]]\nname = "build"\nrun = "echo begun; sleep 1000"\n'


@pytest.fixture
def collected() -> Iterator[Collector]:
    with collector() as found:
        yield found


# -- one trace -------------------------------------------------------------------------------------


def asking(place: Place, endpoint: str, **more: str) -> dict[str, str]:
    """The variables of a client that wants spans."""
    return {**place.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **more}


def started(client: Server, *, wait: bool = True, message: str = "go", **more: object) -> Json:
    session_id = client.call("bilt_get_session")["session_id"]
    return client.call(
        "bilt_send_message",
        session_id=session_id,
        message=message,
        wait_for_response=wait,
        **more,
    )


def said(client: Server, session_id: str) -> str:
    messages = client.call("bilt_get_messages", session_id=session_id, limit=100)["messages"]
    return "\n".join(message["content"] for message in messages)


def until(reached: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def running(client: Server, started: Json) -> None:
    ids = {name: started[name] for name in ("session_id", "workflow_id")}

    def begun() -> bool:
        found = client.call("bilt_get_messages", variant="log", **ids)["messages"]
        return any("begun" in message["content"] for message in found)

    until(begun, "the step runs")


def sending_call(collected: Collector) -> Sent:
    (call,) = collected.wait("tools/call bilt_send_message")
    return call


def worker_of(place: Place) -> int:
    wanted = {b"bilt_mcp.engine.worker", os.fsencode(place.location.database)}
    (found,) = (
        int(name)
        for name in filter(str.isdigit, os.listdir("/proc"))
        if wanted <= set(read(Path(f"/proc/{name}/cmdline")).split(b"\0"))
    )
    return found


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def nobody() -> str:
    """An address at which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"
