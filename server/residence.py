"""What the resident does: welcome the small processes of clients, serve each as a server of its own, and go in time."""

from __future__ import annotations

import logging
import os
import resource
from collections import deque
from collections.abc import AsyncIterator
from contextvars import ContextVar

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup

from bilt_mcp.tools import build_tools

from . import frames as kinds
from .app import OpenStores, create_server
from .config import Config, ConfigError
from .connection import Connection, Line
from .frames import Frames, NotAFrame, frame, unpack
from .joining import is_ours
from .tracing import traced

log = logging.getLogger("bilt_mcp.server")

HELLO_SECONDS = 10.0
READ_BYTES = 1 << 16
BREATH_SECONDS = 0.1
WATCH_SECONDS = 2.0
SPARE_DESCRIPTORS = 128
MOST_LOGGED = 100
"""Lines for the log of one client that wait for its next answer; older ones are only in the resident's own."""


class JoinedEnd:
    """`connection.End` of a client that the small process speaks for."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._frames = Frames()
        self._early: list[tuple[int, int, bytes]] = []
        self.logged: deque[str] = deque(maxlen=MOST_LOGGED)
        """What is to be told in the client's log, with the next answer."""

    async def hello(self) -> list[bytes]:
        """What the client's process says of itself. Raises `NotAFrame`."""
        while not self._early:
            try:
                self._early = self._frames.feed(await self._stream.receive(READ_BYTES))
            except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
                raise NotAFrame from error
        kind, _, payload = self._early.pop(0)
        if kind != kinds.HELLO:
            raise NotAFrame
        return unpack(payload)

    async def end(self) -> None:
        """Say that nothing more is to come."""
        await self._write(frame(kinds.END, 0))

    async def answer_hello(self, welcome: bool) -> None:
        """Say whether we serve it."""
        await self._write(frame(kinds.WELCOME if welcome else kinds.REFUSED, 0))

    async def lines(self) -> AsyncIterator[Line]:
        """See `End.lines`."""
        found = self._early
        while True:
            for kind, number, payload in found:
                if kind in (kinds.LINE, kinds.KEPT):
                    yield Line(number, payload, answered=kind == kinds.KEPT)
                elif kind == kinds.LONG:
                    yield Line(number, None)
            try:
                found = self._frames.feed(await self._stream.receive(READ_BYTES))
            except (anyio.EndOfStream, anyio.BrokenResourceError, NotAFrame):
                return

    async def send(self, text: bytes, answers: int = 0, *, keep: bool = False) -> None:
        """See `End.send`."""
        kind = kinds.KEEP if keep else kinds.ANSWER if answers else kinds.TEXT
        said = b""
        while self.logged:
            said += frame(kinds.LOG, 0, self.logged.popleft().encode("utf-8", "replace"))
        await self._write(said + frame(kind, answers, text))

    async def done(self, number: int, *, keep: bool = False) -> None:
        """See `End.done`."""
        await self._write(frame(kinds.KEEP if keep else kinds.DONE, number))

    async def _write(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise BrokenPipeError from error


def most_clients() -> int:
    """How many are served at a time, so that descriptors are left for what they ask."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(most // 2, most - SPARE_DESCRIPTORS) if most != resource.RLIM_INFINITY else 1 << 20


_END: ContextVar[JoinedEnd | None] = ContextVar("end", default=None)


class ClientLog(logging.Handler):
    """Tells a client what is logged while its requests are served, as its own server would."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        end = _END.get()
        if end is not None and record.levelno >= logging.WARNING:
            end.logged.append(self.format(record) + "\n")


class Residence:
    """All connections of one resident. The current folder is the store's."""

    def __init__(self, name: str, idle_seconds: float) -> None:
        """`name` is that of the socket."""
        self._name = name
        self._idle_seconds = idle_seconds
        self._tools = build_tools()
        self._stores = OpenStores()
        self._connected = 0
        self._changed = anyio.Event()

    async def run(self) -> None:
        """Serve until nobody has been connected for `idle_seconds`, or until nobody new could be.

        When the socket is gone, or the whole store, those who are connected are better off with another one, too.
        """
        listener = await anyio.create_unix_listener(self._name, mode=0o600)
        ours = os.stat(self._name).st_ino
        try:
            async with listener, anyio.create_task_group() as tasks:
                tasks.start_soon(self._accept, listener, tasks)
                tasks.start_soon(self._watch, ours, tasks.cancel_scope)
                await self._nobody()
                # A client that comes now finds nobody, and starts another one.
                tasks.cancel_scope.cancel()
        finally:
            if self._is_there(ours):
                os.unlink(self._name)
            with anyio.CancelScope(shield=True):
                await self._stores.close()

    async def _watch(self, ours: int, life: anyio.CancelScope) -> None:
        while self._is_there(ours):  # noqa: ASYNC110 - nobody says when a file goes
            await anyio.sleep(WATCH_SECONDS)
        log.warning("the socket is gone, so this resident goes")
        life.cancel()

    def _is_there(self, ours: int) -> bool:
        try:
            return os.stat(self._name).st_ino == ours
        except OSError:
            return False

    async def _accept(self, listener: SocketListener, tasks: TaskGroup) -> None:
        while True:
            try:
                stream = await listener.accept()
            except anyio.BrokenResourceError:
                # No descriptor is left. Who waits is welcomed when one is, or serves itself; the others go on.
                await anyio.sleep(BREATH_SECONDS)
            else:
                tasks.start_soon(self._serve, stream)

    async def _nobody(self) -> None:
        while True:
            self._changed = anyio.Event()
            if self._connected:
                await self._changed.wait()
                continue
            with anyio.move_on_after(self._idle_seconds) as waited:
                await self._changed.wait()
            if waited.cancelled_caught:
                return

    async def _serve(self, stream: SocketStream) -> None:
        self._connected += 1
        self._changed.set()
        try:
            async with stream:
                await self._converse(stream)
        except (NotAFrame, BrokenPipeError):
            pass  # it has gone, or is none of us
        except Exception:
            # One client's trouble must not end the others' server; its process takes its requests elsewhere.
            log.exception("a connection failed")
        finally:
            self._connected -= 1
            self._changed.set()

    async def _converse(self, stream: SocketStream) -> None:
        if not is_ours(stream.extra(SocketAttribute.raw_socket)):
            return
        end = JoinedEnd(stream)
        with anyio.fail_after(HELLO_SECONDS):
            said = await end.hello()
        name, project, store, *pairs = (os.fsdecode(text) for text in said)
        environ = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        try:
            config = Config.from_environ(environ, project=project, store=store)
        except ConfigError:
            await end.answer_hello(False)  # its own process tells what is wrong
            return
        if self._connected > most_clients():
            await end.answer_hello(False)
            return
        _END.set(end)
        connection = Connection(end, name)
        server = create_server(
            config, stores=self._stores, tools=self._tools, key_of=connection.key_of
        )
        async with traced(config.environ):
            await end.answer_hello(True)
            await connection.run(server)
        await end.end()
