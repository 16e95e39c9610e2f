"""The real program on its standard streams, as every client meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from bilt_mcp.server.__main__ import main
from bilt_mcp.state import VERSION
from bilt_mcp.state.driver import WAL_RESET_BUG
from bilt_mcp.tools import build_tools

from .support.agents import Agent
from .support.places import Place, open_place
from .support.places import resident as resident  # a fixture
from .support.rpc import (
    ENVELOPE,
    HANDSHAKE,
    PATIENCE,
    STATELESS,
    Json,
    Server,
    command,
    handshake,
    request,
    structured,
)

TOOLS = list(build_tools())
LOOP = TOOLS[:4]
"""What every agent needs, and the server's instructions teach."""
FINAL = {"completed", "failed", "cancelled"}

LONG = """
[[step]]
name = "build"
run = "echo building; sleep 1000"
[[step]]
name = "deploy"
run = "touch deployed"
deploy = true
"""


@pytest.fixture(scope="module")
def shared_place(resident: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    with open_place(tmp_path_factory.mktemp("shared"), BILT_RESIDENT=resident) as found:
        yield found


@pytest.fixture
def place(resident: str, tmp_path: Path) -> Generator[Place]:
    with open_place(tmp_path, BILT_RESIDENT=resident) as found:
        yield found


@pytest.fixture(scope="module")
def shared(shared_place: Place) -> Generator[Server]:
    """One server for all the tests that leave it as they found it."""
    with Server(shared_place.arguments, shared_place.environ) as server:
        yield server


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    with Server(place.arguments, place.environ) as found:
        yield found


def session_of(server: Server) -> str:
    return str(server.call("bilt_get_session")["session_id"])


def until(server: Server, session_id: str, wanted: set[str]) -> Json:
    """The session, as soon as its status is one of `wanted`: by waiting, as an agent would."""
    deadline = time.monotonic() + PATIENCE
    found = server.call("bilt_get_session", session_id=session_id)
    while found["status"] not in wanted:
        assert time.monotonic() < deadline, found
        found = server.call(
            "bilt_get_session",
            session_id=session_id,
            wait_seconds=5,
            after_revision=found["revision"],
        )
    return found


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- eras and wires --------------------------------------------------------------------------------


def works_from_start_to_cancel(server: Server, place: Place) -> None:
    """A whole conversation: list, build, read, start again, cancel, and nothing was deployed."""
    assert [tool["name"] for tool in server.ask("tools/list")["result"]["tools"]] == TOOLS
    session_id = session_of(server)
    started = server.call("bilt_send_message", session_id=session_id, message="build")
    assert started["status"] == "pending"
    done = until(server, session_id, FINAL)
    assert (done["status"], done["failure"]) == ("completed", None)
    found = server.call("bilt_get_messages", session_id=session_id, variant="log")
    assert [message["content"] for message in found["messages"]] == ["built"]
    place.workflow(LONG)
    server.call("bilt_send_message", session_id=session_id, message="deploy")
    until(server, session_id, {"running"})
    cancelled = server.call("bilt_cancel_workflow", session_id=session_id, reason="enough")
    assert (cancelled["status"], cancelled["stopped"]["verified"]) == ("cancelled", True)
    assert cancelled["stopped"]["deploy"] == "not_started"
    assert not (place.project / "deployed").exists()
    again = server.call("bilt_cancel_workflow", session_id=session_id)
    assert again["details"]["message"] == "Workflow is already cancelled"


@pytest.mark.parametrize(("wire", "era"), [("pipes", HANDSHAKE), ("sockets", STATELESS)])
def test_a_workflow_is_started_read_and_cancelled(
    place: Place, wire: Literal["pipes", "sockets"], era: str
) -> None:
    with Server(place.arguments, place.environ, wire=wire, era=era) as server:
        works_from_start_to_cancel(server, place)
    assert server.exit_code() == 0
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in server.lines)
    assert server.stderr == b""


def test_the_handshake_tells_who_answers_and_how_to_use_it(shared: Server) -> None:
    hello = shared.hello
    assert hello["protocolVersion"] == HANDSHAKE
    assert hello["serverInfo"]["name"] == "bilt"
    assert hello["serverInfo"]["version"] == VERSION
    assert all(tool in hello["instructions"] for tool in LOOP)


def test_without_a_handshake_the_server_can_be_discovered(place: Place) -> None:
    with Server(place.arguments, place.environ, era=STATELESS) as server:
        found = server.ask("server/discover")["result"]
        assert found["supportedVersions"] == [STATELESS]
        assert all(tool in found["instructions"] for tool in LOOP)
        server.write(request(77, "tools/list", {"_meta": {**ENVELOPE, next(iter(ENVELOPE)): "1"}}))
        refused = server.answer(77)["error"]
        assert (refused["code"], refused["data"]["supported"]) == (-32022, [STATELESS])
        session_id = session_of(server)
        assert server.call("bilt_get_session")["session_id"] == session_id


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_sdks_own_client_works(place: Place, mode: str) -> None:
    program, *arguments = command(*place.arguments)
    parameters = StdioServerParameters(command=program, args=arguments, env=dict(place.environ))
    async with Client(parameters, mode=mode, read_timeout_seconds=PATIENCE) as client:
        agent = Agent(client)
        assert [tool.name for tool in (await client.list_tools()).tools] == TOOLS
        session_id, workflow_id = await agent.start(wait_for_response=True)
        found = await agent.call("bilt_get_session", session_id=session_id)
        assert (found["status"], found["workflow_id"]) == ("completed", workflow_id)
        refused = await agent.call("bilt_cancel_workflow", session_id=session_id)
        assert refused["error"] == "Cannot cancel workflow"


def test_a_long_wait_holds_up_nothing_else(server: Server) -> None:
    session_id = session_of(server)
    waiting = server.start_call("bilt_get_session", session_id=session_id, wait_seconds=45)
    started = time.monotonic()
    assert server.ask("ping")["result"] == {}
    assert server.call("bilt_send_message", session_id=session_id, message="build")
    assert structured(server.answer(waiting))["revision"] > 1
    assert time.monotonic() - started < 40


# -- the end ---------------------------------------------------------------------------------------


def test_at_the_end_of_the_input_it_goes_at_once_and_the_workflow_runs_on(place: Place) -> None:
    place.workflow('[[step]]\nname = "build"\nrun = "echo $$ > pid; exec sleep 1000"\n')
    with Server(place.arguments, place.environ) as server:
        session_id = session_of(server)
        server.call("bilt_send_message", session_id=session_id, message="build")
        until(server, session_id, {"running"})
        pid_file = place.project / "pid"
        deadline = time.monotonic() + PATIENCE
        while not (pid_file.exists() and pid_file.read_text().strip()):
            assert time.monotonic() < deadline
            server.call("bilt_get_session", session_id=session_id, wait_seconds=0.05)
        server.start_call("bilt_get_session", session_id=session_id, wait_seconds=45)
        server.ask("ping")
        began = time.monotonic()
        server.end_input()
        assert server.exit_code() == 0
        assert time.monotonic() - began < 1.0
    assert alive(int(pid_file.read_text()))
    with Server(place.arguments, place.environ, era=STATELESS) as later:
        assert until(later, session_id, {"running"})["session_id"] == session_id
        cancelled = later.call("bilt_cancel_workflow", session_id=session_id)
    assert cancelled["stopped"]["verified"] is True
    assert not alive(int(pid_file.read_text()))


def piped(place: Place, tmp_path: Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """The program with a file as its input, as in `bilt-mcp < requests`."""
    file = tmp_path / "requests"
    file.write_bytes(data)
    with file.open("rb") as stdin:
        return subprocess.run(
            command(*place.arguments),
            stdin=stdin,
            capture_output=True,
            env=dict(place.environ),
            timeout=PATIENCE,
            check=False,
        )


def test_requests_from_a_file_are_answered_before_it_ends(place: Place, tmp_path: Path) -> None:
    calls = [request(n, "ping") for n in range(1, 30)]
    look = request(30, "tools/call", {"name": "bilt_get_session", "arguments": {}})
    last = request(31, "ping").strip()  # without a newline
    # What comes last is waited for, but not for as long as making a store may take.
    with Server(place.arguments, place.environ) as server:
        server.call("bilt_get_session")
    done = piped(place, tmp_path, handshake() + b"".join(calls) + look + last)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {answer["id"] for answer in answers if "result" in answer} == set(range(32))
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_client_that_reads_no_more_ends_it_without_a_trace(place: Place) -> None:
    ours, theirs = os.pipe()
    with subprocess.Popen(
        command(*place.arguments),
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=dict(place.environ),
    ) as process:
        os.close(theirs)
        os.close(ours)
        pings = b"".join(request(n, "ping") for n in range(1, 100))
        _, errors = process.communicate(handshake() + pings, PATIENCE)
    assert (process.returncode, errors) == (0, b"")


# -- without what it needs -------------------------------------------------------------------------


def test_without_a_workflow_file_it_serves_and_says_what_to_do(
    shared: Server, shared_place: Place
) -> None:
    file = shared_place.project / "bilt.toml"
    kept = file.read_text()
    file.unlink()
    try:
        found = shared.call("bilt_send_message", session_id=session_of(shared), message="build")
    finally:
        file.write_text(kept)
    assert found["error"] == "No workflow configured"
    assert "Create one there" in found["details"]["message"]
    assert "[[step]]" in found["details"]["message"]


def test_a_broken_store_is_an_answer_and_repairing_it_needs_no_restart(place: Place) -> None:
    place.store.parent.mkdir(exist_ok=True)
    place.store.write_text("somebody's file")
    with Server(place.arguments, place.environ) as server:
        answers = [server.call("bilt_get_session") for _ in range(2)]
        for found in answers:
            assert found["error"] == "Internal error"
            assert set(found["details"]) == {"error_id", "message"}
            assert str(place.store) in found["details"]["message"]
        place.store.unlink()
        assert server.call("bilt_get_session")["status"] == "idle"
    assert all(found["details"]["error_id"].encode() in server.stderr for found in answers)
    assert len(server.lines) == 4  # the errors went to stderr, and only there


# -- the command line ------------------------------------------------------------------------------


def run(place: Place, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**place.environ, **environ},
        cwd=place.project,
        timeout=PATIENCE,
        check=False,
    )


def test_it_tells_its_version(shared_place: Place) -> None:
    done = run(shared_place, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(
        rf"bilt-mcp {re.escape(VERSION)} \(MCP SDK 2\.\S+, SQLite 3\.\S+, ", done.stdout
    )
    assert ("has the WAL-reset bug" in done.stdout) is WAL_RESET_BUG


def test_it_tells_how_to_call_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert all(word in told.out for word in ("--project", "--store", "confirm", "bilt.toml"))


def test_a_project_that_is_no_folder_is_one_line_and_a_code(shared_place: Place) -> None:
    done = run(shared_place, "--project", "missing")
    told = "bilt-mcp: the project missing is not a folder (--project, BILT_PROJECT)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


def test_without_input_it_ends_and_has_made_no_store(place: Place) -> None:
    done = run(place, BILT_STORE=str(place.store))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not place.store.exists()
