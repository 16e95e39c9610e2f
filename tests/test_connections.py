"""Connections whose clients do not get on, and heads that can be read in two ways: raw bytes to a real server."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import pytest

from bilt_mcp.server.http.connection import Connection
from bilt_mcp.server.http.settings import HttpSettings

from .support.http import serve_process, serving
from .support.places import Place, open_place
from .support.places import place as place  # a fixture
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
SOON = 0.3
FILES = 600
"""Descriptors of a server; that of a test has more."""
CONNECTION = "bilt_mcp.server.http.connection"
LIVE = "GET /health/live HTTP/1.1\r\nHost: {at}\r\n"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[str]:
    """Host and port of a server."""
    with open_place(tmp_path_factory.mktemp("connections")) as place:
        async with serving(place.config(), HttpSettings(failure_rate=0)) as server:
            yield urlsplit(server.url).netloc


class Client:
    """One connection; what is written has `{at}` where the server's name belongs."""

    def __init__(self, at: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._at = at
        self._reader, self._writer = reader, writer

    async def write(self, text: str) -> None:
        self._writer.write(text.replace("{at}", self._at).encode())
        await self._writer.drain()

    async def answer(self) -> str:
        """The head and the body of an answer that has a length."""
        async with asyncio.timeout(PATIENCE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            return head + (await self._reader.readexactly(length)).decode()

    async def rest(self) -> str:
        """Whatever comes before the server ends it."""
        async with asyncio.timeout(PATIENCE):
            try:
                return (await self._reader.read()).decode()
            except ConnectionResetError:
                return ""


@asynccontextmanager
async def connected(at: str) -> AsyncGenerator[Client]:
    host, port = at.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Client(at, reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("said", ["", "GET", LIVE, "POST /v1/x HTTP/1.1\r\n"])
async def test_who_never_comes_to_the_end_of_a_head_is_not_waited_for(
    at: str, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(f"{CONNECTION}.PATIENCE_SECONDS", SOON)
    async with connected(at) as client:
        await client.write(said)
        assert await client.rest() == ""


async def test_a_head_that_comes_byte_by_byte_has_no_more_time_for_that(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{CONNECTION}.PATIENCE_SECONDS", SOON)
    async with connected(at) as client:
        ended = asyncio.ensure_future(client.rest())
        with contextlib.suppress(ConnectionError):
            while not ended.done():
                await client.write("G")
                await asyncio.sleep(SOON / 10)
        assert await ended == ""


async def test_the_next_head_has_no_more_time_than_the_first(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(at) as client:
        await client.write(f"{LIVE}\r\n")
        assert "200 OK" in await client.answer()
        monkeypatch.setattr(f"{CONNECTION}.PATIENCE_SECONDS", SOON)
        await client.write(LIVE)
        assert await client.rest() == ""


async def test_the_rest_of_a_body_that_nobody_reads_is_not_waited_for(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{CONNECTION}.PATIENCE_SECONDS", SOON)
    head = "POST /v1/x HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\n"
    async with connected(at) as client:
        await client.write(f"{head}Content-Length: 9\r\n\r\n1")
        assert " 401 " in await client.answer()
        await client.write("2")
        assert await client.rest() == ""


async def test_a_connection_that_gets_on_stays(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hurried: list[Connection] = []
    really = Connection._hurry  # pyright: ignore[reportPrivateUsage]

    def hurry(connection: Connection) -> None:
        hurried.append(connection)
        really(connection)

    monkeypatch.setattr(Connection, "_hurry", hurry)
    async with connected(at) as client:
        for number in range(1, 5):
            await client.write(LIVE)
            await wait_until(lambda n=number: len(hurried) == n, "it is hurried")  # type: ignore[misc]
            await client.write("\r\n")
            assert "200 OK" in await client.answer()
            left = hurried[-1]._impatience  # pyright: ignore[reportPrivateUsage]
            assert left is None, "its time goes on"


async def test_connections_leave_files_for_the_store(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as held:
        clients = [await held.enter_async_context(connected(at)) for _ in range(3)]
        for client in clients:
            await client.write(f"{LIVE}\r\n")
            assert "200 OK" in await client.answer()
        monkeypatch.setattr(f"{CONNECTION}.most_connections", lambda: 3)
        async with connected(at) as one_too_many:
            assert await one_too_many.rest() == ""
        await clients[0].write(f"{LIVE}Connection: close\r\n\r\n")
        assert "200 OK" in await clients[0].rest()
        async with connected(at) as next_one:
            await next_one.write(f"{LIVE}\r\n")
            assert "200 OK" in await next_one.answer()


async def test_a_crowd_that_says_nothing_takes_no_more_files_than_it_may(place: Place) -> None:
    with serve_process(["--no-auth", *place.arguments], place.environ) as served:
        hard = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (FILES, hard))
        address = urlsplit(served.url)
        crowd = [socket.socket() for _ in range(FILES + 100)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex((address.hostname, address.port))
        for one in crowd:
            await asyncio.sleep(0)
            one.close()
        async with connected(address.netloc) as client:
            await client.write(f"{LIVE}\r\n")
            assert "200 OK" in await client.answer()
        assert served.stderr().count("\n") == 1, "it said more than that it is ready"


async def test_a_body_with_two_lengths_is_refused_and_nothing_in_it_is_a_request(at: str) -> None:
    async with connected(at) as client:
        await client.write(
            "POST /v1/spaces HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\n"
            f"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{LIVE}\r\n"
        )
        told = await client.rest()
    assert told.startswith("HTTP/1.1 400 ")
    assert "exclude each other" in told
    assert told.count("HTTP/1.1") == 1
