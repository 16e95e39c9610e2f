"""MCP over this process's standard streams, in both eras of the protocol."""

from __future__ import annotations

from collections.abc import Iterable

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.server.mcpserver import MCPServer
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse

from .framing import Lines, NoMessage, brief, parse
from .wire import Wire

LAST_ANSWERS_SECONDS = 0.25
"""After the end of the input, how long answers to what came before are waited for."""


class StdioConnection:
    """Joins a wire to the SDK's streams; ends as soon as the input ends."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._open: set[str | int] = set()
        self._answered = anyio.Event()
        self._to_server, self.incoming = anyio.create_memory_object_stream[
            SessionMessage | Exception
        ](0)
        self.outgoing, self._from_server = anyio.create_memory_object_stream[SessionMessage](0)
        self._sending = anyio.Lock()
        self._over = anyio.CancelScope()

    async def run(self, server: MCPServer) -> None:
        """Serve until the client closes its end."""
        # The SDK has no public way to bring one's own streams.
        lowlevel = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
        options = lowlevel.create_initialization_options()
        async with anyio.create_task_group() as tasks:
            self._over = tasks.cancel_scope
            tasks.start_soon(self._read)
            tasks.start_soon(self._write, self._from_server)
            await lowlevel.run(self.incoming, self.outgoing, options)
            self._over.cancel()

    async def _read(self) -> None:
        lines = Lines()
        async with self._to_server:
            while data := await self._wire.read():
                await self._pass_on(lines.feed(data))
            await self._pass_on(lines.finish())
            with anyio.move_on_after(LAST_ANSWERS_SECONDS):
                while self._open:
                    self._answered = anyio.Event()
                    await self._answered.wait()

    async def _pass_on(self, lines: Iterable[bytes | None]) -> None:
        for line in lines:
            try:
                message = parse(line)
            except NoMessage as refused:
                await self._send(refused.answer)
                continue
            if isinstance(message, JSONRPCRequest):
                self._open.add(message.id)
            await self._to_server.send(SessionMessage(message))

    async def _write(self, messages: MemoryObjectReceiveStream[SessionMessage]) -> None:
        # When nobody reads any more the connection is over; the reader may never learn of it.
        async with messages:
            async for item in messages:
                try:
                    await self._send(brief(item.message))
                except BrokenPipeError:
                    self._over.cancel()
                    return
                if isinstance(item.message, JSONRPCResponse | JSONRPCError):
                    self._open.discard(item.message.id if item.message.id is not None else "")
                    self._answered.set()

    async def _send(self, message: JSONRPCMessage) -> None:
        text = message.model_dump_json(by_alias=True, exclude_unset=True)
        async with self._sending:
            await self._wire.write(text.encode() + b"\n")


async def serve_stdio(server: MCPServer) -> None:
    """Serve MCP on descriptors 0 and 1 until the input ends."""
    await StdioConnection(Wire()).run(server)
