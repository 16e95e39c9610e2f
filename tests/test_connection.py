"""One client's connection, whatever carries it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from mcp.server.mcpserver import MCPServer

from bilt_mcp.server import connection
from bilt_mcp.server.connection import Connection, Line

from .support.rpc import request

pytestmark = pytest.mark.anyio

MOST = 50


class Unread:
    """A client that asks on and on, and reads nothing until it is told to."""

    def __init__(self, asks: int) -> None:
        self.asked = 0
        self.answers = 0
        self.reads = anyio.Event()
        self._asks = asks

    async def lines(self) -> AsyncIterator[Line]:
        for number in range(1, self._asks + 1):
            self.asked = number
            yield Line(number, request(number, "ping").strip())

    async def send(self, text: bytes, answers: int = 0, *, keep: bool = False) -> None:
        await self.reads.wait()
        self.answers += 1

    async def done(self, number: int, *, keep: bool = False) -> None:
        pass


async def test_of_a_client_that_reads_no_answers_no_more_is_read_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "MOST_OPEN", MOST)
    client = Unread(3 * MOST)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Connection(client).run, MCPServer("bare"))
        await anyio.wait_all_tasks_blocked()
        assert MOST <= client.asked < 2 * MOST
        client.reads.set()
    assert client.answers == client.asked == 3 * MOST
