"""MCP on this process's own standard streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

from .app import create_server
from .config import Config
from .connection import Connection, Line
from .relay import Backlog
from .tracing import traced
from .wire import Wire


class StandardStreams:
    """`connection.End` on descriptors 0 and 1. `backlog` is what came before this process served itself."""

    def __init__(self, backlog: Backlog) -> None:
        self._wire = Wire()
        self._backlog = backlog

    async def lines(self) -> AsyncIterator[Line]:
        """See `End.lines`."""
        backlog = self._backlog
        for number, kept in list(backlog.kept.items()):
            yield Line(number, kept, answered=True)
        for number, line in list(backlog.open.items()):
            yield Line(number, line)
        while not backlog.ended:
            before = backlog.number
            backlog.take(await self._wire.read())
            for number in range(before + 1, backlog.number + 1):
                yield Line(number, backlog.open[number])

    async def send(self, text: bytes, answers: int = 0, *, keep: bool = False) -> None:
        """See `End.send`."""
        await self.done(answers)
        await self._wire.write(text)

    async def done(self, number: int, *, keep: bool = False) -> None:
        """See `End.done`."""
        self._backlog.open.pop(number, None)


async def serve_stdio(config: Config, backlog: Backlog | None = None) -> None:
    """Serve MCP on descriptors 0 and 1 until the input ends, and what is left in the backlog first."""
    backlog = backlog or Backlog("")
    connection = Connection(StandardStreams(backlog), backlog.connection)
    async with traced(config.environ):
        await connection.run(create_server(config, key_of=connection.key_of))
