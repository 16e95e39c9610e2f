"""`bilt-mcp serve` as a process: what it refuses to start with, how it says that it is ready, and how it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx2
import pytest
import trustme

from bilt_mcp.server import Config, ConfigError
from bilt_mcp.server.http.listening import listening
from bilt_mcp.server.http.settings import HttpSettings
from bilt_mcp.server.http.startup_checks import check

from .support.http import Served, bearer, key_in, refused_start, serve_process
from .support.places import Place, worker_of
from .support.places import place as place  # a fixture
from .support.rpc import PATIENCE
from .support.steps import until_exists
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

HELD = """
[[step]]
name = "build"
run = "trap '' TERM; echo $$ > starting; mv starting started; sleep 120"
"""
"""A step that has to be killed: that takes its patience."""


# -- what it does not start with -------------------------------------------------------------------


async def problems(config: Config, **settings: Any) -> str:
    """What is wrong with these settings; nothing when they may be started with."""
    try:
        await check(config, HttpSettings(**settings))
    except ConfigError as error:
        return str(error)
    return ""


async def test_without_a_key_it_says_how_one_is_made(place: Place) -> None:
    code, said = refused_start(["--port", "0", *place.arguments], place.environ)
    assert code == 2
    assert f"bilt-mcp --store {place.store} keys create NAME" in said
    assert "--no-auth" in said
    assert "Traceback" not in said
    await key_in(place.config())
    assert await problems(place.config()) == ""


async def test_a_revoked_key_is_none(place: Place) -> None:
    await key_in(place.config(), revoked=True)
    assert "keys create" in await problems(place.config())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"host": "0.0.0.0", "no_auth": True}, "--no-auth"),
        ({"host": "0.0.0.0"}, "--tls-cert"),
        ({"host": "0.0.0.0"}, "--public-url"),
        ({"no_auth": True, "public_urls": ("https://bilt.example",)}, "--no-auth"),
        ({"public_urls": ("http://bilt.example",)}, "https://"),
        ({"public_urls": ("https://bilt.example/below",)}, "--public-url"),
        ({"origins": ("*",)}, "--allow-origin"),
        ({"origins": ("null",)}, "--allow-origin"),
        ({"trusted_proxies": ("everybody",)}, "--trusted-proxy"),
        ({"tls_cert": Path("nothing.pem")}, "--tls-key"),
        ({"tls_cert": Path("nothing.pem"), "tls_key": Path("nothing.pem")}, "nothing.pem"),
        ({"host": "no.such.host.invalid"}, "--host"),
        ({"port": 70_000}, "--port"),
        ({"key_rate": -1}, "--rate"),
        ({"oauth_issuer": "https://login.example"}, "--oauth-audience"),
        ({"oauth_issuer": "http://login.example", "oauth_audience": "x"}, "https://"),
    ],
)
async def test_settings_that_would_let_anybody_in_or_cannot_work_are_refused(
    place: Place, settings: dict[str, Any], told: str
) -> None:
    await key_in(place.config())
    assert told in await problems(place.config(), **settings)


async def test_all_that_is_wrong_is_told_at_once(place: Place) -> None:
    said = await problems(place.config(), host="0.0.0.0", key_rate=-1, origins=("*",))
    for told in ("--tls-cert", "--rate", "--allow-origin", "keys create"):
        assert told in said


async def test_settings_that_declare_where_tls_ends_may_be_started_with(place: Place) -> None:
    await key_in(place.config())
    public = {"public_urls": ("https://bilt.example.com",)}
    assert await problems(place.config(), host="0.0.0.0", **public) == ""
    assert await problems(place.config(), **public) == ""
    assert await problems(place.config(), no_auth=True) == ""
    assert await problems(place.config(), no_auth=True, host="localhost") == ""


async def test_a_port_that_is_taken_is_told_in_a_sentence(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is taken"):
            async with listening(place.config(), HttpSettings(port=port, no_auth=True)):
                raise AssertionError("it does not listen")


# -- who may say where a request comes from --------------------------------------------------------


@pytest.mark.parametrize("public", [True, False])
async def test_a_forwarded_address_is_believed_only_where_something_is_in_front(
    place: Place, public: bool
) -> None:
    key = await key_in(place.config())
    settings = HttpSettings(
        port=0, failure_rate=1, public_urls=("https://bilt.example",) if public else ()
    )
    async with (
        listening(place.config(), settings) as server,
        httpx2.AsyncClient(base_url=server.url) as client,
    ):
        headers = {"Authorization": "Bearer x", "X-Forwarded-For": "203.0.113.9"}
        statuses = [(await client.get("/v1/spaces", headers=headers)).status_code for _ in "12"]
        assert statuses == [401, 429]
        mine = await client.get("/v1/spaces", headers=bearer(key))
        assert (mine.status_code != 429) == public


async def test_with_a_certificate_it_speaks_tls_and_nothing_else(
    place: Place, tmp_path: Path
) -> None:
    authority: Any = trustme.CA()  # its types name another library's, which is not installed
    issued = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    settings = HttpSettings(port=0, no_auth=True, tls_cert=cert, tls_key=key)
    await check(place.config(), settings)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with listening(place.config(), settings) as server:
        assert server.url.startswith("https://127.0.0.1:")
        async with httpx2.AsyncClient(verify=context) as client:
            assert (await client.get(f"{server.url}/health/live")).status_code == 200
            with pytest.raises(httpx2.TransportError):
                await client.get(f"http{server.url.removeprefix('https')}/health/live")


# -- how it ends -----------------------------------------------------------------------------------


class Caller:
    """Asks a served process, each time on a connection of its own."""

    def __init__(self, served: Served, key: str | None = None) -> None:
        self._at = urlsplit(served.url)
        self._key = key

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """The status and the body of an answer."""
        connection = HTTPConnection(self._at.hostname or "", self._at.port, timeout=30)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        with contextlib.closing(connection):
            kind = {"Content-Type": "application/json"} if body else {}
            connection.request(method, path, body or None, {**headers, **kind})
            answer = connection.getresponse()
            return answer.status, answer.read()


@pytest.fixture
def served(place: Place) -> Iterator[Served]:
    with serve_process(["--no-auth", *place.arguments], place.environ) as found:
        yield found


def test_it_says_where_it_is_ready_and_ends_at_once_when_nothing_is_open(served: Served) -> None:
    assert Caller(served).ask("GET", "/health/live")[0] == 200
    served.stop()
    assert served.exit_code(5) == 0
    assert "stopping" in served.stderr()


class Run:
    """A build that was asked for over REST, and its invocation."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        space = self.listed("/v1/spaces")[0]["id"]
        runtime = self.listed(f"/v1/spaces/{space}/runtimes")[0]["id"]
        asked = json.dumps({"runtimeId": runtime, "steps": [{"call": "build"}]}).encode()
        path = f"/v1/spaces/{space}/runtimes/{runtime}/invocations"
        status, body = caller.ask("POST", path, asked)
        assert status == 202, body
        self.path = f"/v1/invocations/{json.loads(body)['id']}"

    def listed(self, path: str) -> Any:
        status, body = self.caller.ask("GET", path)
        assert status == 200, body
        return json.loads(body)["data"]

    def status(self) -> str:
        return str(json.loads(self.caller.ask("GET", self.path)[1])["status"])


@dataclass
class Asked:
    """A cancel that is under way in a thread."""

    thread: threading.Thread
    answers: list[tuple[int, bytes]]


def cancel(run: Run) -> Asked:
    answers: list[tuple[int, bytes]] = []
    asking = threading.Thread(target=_ask_into, args=(answers, run.caller, f"{run.path}/cancel"))
    asking.start()
    return Asked(asking, answers)


def _ask_into(answers: list[tuple[int, bytes]], caller: Caller, path: str) -> None:
    with contextlib.suppress(OSError, HTTPException):  # a server may go first
        answers.append(caller.ask("POST", path))


def step_pid(place: Place) -> int:
    return int((place.project / "started").read_text())


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_a_cancel_that_is_being_verified_is_answered_before_the_server_goes(
    place: Place, served: Served
) -> None:
    place.workflow(HELD)
    run = Run(Caller(served))
    await until_exists(place.project / "started")
    asked = cancel(run)
    await wait_until(lambda: run.status() == "cancelling", "the cancel is on its way")
    served.stop(signal.SIGINT)
    code = await anyio.to_thread.run_sync(served.exit_code, 12)
    asked.thread.join(PATIENCE)
    assert code == 0
    [(status, body)] = asked.answers
    assert (status, json.loads(body)["status"]) == (200, "cancelled")
    assert not is_alive(step_pid(place))


async def test_a_second_signal_ends_it_at_once(place: Place, served: Served) -> None:
    place.workflow(HELD)
    run = Run(Caller(served))
    await until_exists(place.project / "started")
    asked = cancel(run)
    await wait_until(lambda: run.status() == "cancelling", "the cancel is on its way")
    served.stop()
    await wait_until(lambda: "stopping" in served.stderr(), "it has heard")
    served.stop()
    code = await anyio.to_thread.run_sync(served.exit_code, 2)
    assert code == 128 + signal.SIGTERM
    asked.thread.join(PATIENCE)


async def test_a_build_goes_on_when_the_server_is_killed_and_another_one_can_cancel_it(
    place: Place,
) -> None:
    place.workflow(HELD)
    with serve_process(["--no-auth", *place.arguments], place.environ) as first:
        run = Run(Caller(first))
        await until_exists(place.project / "started")
        first.stop(signal.SIGKILL)
        first.exit_code()
    step = step_pid(place)
    assert is_alive(step)
    with serve_process(["--no-auth", *place.arguments], place.environ) as second:
        run.caller = Caller(second)
        assert run.status() == "running"
        status, body = run.caller.ask("POST", f"{run.path}/cancel")
        assert (status, json.loads(body)["status"]) == (200, "cancelled")
    assert not is_alive(step)
    assert worker_of(place.location.database) is not None
