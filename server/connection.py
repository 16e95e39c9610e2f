"""One client's connection, whatever carries it: joins its lines to the SDK's streams, in both eras of the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple, Protocol

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.server.mcpserver import MCPServer
from mcp.shared.message import SessionMessage
from mcp_types import (
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)

from .framing import NoMessage, brief, parse
from .questions import Questions

LAST_ANSWERS_SECONDS = 0.25
"""After the end of the input, how long the next answer to what came before is waited for."""

MOST_OPEN = 1000
"""Requests of a client that wait for their answers before no more are read: he may not be reading."""

RequestId = str | int

_KEPT = {"initialize", "resources/subscribe", "resources/unsubscribe"}
"""What whoever serves the connection next must know, once it has been answered."""


class Line(NamedTuple):
    """A client's line. Numbers rise, and belong to the line also when it is given to another process."""

    number: int
    text: bytes | None
    """None: it was too long."""
    answered: bool = False
    """An earlier process has answered it: the answer is nobody's."""


class End(Protocol):
    """The client's end of a connection."""

    def lines(self) -> AsyncIterator[Line]:
        """The client's lines, until it closes its end."""
        ...

    async def send(self, text: bytes, answers: int = 0, *, keep: bool = False) -> None:
        """Send a line that answers the line of this number, or none. Raises `BrokenPipeError` when nobody reads.

        `keep` says that whoever serves this connection next must know the line that is answered.
        """
        ...

    async def done(self, number: int, *, keep: bool = False) -> None:
        """The line of this number needs no answer any more."""
        ...


class Connection:
    """Joins an end to the SDK's streams; ends as soon as the input ends."""

    def __init__(self, end: End, name: str = "") -> None:
        self._end = end
        self._name = name
        self._open: dict[RequestId, int] = {}
        self._keep: set[RequestId] = set()
        self._answered = anyio.Event()
        self._to_server, self.incoming = anyio.create_memory_object_stream[
            SessionMessage | Exception
        ](0)
        self.outgoing, self._from_server = anyio.create_memory_object_stream[SessionMessage](0)
        self._sending = anyio.Lock()
        self._over = anyio.CancelScope()
        self._muted: set[RequestId] = set()
        self._questions = Questions()

    def key_of(self, request_id: RequestId) -> str | None:
        """What tells this very request from all others, also when it is asked again of another process.

        None where a request never is.
        """
        number = self._open.get(request_id)
        return f"{self._name}/{number}" if self._name and number else None

    async def run(self, server: MCPServer[Any]) -> None:
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
        async with self._to_server:
            async for line in self._end.lines():
                await self._pass_on(line)
                while len(self._open) >= MOST_OPEN:
                    await self._one_more_answer()
            while left := len(self._open):
                with anyio.move_on_after(LAST_ANSWERS_SECONDS):
                    while len(self._open) >= left:
                        await self._one_more_answer()
                if len(self._open) >= left:
                    return

    async def _one_more_answer(self) -> None:
        self._answered = anyio.Event()
        await self._answered.wait()

    async def _pass_on(self, line: Line) -> None:
        try:
            message = parse(line.text)
        except NoMessage as refused:
            await self._send(refused.answer, line.number)
            return
        if isinstance(message, JSONRPCRequest):
            self._expect(message, line)
            await self._to_server.send(SessionMessage(message))
            return
        known: JSONRPCMessage | None = message
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            known = self._questions.answered(message)
        if known is not None:
            await self._to_server.send(SessionMessage(known))
        keep = getattr(message, "method", "") == "notifications/initialized"
        if isinstance(message, JSONRPCNotification):
            await self._forget_cancelled(message)
        if not line.answered:
            await self._end.done(line.number, keep=keep)

    def _expect(self, message: JSONRPCRequest, line: Line) -> None:
        if line.answered:
            self._muted.add(message.id)
            return
        self._open[message.id] = line.number
        if message.method in _KEPT:
            self._keep.add(message.id)

    async def _forget_cancelled(self, message: JSONRPCNotification) -> None:
        # What its sender has cancelled is never answered.
        if message.method == "notifications/cancelled":
            request_id = (message.params or {}).get("requestId")
            if isinstance(request_id, str | int) and request_id in self._open:
                number = self._open.pop(request_id)
                self._answered.set()
                await self._end.done(number)

    async def _write(self, messages: MemoryObjectReceiveStream[SessionMessage]) -> None:
        # When nobody reads any more the connection is over; the reader may never learn of it.
        async with messages:
            async for item in messages:
                try:
                    await self._answer(item.message)
                except BrokenPipeError:
                    self._over.cancel()
                    return

    async def _answer(self, message: JSONRPCMessage) -> None:
        message = self._questions.asked(message)
        number, keep = 0, False
        if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
            if message.id in self._muted:
                self._muted.discard(message.id)
                return
            number = self._open.pop(message.id, 0)
            keep = message.id in self._keep and isinstance(message, JSONRPCResponse)
            self._keep.discard(message.id)
        await self._send(brief(message), number, keep)
        self._answered.set()

    async def _send(self, message: JSONRPCMessage, number: int, keep: bool = False) -> None:
        text = message.model_dump_json(by_alias=True, exclude_unset=True)
        async with self._sending:
            await self._end.send(text.encode() + b"\n", number, keep=keep)
