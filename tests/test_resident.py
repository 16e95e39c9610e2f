"""One process serves all clients of a store, each as if it had its own; and it may be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bilt_mcp.server import joining
from bilt_mcp.server.joining import Asked, is_ours
from bilt_mcp.state import StoreLocation

from .support.places import QUICK, Place, is_held, residents
from .support.places import place as place  # a fixture
from .support.rpc import HANDSHAKE, PATIENCE, STATELESS, Server, structured

CODE = Path(joining.__file__).parent.parent
LONG = '[[step]]\nname = "build"\nrun = "sleep 1000"\n'


def until(reached: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def the_resident(place: Place) -> int:
    (found,) = residents(place.location)
    return found


def kill_resident(place: Place) -> None:
    """Kill it, and only it; nobody has collected it when this returns."""
    os.kill(the_resident(place), signal.SIGKILL)


def loaded(process: int, library: str) -> bool:
    """Whether a process has a library's code in its memory."""
    return library in Path(f"/proc/{process}/maps").read_text("utf-8", "replace")


def other_code(folder: Path) -> dict[str, str]:
    """Variables with which the same program is other code: a copy of it elsewhere."""
    for name in ("engine", "server", "state", "tools"):
        shutil.copytree(CODE / name, folder / "copy" / "bilt_mcp" / name)
    return {"PYTHONPATH": str(folder / "copy")}


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# -- one for all -----------------------------------------------------------------------------------


def test_all_clients_of_a_store_are_served_by_one_process_and_load_nothing_themselves(
    place: Place,
) -> None:
    with (
        Server(place.arguments, place.environ) as one,
        Server(place.arguments, place.environ) as two,
    ):
        session = one.call("bilt_get_session")
        assert two.call("bilt_get_session") == session
        assert loaded(the_resident(place), "_pydantic_core")
        for client in (one, two):
            assert not loaded(client.process.pid, "_pydantic_core")


def test_many_clients_that_come_at_once_start_one_resident(place: Place) -> None:
    clients = [Server(place.arguments, place.environ, era=STATELESS) for _ in range(8)]
    asked = [client.send("tools/list") for client in clients]
    try:
        for client, number in zip(clients, asked, strict=True):
            assert client.answer(number)["result"]["tools"]
        assert the_resident(place)
    finally:
        for client in clients:
            client.__exit__(None, None, None)


def test_each_client_has_its_own_project_variables_and_answers(
    place: Place, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    step = "[[step]]\nname = 'tell'\nrun = 'echo $COLOUR has ${#COLOUR}'\nsecrets = ['COLOUR']\n"
    for folder in (place.project, other):
        (folder / "bilt.toml").write_text(step + f"env = {{ WHERE = '{folder.name}' }}\n")
    arguments = ("--project", str(other), "--store", str(place.store))
    with (
        Server(place.arguments, {**place.environ, "COLOUR": "white-and-long"}) as one,
        Server(arguments, {**place.environ, "COLOUR": "black-and-longer"}) as two,
        Server(arguments, place.environ) as three,
    ):
        found = [client.call("bilt_get_session") for client in (one, two)]
        assert found[0]["project_id"] != found[1]["project_id"]
        refused = three.call("bilt_send_message", session_id=found[1]["session_id"], message="x")
        assert "COLOUR is not set" in refused["details"]["message"]
        for client, session in zip((one, two), found, strict=True):
            ids = session["session_id"]
            client.call("bilt_send_message", session_id=ids, message="x", wait_for_response=True)
            said = client.call("bilt_get_messages", session_id=ids, variant="log")
            length = 14 if client is one else 16
            assert [m["content"] for m in said["messages"]] == [f"[redacted] has {length}"]
        assert the_resident(place)


def test_the_history_names_the_client_that_asked(place: Place) -> None:
    place.workflow(LONG)
    with (
        Server(place.arguments, place.environ) as one,
        Server(place.arguments, place.environ) as two,
    ):
        session_id = one.call("bilt_get_session")["session_id"]
        one.call("bilt_send_message", session_id=session_id, message="x")
        assert two.call("bilt_cancel_workflow", session_id=session_id)["stopped"]["verified"]
        said = one.call("bilt_get_messages", session_id=session_id, variant="info")["messages"]
    assert any("Cancelled by by-hand 1 " in message["content"] for message in said)


def test_it_stays_for_a_client_that_says_nothing_and_goes_when_there_is_none(
    place: Place, tmp_path: Path
) -> None:
    with Server(place.arguments, place.environ) as client:
        found = the_resident(place)
        # Another store's, that waits as long alone, comes and goes meanwhile.
        other = tmp_path / "other-store"
        with Server(("--project", str(place.project), "--store", str(other)), place.environ):
            assert residents(StoreLocation.of(other))
        until(lambda: not residents(StoreLocation.of(other)), "the other one goes")
        assert residents(place.location) == [found]
        assert client.ask("ping")["result"] == {}
    until(lambda: not residents(place.location), "the resident goes")
    assert not list(place.location.folder.glob("serve-*.sock"))


def test_it_goes_when_its_socket_is_gone_and_nobody_notices(place: Place) -> None:
    with Server(place.arguments, place.environ) as old:
        session = old.call("bilt_get_session")
        first = the_resident(place)
        for socket_ in place.location.folder.glob("serve-*.sock"):
            socket_.unlink()
        with Server(place.arguments, place.environ) as new:
            assert new.call("bilt_get_session") == session
            assert the_resident(place) != first
            assert old.call("bilt_get_session") == session


def test_where_no_more_can_be_served_the_others_go_on_and_the_new_one_serves_itself(
    place: Place,
) -> None:
    few = ("sh", "-c", 'ulimit -n 40; exec "$0" "$@"')
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Server(place.arguments, place.environ, within=few))
            for _ in range(21)
        ]
        session = clients[0].call("bilt_get_session")
        assert all(client.call("bilt_get_session") == session for client in clients)
        assert [loaded(c.process.pid, "_pydantic_core") for c in clients] == [False] * 20 + [True]


# -- when it is not to be used ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["--no-resident", "BILT_RESIDENT=0"])
def test_it_can_be_refused(place: Place, how: str) -> None:
    name, _, value = how.partition("=")
    arguments = place.arguments if value else (*place.arguments, how)
    environ = {**place.environ, name: value} if value else place.environ
    with Server(arguments, environ) as client:
        assert client.call("bilt_get_session")["status"] == "idle"
        assert loaded(client.process.pid, "_pydantic_core")
        assert residents(place.location) == []


def test_other_code_is_served_by_another_resident_and_the_old_one_goes_on(
    place: Place, tmp_path: Path
) -> None:
    with Server(place.arguments, place.environ) as old:
        first = the_resident(place)
        with Server(place.arguments, {**place.environ, **other_code(tmp_path)}) as new:
            assert new.call("bilt_get_session") == old.call("bilt_get_session")
            assert len(residents(place.location)) == 2
            os.kill(first, signal.SIGKILL)
            assert old.call("bilt_get_session") == new.call("bilt_get_session")


def test_a_worker_of_other_code_finishes_its_work_and_takes_up_nothing_more(
    place: Place, tmp_path: Path
) -> None:
    place.workflow("[[step]]\nname = 'a'\nrun = 'while test ! -e go; do sleep 0.02; done'\n")
    other = replace(
        place, project=tmp_path / "other", environ={**place.environ, **other_code(tmp_path)}
    )
    other.project.mkdir()
    other.workflow(QUICK)

    def workers() -> list[bytes]:
        """The command lines of the store's workers."""
        found = [Path(f"/proc/{n}/cmdline") for n in os.listdir("/proc") if n.isdigit()]
        wanted = b"engine.worker\0" + os.fsencode(place.location.database)
        return [line for line in map(read, found) if wanted in line]

    with (
        Server(place.arguments, place.environ) as old,
        Server(other.arguments, other.environ) as new,
    ):
        first = old.call("bilt_get_session")["session_id"]
        old.call("bilt_send_message", session_id=first, message="x")
        until(lambda: old.call("bilt_get_session")["status"] == "running", "it runs")
        second = new.call("bilt_get_session")["session_id"]
        new.call("bilt_send_message", session_id=second, message="x")
        until(lambda: len(workers()) == 2, "the next worker waits")
        assert new.call("bilt_get_session", session_id=second)["status"] == "pending"
        (place.project / "go").touch()
        for client, session in ((old, first), (new, second)):
            until(
                lambda client=client, session=session: (  # type: ignore[misc]
                    client.call("bilt_get_session", session_id=session)["status"] == "completed"
                ),
                "each is completed",
            )


def test_code_that_changed_under_a_client_is_not_mixed_with_it(tmp_path: Path) -> None:
    """A resident that finds other code than was asked for ends, so the client serves itself."""
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    module = [sys.executable, "-m", "bilt_mcp.server.resident", str(tmp_path)]
    done = subprocess.run([*module, "00000000", str(lock), "1"], pass_fds=[lock], timeout=PATIENCE)
    os.close(lock)
    assert done.returncode == 1
    assert not list(tmp_path.glob("*.sock"))


def test_a_folder_into_which_others_can_write_has_none(place: Place) -> None:
    place.store.mkdir(mode=0o777)
    place.store.chmod(0o777)
    with Server(place.arguments, place.environ) as client:
        assert client.call("bilt_get_session")["status"] == "idle"
        assert loaded(client.process.pid, "_pydantic_core")


def test_a_store_with_a_long_path_has_one_too(place: Place) -> None:
    store = place.store.parent / ("long" * 30) / "store"
    environ = {**place.environ, "BILT_STORE": str(store)}
    location = StoreLocation.of(store)
    with Server(("--project", str(place.project)), environ) as client:
        assert client.call("bilt_get_session")["status"] == "idle"
        (found,) = residents(location)
    os.kill(found, signal.SIGTERM)


def test_something_else_in_the_place_of_its_socket_costs_only_the_time_of_a_start(
    place: Place,
) -> None:
    environ = {**place.environ}
    with Server(place.arguments, environ) as client:
        client.ask("ping")
    until(lambda: not residents(place.location), "the resident goes")
    (lock,) = place.location.folder.glob("serve-*.lock")
    lock.with_suffix(".sock").mkdir()
    with Server(place.arguments, environ) as client:
        assert client.call("bilt_get_session")["status"] == "idle"
        assert loaded(client.process.pid, "_pydantic_core")


def test_one_that_does_not_answer_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "WELCOME_SECONDS", 0.05)
    place.store.mkdir(mode=0o700)
    asked = Asked(str(place.project), str(place.store), dict(place.environ))
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(place.store / f"serve-{asked.identity}.sock"))
        deaf.listen()
        assert joining.join(asked) is None


def test_a_process_of_another_user_is_none_of_ours() -> None:
    class Foreign:
        def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
            return (1).to_bytes(4, sys.byteorder) + (os.geteuid() + 1).to_bytes(4, sys.byteorder)

    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert is_ours(ours)
    assert not is_ours(Foreign())


# -- when it is killed -----------------------------------------------------------------------------


@pytest.mark.parametrize("era", [HANDSHAKE, STATELESS])
def test_a_client_sees_only_a_slow_call_when_the_resident_is_killed(place: Place, era: str) -> None:
    with Server(place.arguments, place.environ, era=era) as client:
        session_id = client.call("bilt_get_session")["session_id"]
        waiting = client.start_call("bilt_get_session", session_id=session_id, wait_seconds=3)
        client.ask("server/discover" if era == STATELESS else "ping")
        kill_resident(place)
        assert structured(client.answer(waiting))["session_id"] == session_id
        kill_resident(place)
        started = client.call("bilt_send_message", session_id=session_id, message="again")
        assert started["workflow_started"]
    answered = [line for line in client.lines if b'"id"' in line]
    asked = 5 if era == HANDSHAKE else 4
    assert len(answered) == asked, answered
    assert client.exit_code() == 0


def test_a_build_goes_on_when_the_resident_is_killed(place: Place) -> None:
    place.workflow(LONG)
    with Server(place.arguments, place.environ) as client:
        session_id = client.call("bilt_get_session")["session_id"]
        client.call("bilt_send_message", session_id=session_id, message="x")
        until(
            lambda: client.call("bilt_get_session", session_id=session_id)["status"] == "running",
            "it runs",
        )
        kill_resident(place)
        assert client.call("bilt_get_session", session_id=session_id)["status"] == "running"
        # The worker that the killed one started has none of its locks.
        assert is_held(place.location.lock)
        assert client.call("bilt_cancel_workflow", session_id=session_id)["stopped"]["verified"]


def test_a_request_that_was_cancelled_is_not_made_again(place: Place) -> None:
    with Server(place.arguments, place.environ) as client:
        session_id = client.call("bilt_get_session")["session_id"]
        waiting = client.start_call("bilt_get_session", session_id=session_id, wait_seconds=45)
        client.write(
            b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}\n'
            % waiting
        )
        client.ask("ping")
        kill_resident(place)
        client.ask("ping")
        client.call("bilt_send_message", session_id=session_id, message="x")
        client.ask("ping")
        assert not [line for line in client.lines if b'"id":%d,' % waiting in line]


def test_when_no_resident_survives_the_client_is_served_by_its_own_process(place: Place) -> None:
    with Server(place.arguments, place.environ) as client:
        session_id = client.call("bilt_get_session")["session_id"]
        waiting = client.start_call("bilt_get_session", session_id=session_id, wait_seconds=4)
        while not loaded(client.process.pid, "_pydantic_core"):
            for resident in residents(place.location):
                if list(place.location.folder.glob("serve-*.sock")):
                    os.kill(resident, signal.SIGKILL)
            time.sleep(0.01)
        assert structured(client.answer(waiting))["session_id"] == session_id
        assert client.ask("tools/list")["result"]["tools"]
        started = client.call("bilt_send_message", session_id=session_id, message="x")
        assert started["workflow_started"]
    assert len([line for line in client.lines if b'"serverInfo"' in line]) == 1


def test_its_folder_and_its_socket_are_private(place: Place) -> None:
    with Server(place.arguments, place.environ) as client:
        client.ask("ping")
        (found,) = place.location.folder.glob("serve-*.sock")
        assert found.stat().st_mode & 0o777 == 0o600
        assert place.location.folder.stat().st_mode & 0o777 == 0o700
