"""A connection to a server in this process, message by message: what any client would see, and no client's opinion."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server.mcpserver import MCPServer
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from .rpc import ENVELOPE, Json

LIMIT_SECONDS = 30.0
TASK_CAPABILITIES: Json = {"extensions": {"io.modelcontextprotocol/tasks": {}}, "elicitation": {}}


class MemoryWire:
    """The client's end, in the era without a handshake."""

    def __init__(
        self,
        to: MemoryObjectSendStream[SessionMessage | Exception],
        found: MemoryObjectReceiveStream[SessionMessage],
        capabilities: Mapping[str, Any],
    ) -> None:
        self._to, self._from = to, found
        self._ids = itertools.count(1)
        self._meta = {**ENVELOPE, "io.modelcontextprotocol/clientCapabilities": dict(capabilities)}

    async def send(self, method: str, **params: Any) -> int:
        """Send a request; returns its id."""
        number = next(self._ids)
        await self._write(id=number, method=method, params={**params, "_meta": self._meta})
        return number

    async def notify(self, method: str, **params: Any) -> None:
        await self._write(method=method, params={**params, "_meta": self._meta})

    async def _write(self, **message: Any) -> None:
        text = json.dumps({"jsonrpc": "2.0", **message})
        await self._to.send(SessionMessage(jsonrpc_message_adapter.validate_json(text)))

    async def next(self, seconds: float = LIMIT_SECONDS) -> Json:
        """The next message from the server, whatever it is. Raises `TimeoutError`."""
        with anyio.fail_after(seconds):
            item = await self._from.receive()
        text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        found: Json = json.loads(text)
        return found

    async def ask(self, method: str, **params: Any) -> Json:
        """A request's whole answer; nothing may come before it."""
        number = await self.send(method, **params)
        found = await self.next()
        assert found.get("id") == number, found
        return found


@contextlib.asynccontextmanager
async def memory_wire(
    server: MCPServer[Any], capabilities: Mapping[str, Any] = TASK_CAPABILITIES
) -> AsyncGenerator[MemoryWire]:
    """A connection to `server`, which runs as long as this."""
    to, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, found = anyio.create_memory_object_stream[SessionMessage](100)
    lowlevel = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
    options = lowlevel.create_initialization_options()
    async with anyio.create_task_group() as tasks, to, found:
        tasks.start_soon(lowlevel.run, incoming, outgoing, options)
        yield MemoryWire(to, found, capabilities)
        tasks.cancel_scope.cancel()
