"""Joins a client's standard streams to the resident, line by line. Standard library only, and little of it.

It remembers what the resident has not dealt with yet. When the resident dies, another one gets that.
"""

from __future__ import annotations

import _socket
import os
import select
import stat

from . import frames as kinds
from .frames import Frames, NotAFrame, frame
from .lines import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ_BYTES = 1 << 16
PIPE_ROOM = 4096
"""A pipe that polls as writable takes this much without blocking (PIPE_BUF)."""
MOST_WAITING = 1 << 20
"""Bytes that wait for a slow reader before we read no more for it."""
MOST_LOSSES = 3
"""Residents that may be lost in a row without one answer: then a request is at fault, and is served apart."""


class Backlog:
    """What a connection has been through: everything that another server needs to go on with it."""

    def __init__(self, connection: str) -> None:
        self.connection = connection
        self.lines = Lines()
        self.number = 0
        """Of the newest line."""
        self.kept: dict[int, bytes] = {}
        """The lines of the handshake that have been answered."""
        self.open: dict[int, bytes | None] = {}
        """The lines that nobody has dealt with; None for one that was too long."""
        self.ended = False
        """Whether the client has closed its end."""

    def take(self, data: bytes) -> bytes:
        """New input, b"" at its end; returns the frames of its lines."""
        found = self.lines.feed(data) if data else self.lines.finish()
        self.ended = not data
        said = b""
        for line in found:
            self.number += 1
            self.open[self.number] = line
            said += _of_line(self.number, line)
        return said

    def all_frames(self) -> bytearray:
        """Everything that a new resident must know."""
        said = bytearray()
        for number, kept in self.kept.items():
            said += frame(kinds.KEPT, number, kept)
        for number, line in self.open.items():
            said += _of_line(number, line)
        return said

    def keep(self, number: int) -> None:
        """The line of this number is part of the handshake."""
        line = self.open.pop(number, None)
        if line is not None:
            self.kept[number] = line


class Relay:
    """One client's streams and its connection to a resident."""

    def __init__(self, backlog: Backlog, rejoin: Callable[[], _socket.socket | None]) -> None:
        self._backlog = backlog
        self._rejoin = rejoin
        self._to_resident = bytearray()
        self._to_client = bytearray()
        self._frames = Frames()
        self._losses = 0
        self._half_closed = False
        self._all_said = False
        self._socket: _socket.socket | None = None
        self._out: _socket.socket | None = None
        if stat.S_ISSOCK(os.fstat(1).st_mode):
            self._out = _socket.socket(fileno=os.dup(1))

    def run(self) -> bool:
        """Serve until the client goes. False when it must be served without a resident from here on."""
        while True:
            if not self._join():
                self._flush()  # what has been answered is nobody else's to say
                return False
            assert self._socket is not None
            lost = self._relay(self._socket)
            self._socket.close()
            if not lost:
                self._flush()
                return True

    def _join(self) -> bool:
        if self._losses >= MOST_LOSSES:
            return False
        self._socket = self._rejoin()
        self._frames = Frames()
        self._to_resident = self._backlog.all_frames()
        self._half_closed = False
        return self._socket is not None

    def _relay(self, resident: _socket.socket) -> bool:
        """Until the end, or until the resident is lost: then True."""
        number = resident.fileno()
        while True:
            if self._backlog.ended and not self._to_resident and not self._half_closed:
                self._half_closed = True
                resident.shutdown(_socket.SHUT_WR)
            ready = self._wait(number)
            if ready.get(number, 0) & select.POLLOUT:
                self._send(resident)
            if ready.get(number, 0) & ~select.POLLOUT and not self._receive(resident):
                self._losses += 1
                # Whoever has gone, and was told all that there was to tell, needs no other one.
                return not self._backlog.ended or bool(self._backlog.open and not self._all_said)
            if ready.get(1, 0) and not self._write():
                return False
            if ready.get(0, 0):
                self._to_resident += self._backlog.take(_read())

    def _wait(self, resident: int) -> dict[int, int]:
        poll = select.poll()
        if not self._backlog.ended and len(self._to_resident) < MOST_WAITING:
            poll.register(0, select.POLLIN)
        if self._to_client:
            poll.register(1, select.POLLOUT)
        wanted = select.POLLIN if len(self._to_client) < MOST_WAITING else 0
        poll.register(resident, wanted | (select.POLLOUT if self._to_resident else 0))
        return dict(poll.poll())

    def _send(self, resident: _socket.socket) -> None:
        try:
            del self._to_resident[: resident.send(self._to_resident[:MOST_WAITING])]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._to_resident.clear()  # what it has said before its end is still to be read

    def _receive(self, resident: _socket.socket) -> bool:
        """Take what the resident says; False when there is no more."""
        try:
            data = resident.recv(READ_BYTES)
            found = self._frames.feed(data)
        except BlockingIOError:
            return True
        except (ConnectionError, NotAFrame):
            return False
        backlog = self._backlog
        for kind, number, payload in found:
            if kind == kinds.LOG:
                _log(payload)
                continue
            if kind == kinds.END:
                self._all_said = True
            self._to_client += payload
            if kind == kinds.KEEP:
                backlog.keep(number)
            elif kind in (kinds.ANSWER, kinds.DONE):
                backlog.open.pop(number, None)
            if kind == kinds.ANSWER:
                self._losses = 0
        return bool(data)

    def _write(self) -> bool:
        """Write some; False when nobody reads any more."""
        try:
            if self._out is not None:
                written = self._out.send(self._to_client, _socket.MSG_DONTWAIT)
            else:
                # Never O_NONBLOCK: the other side may share the description.
                written = os.write(1, self._to_client[:PIPE_ROOM])
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        del self._to_client[:written]
        return True

    def _flush(self) -> None:
        poll = select.poll()
        poll.register(1, select.POLLOUT)
        while self._to_client and poll.poll() and self._write():
            pass


def _of_line(number: int, line: bytes | None) -> bytes:
    return frame(kinds.LONG, number) if line is None else frame(kinds.LINE, number, line)


def _log(text: bytes) -> None:
    try:  # noqa: SIM105 - contextlib takes longer to load than all that we load
        os.write(2, text)
    except OSError:
        pass  # nobody reads the log


def _read() -> bytes:
    try:
        return os.read(0, READ_BYTES)
    except ConnectionError:
        return b""
