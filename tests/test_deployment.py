"""bilt-mcp as it is put into service: the commands of our examples, behind Debian's nginx as we configure it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from .support.debian import ROOT, Unavailable
from .support.http import bearer, key_in, refused_start, serve_process
from .support.loud import cannot_run
from .support.nginx import Front, front, nginx
from .support.places import Place, open_place
from .support.recipes import compose_command, container_health, exec_start, image_command
from .support.rpc import PATIENCE

# What is not installed yet comes over the network, once.
pytestmark = pytest.mark.timeout(600)

WAITS = '[[step]]\nname = "build"\nrun = "echo begun; read word < go; echo $word"\n'
"""A step that ends when somebody says so."""
PUBLIC = "https://bilt.example.com"
EVENT = "event: token\ndata: 1\n\n"
FAILURES = 20
"""Failed authentications that an address has in a minute."""


@dataclass(frozen=True)
class Site:
    """bilt-mcp behind nginx."""

    place: Place
    front: Front
    key: str

    def client(self, address: str = "127.0.0.1", **options: Any) -> httpx2.Client:
        """A client at an address of the loopback: the kernel has 16 million of them."""
        transport = httpx2.HTTPTransport(verify=self.front.trusted, local_address=address)
        return httpx2.Client(transport=transport, base_url=self.front.url, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Generator[Place]:
    with open_place(tmp_path_factory.mktemp("deployed")) as found:
        found.workflow(WAITS)
        os.mkfifo(found.project / "go")
        yield found


@pytest.fixture(scope="module")
def site(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Generator[Site | str]:
    """As the unit of systemd starts it, with nginx before it; or why there is no nginx."""
    folder = tmp_path_factory.mktemp("nginx")
    at = front(folder)
    key = anyio.run(key_in, place.config())
    arguments = [word.replace(PUBLIC, at.url) for word in exec_start()]
    with serve_process([*arguments, *place.arguments], place.environ) as served:
        try:
            with nginx(at, urlsplit(served.url).netloc):
                yield Site(place, at, key)
        except Unavailable as why:
            yield str(why)


@pytest.fixture
def deployed(site: Site | str, record_property: Callable[[str, object], None]) -> Site:
    if isinstance(site, str):
        cannot_run(record_property, f"nginx: {site}")
    return site


@pytest.mark.anyio
async def test_a_stream_arrives_through_tls_while_it_is_written(deployed: Site) -> None:
    """The step ends only when its beginning has been heard of, so a stream that is held back never ends."""
    headers = bearer(deployed.key)
    begun = anyio.Event()

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    async def release() -> None:
        await begun.wait()
        await anyio.Path(deployed.place.project / "go").write_text("released\n")

    async with (
        httpx2.AsyncClient(verify=deployed.front.trusted, headers=headers, timeout=60) as http,
        Client(streamable_http_client(f"{deployed.front.url}/mcp", http_client=http)) as client,
        anyio.create_task_group() as tasks,
    ):
        found = await client.call_tool("bilt_get_session", {})
        assert found.structured_content is not None
        tasks.start_soon(release)
        sent = {
            "session_id": found.structured_content["session_id"],
            "message": "build",
            "wait_for_response": True,
        }
        answer = await client.call_tool("bilt_send_message", sent, progress_callback=heard)
        assert answer.structured_content is not None
        assert answer.structured_content["status"] == "completed"
        tasks.cancel_scope.cancel()


def test_without_a_key_nobody_gets_past_it(deployed: Site) -> None:
    with deployed.client() as client:
        answer = client.post("/mcp", json={})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_person_logs_in_for_a_cookie_that_never_travels_in_the_clear(deployed: Site) -> None:
    with deployed.client() as client:
        page = {"Origin": deployed.front.url}
        answer = client.post("/auth/login", json={"key": deployed.key}, headers=page)
        assert answer.status_code == 200
        assert {"Secure", "HttpOnly"} <= set(answer.headers["set-cookie"].split("; "))
        assert client.get("/auth/session").status_code == 200


def test_a_body_over_the_limit_is_refused_in_the_form_of_our_own_errors(deployed: Site) -> None:
    with deployed.client(headers=bearer(deployed.key)) as client:
        most = client.post("/v1/no/such/route", content=b'"' + b"x" * (4 * 1024 * 1024 - 2) + b'"')
        over = client.post("/v1/no/such/route", content=b"x" * 5 * 1024 * 1024)
    assert most.status_code == 415  # it has reached bilt-mcp, which wants to be told what it is
    assert over.status_code == 413
    assert over.headers["content-type"] == "application/json"
    told = over.json()
    assert told.pop("requestId")
    assert told == {
        "error": "The body is larger than 4194304 bytes.",
        "code": "too_large",
        "reasonClass": "request",
    }


def test_a_foreign_name_is_refused(deployed: Site) -> None:
    with deployed.client() as client:
        assert client.get("/health").status_code == 200
        answer = client.get("/health", headers={"Host": "bilt.attacker.example"})
    assert answer.status_code == 421


def test_who_guesses_keys_is_known_by_his_address_whatever_he_says_of_himself(
    deployed: Site,
) -> None:
    guess = bearer("bilt_live_guessed")
    with deployed.client("127.0.0.2") as guesser, deployed.client("127.0.0.3") as other:
        codes = [
            guesser.get(
                "/v1/spaces", headers={**guess, "X-Forwarded-For": f"192.0.2.{number}"}
            ).status_code
            for number in range(FAILURES + 1)
        ]
        assert codes == [401] * FAILURES + [429]
        assert other.get("/v1/spaces", headers=guess).status_code == 401


def test_browsers_get_http_2_so_that_streams_do_not_use_up_their_connections(
    deployed: Site,
) -> None:
    context = deployed.front.trusted
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with (
            socket.create_connection(("127.0.0.1", deployed.front.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as found,
        ):
            assert found.selected_alpn_protocol() == "h2"
    finally:
        context.set_alpn_protocols(["http/1.1"])


def test_while_bilt_mcp_is_restarted_callers_are_told_to_ask_again(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    at = front(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
    try:
        with nginx(at, nobody), httpx2.Client(verify=at.trusted) as client:
            answer = client.get(f"{at.url}/health")
    except Unavailable as why:
        cannot_run(record_property, f"nginx: {why}")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    told = answer.json()
    assert told.keys() == {"error", "code", "requestId", "hint", "reasonClass"}
    assert told["code"] == "unavailable"


def test_an_event_is_passed_on_at_once_also_if_the_server_did_not_ask_for_it(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """bilt-mcp does ask nginx for it, with a header; here a server that does not."""
    at = front(tmp_path)
    seen = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        upstream = threading.Thread(target=one_event_and_then, args=(listening, seen))
        upstream.start()
        port = listening.getsockname()[1]
        try:
            with (
                nginx(at, f"127.0.0.1:{port}"),
                httpx2.Client(verify=at.trusted, timeout=10) as client,
                client.stream("GET", at.url) as answer,
            ):
                assert next(answer.iter_text()) == EVENT
                seen.set()
        except Unavailable as why:
            socket.create_connection(("127.0.0.1", port)).close()
            cannot_run(record_property, f"nginx: {why}")
        finally:
            seen.set()
            upstream.join()


def one_event_and_then(listening: socket.socket, seen: threading.Event) -> None:
    """Answer one request with an event, and end the answer when that was seen."""
    connection, _ = listening.accept()
    with connection, connection.makefile("rb") as request:
        while request.readline().strip():
            pass
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked"
        connection.sendall(f"{head}\r\n\r\n{len(EVENT):x}\r\n{EVENT}\r\n".encode())
        seen.wait(PATIENCE)
        connection.sendall(b"0\r\n\r\n")


def test_the_command_of_the_image_wants_to_be_told_how_it_is_reached(place: Place) -> None:
    program, *arguments = image_command()
    assert program == "serve"
    code, said = refused_start([*arguments, *place.arguments], place.environ)
    assert code == 2
    assert "--public-url https://..." in said


def test_the_container_of_compose_is_healthy(place: Place) -> None:
    """The command of compose.yaml, and then what the image and compose.yaml ask to know whether it is."""
    anyio.run(key_in, place.config(), "compose")
    program, *arguments = compose_command(PUBLIC)
    assert program == "serve"
    with serve_process([*arguments, *place.arguments], place.environ) as served:
        port = urlsplit(served.url).port
        for asked in container_health():
            assert asked[0] == "python"
            assert run([sys.executable, *of_port(asked[1:], port)]) == 0
            assert run([sys.executable, *of_port(asked[1:], 1)]) != 0


def of_port(words: Sequence[str], port: int | None) -> list[str]:
    assert any(":8765/" in word for word in words)
    return [word.replace(":8765/", f":{port}/") for word in words]


def run(command: Sequence[str]) -> int:
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode
